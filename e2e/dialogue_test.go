package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestServerDialogues plays the server's dialogues to the built binary over TCP: those that
// need nothing but options, and the client's lines. What is in a message is not looked at
// here; the server's own test does that.
func TestServerDialogues(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../server/testdata/dialogue/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	byOptions, n := map[string][]wireDialogue{}, 0
	for _, file := range files {
		if d, ok := readWireDialogue(t, file); ok {
			byOptions[d.options] = append(byOptions[d.options], d)
			n++
		}
	}
	if n < 60 {
		t.Fatalf("only %d of %d dialogues can be played", n, len(files))
	}
	for options, list := range byOptions {
		addr := plainMTA(t, options)
		for _, d := range list {
			t.Run(d.name, func(t *testing.T) { d.play(t, addr) })
		}
	}
}

// wireDialogue is a dialogue as it is on the wire.
type wireDialogue struct {
	name, options string
	steps         []wireStep
}

// wireStep is what the client sends in one piece, and the lines that must come back.
type wireStep struct {
	send   string
	expect []string
	closes bool
}

// notOverTCP are dialogues that hold only for the connections and modules of the server's own
// test.
var notOverTCP = regexp.MustCompile(`^(identity_|unix_socket|strict_|lax_|greet_pause|timeout|down_|double_bounce|size_unlimited|xclient|xforward|proxy)`)

// readWireDialogue reads a file; ok is false if it needs more than a server with options.
func readWireDialogue(t *testing.T, file string) (d wireDialogue, ok bool) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d.name = strings.TrimSuffix(filepath.Base(file), ".txt")
	if notOverTCP.MatchString(d.name) {
		return d, false
	}
	step := &wireStep{}
	answered := true // what is expected so far belongs to the step
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case key == "C":
			if answered {
				d.steps = append(d.steps, *step)
				step, answered = &wireStep{}, false
			}
			if raw, err := strconv.Unquote(value); err == nil && strings.HasPrefix(value, `"`) {
				step.send += raw
			} else {
				step.send += value + "\r\n"
			}
		case key == "S":
			step.expect, answered = append(step.expect, value), true
		case key == "Z":
			step.closes, answered = true, true
		case key == "O":
			d.options += value + "\n"
		case key == "M", key == "L", key == "I", strings.HasPrefix(key, "#"), key == "":
		default:
			return d, false
		}
	}
	d.steps = append(d.steps, *step)
	// With the access map the test's addresses would have to be in it; with others a section
	// refers to files or to modules that are not there.
	for _, word := range []string{"access", "auth", "tls", "milter", "greylist", "sender_login", "submission", "protected", "proxy", "trusted", "DKIM"} {
		if strings.Contains(d.options, word) {
			return d, false
		}
	}
	return d, len(d.steps) > 1
}

// plainMTA runs a server that takes mail for any domain, and keeps it.
func plainMTA(t *testing.T, options string) (addr string) {
	t.Helper()
	m := newMTA(t, settings{mailertable: ". lmtp:\n"})
	text, err := os.ReadFile(m.conf)
	if err != nil {
		t.Fatal(err)
	}
	conf := strings.Replace(string(text), "  flags = { 8bitmime, access };\n", options, 1)
	conf = strings.Replace(conf, `hostname = "mta.test"`, `hostname = "mx.example.org"`, 1)
	writeFile(t, m.conf, conf)
	m.start()
	return m.smtp
}

var (
	wireID      = regexp.MustCompile(`id=S[0-9A-F]+`)
	wireVersion = regexp.MustCompile(`meta1-\S+`)
)

func normal(line string) string {
	return wireVersion.ReplaceAllString(wireID.ReplaceAllString(line, "id=S"), "meta1")
}

func (d *wireDialogue) play(t *testing.T, addr string) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for i, step := range d.steps {
		_ = c.SetDeadline(time.Now().Add(hangs))
		if _, err := fmt.Fprint(c, step.send); err != nil {
			t.Fatalf("sending %q: %v", step.send, err)
		}
		for _, want := range step.expect {
			got, err := r.ReadString('\n')
			if err != nil || normal(strings.TrimSuffix(got, "\r\n")) != normal(want) {
				t.Fatalf("after %q: %q (%v), want %q", step.send, got, err, want)
			}
		}
		if step.closes {
			if got, err := r.ReadString('\n'); err == nil || got != "" {
				t.Fatalf("after %q: %q, the server was to close", step.send, got)
			}
			if i < len(d.steps)-1 {
				t.Fatal("the dialogue goes on after its end")
			}
		}
	}
}
