package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// recorded is a dialogue of package server, whose tests say what its lines mean.
type recorded struct {
	name    string
	options string   // of the section smtps
	entry   string   // of smtps_session_conf: for the client
	lines   []string // C:, S:, T: and Z:
	addr    string   // the server listens here
	client  string   // the client's own address
}

// dialogueMax is how long a dialogue may take before it counts as one that hangs: none of them
// waits for anything.
const dialogueMax = 30 * time.Second

const (
	dialogueClient = "192.0.2.1"               // the client of dialogues
	dialogueUser   = "alice {PLAIN}wonderland" // an entry of the map of users that they have
)

// elsewhere are dialogues that the real QMGR and SMAR lead otherwise than those of package
// server's tests, with the reason.
var elsewhere = map[string]string{
	"features_unknown":  "the start refuses an entry that names no section",
	"identity_theft":    "a client on this host may have its name",
	"size_unlimited":    "QMGR refuses a size for which there is no room",
	"tls_on_plain_port": "the handshake must fail",
}

// tlsVersions are the least versions of TLS that T: of a dialogue may ask for.
var tlsVersions = map[string]uint16{"": tls.VersionTLS12, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// readRecorded reads those dialogues that need nothing but a server and a client: no time that
// passes, no certificate of the client, no answers of QMGR and SMAR that a test makes up.
func readRecorded(t *testing.T) (all []*recorded) {
	t.Helper()
	files, err := filepath.Glob("../server/testdata/dialogue/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
next:
	for _, file := range files {
		d := &recorded{name: strings.TrimSuffix(filepath.Base(file), ".txt")}
		for line := range strings.Lines(readFile(t, file)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			value = strings.TrimPrefix(value, " ")
			switch {
			case key == "O":
				d.options += value + "\n"
			case key == "R":
				d.entry = value
			case key == "C" || key == "S" || key == "Z":
				d.lines = append(d.lines, key+value)
			case strings.HasPrefix(key, "#"), strings.Contains("MLIH", key), key == "U" && value == dialogueUser:
			case key == "T" && tlsVersions[value] != 0: // without a certificate of the client
				d.lines = append(d.lines, key+value)
			default:
				continue next
			}
		}
		if elsewhere[d.name] == "" {
			all = append(all, d)
		}
	}
	return all
}

// changing is what differs from one run to the next: ids, the version in the greeting, and the
// words for what TLS lacks.
var changing = regexp.MustCompile(`S[0-9A-F]{18}|meta1-[^ \n]+|not met: [^\n]+`)

// play plays a dialogue and returns how it went, up to the first line that does not come.
func (d *recorded) play() (went []string, err error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(d.client)}, Timeout: hangs}
	c, err := dialer.Dial("tcp", d.addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(dialogueMax)); err != nil {
		return nil, err
	}
	r, out := bufio.NewReader(c), ""
	for i, line := range d.lines {
		switch line[0] {
		case 'C':
			text := line[1:] + "\r\n"
			if raw, err := strconv.Unquote(line[1:]); err == nil && line[1] == '"' {
				text = raw
			}
			went = append(went, line)
			if out += text; i+1 < len(d.lines) && d.lines[i+1][0] == 'C' {
				continue // they are sent in one piece
			}
			if _, err := c.Write([]byte(out)); err != nil {
				return went, err
			}
			out = ""
		case 'S':
			got, err := r.ReadString('\n')
			if err != nil {
				return went, err
			}
			went = append(went, "S"+strings.TrimSuffix(got, "\r\n"))
		case 'T':
			secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tlsVersions[line[1:]]})
			if err := secure.Handshake(); err != nil {
				return went, err
			}
			c, r = secure, bufio.NewReader(secure)
			went = append(went, line)
		case 'Z':
			if rest, err := r.ReadString('\n'); err == nil {
				return append(went, "S"+strings.TrimSuffix(rest, "\r\n")), nil
			}
			went = append(went, "Z")
		}
	}
	return went, nil
}

// TestDialogues plays the dialogues of package server over TCP with the whole program: each
// has a section smtps and a client address of its own.
func TestDialogues(t *testing.T) {
	t.Parallel()
	all := readRecorded(t)
	if len(all) < 100 || len(all) > 240 { // each takes an id of one byte, and an address
		t.Fatalf("%d dialogues can be played", len(all))
	}
	var sections, access strings.Builder
	for i, d := range all {
		d.addr, d.client = freeAddr(t), fmt.Sprintf("127.0.1.%d", i+1)
		d.options = strings.ReplaceAll(d.options, dialogueClient, d.client)
		if !strings.Contains(d.options, "cert_file") {
			d.options = strings.Replace(d.options, "tls {", "tls { cert_file = c; key_file = k;", 1)
		}
		if !strings.Contains(d.options, "id = ") {
			d.options += fmt.Sprintf("id = %d;\n", 255-i)
		}
		fmt.Fprintf(&sections, "smtps d%d {\n  listen_socket { type = inet; address = 127.0.0.1; port = %s; }\n%s}\n", i+1, port(t, d.addr), d.options)
		if d.entry != "" {
			fmt.Fprintf(&access, "smtps_session_conf:%s %s\n", d.client, d.entry)
		}
	}
	m := newMTA(t, settings{mailertable: ". lmtp:\n", add: sections.String(), smar: "map users { type = text; file = users; }"})
	writeFile(t, m.dir+"/users", dialogueUser+"\n")
	pem := readFile(t, newTestCA(t).issueFile(t, "mx.example.org"))
	writeFile(t, m.dir+"/c", pem)
	writeFile(t, m.dir+"/k", pem)
	writeFile(t, m.conf, strings.Replace(readFile(t, m.conf), `"mta.test"`, `"mx.example.org"`, 1))
	writeFile(t, m.dir+"/access", "cltaddr:127. ok\n"+access.String())
	m.start()
	for _, d := range all {
		t.Run(d.name, func(t *testing.T) {
			went, err := d.play()
			want := changing.ReplaceAllString(strings.Join(d.lines, "\n"), "~")
			got := changing.ReplaceAllString(strings.Join(went, "\n"), "~")
			if err != nil || got != want {
				t.Errorf("%v\n--- it went\n%s\n--- not\n%s", err, got, want)
			}
		})
	}
	m.alive()
}
