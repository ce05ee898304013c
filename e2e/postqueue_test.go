package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// shapeOf adds to shape the path and type of each member of a value of JSON. A list is told by what is in it.
func shapeOf(shape map[string]string, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		shape[path] = "object"
		for name, member := range v {
			shapeOf(shape, path+"."+name, member)
		}
	case []any:
		shape[path] = "array"
		for _, member := range v {
			shapeOf(shape, path+"[]", member)
		}
	default:
		shape[path] = fmt.Sprintf("%T", v)
	}
}

// listedMsg is one message as postqueue -j or mailq --json tell of it.
type listedMsg struct {
	id, queue string
	all       map[string]any
}

// parseQueue reads lines of JSON. The messages are found by the first letter of the first recipient.
func parseQueue(text string) (map[string]listedMsg, error) {
	found := map[string]listedMsg{}
	d := json.NewDecoder(strings.NewReader(text))
	for {
		var all map[string]any
		switch err := d.Decode(&all); {
		case err == io.EOF:
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("%w in %s", err, text)
		}
		rcpts, _ := all["recipients"].([]any)
		if len(rcpts) == 0 {
			return nil, fmt.Errorf("no recipients in %v", all)
		}
		rcpt, _ := rcpts[0].(map[string]any)
		q := listedMsg{all: all}
		q.id, _ = all["queue_id"].(string)
		q.queue, _ = all["queue_name"].(string)
		name, _, _ := strings.Cut(fmt.Sprint(rcpt["address"]), "@")
		found[strings.Trim(name, `"`)[:1]] = q
	}
}

// TestPostqueue: the same messages wait in a Postfix and in meta1: deferred, held, and in the active queue because the next
// host is silent. Each member that postqueue -j prints of them is in mailq --json, with the same type, and with the same value if the
// value is not one of the MTA's own; what else is there is what the manual tells of.
func TestPostqueue(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	s.answer(func(verb, argument string) string {
		switch {
		case verb != "RCPT":
			return ""
		case strings.Contains(argument, "active"):
			return hang
		}
		return "451 4.2.1 \"not\" now, \\ later"
	})
	next := "smtp:[127.0.0.1]:" + port(t, s.addr)
	p := startPostfix(t, map[string]string{"*": next}, "delay_warning_time = 0h", "queue_run_delay = 1h", "minimal_backoff_time = 1h", "maximal_backoff_time = 1h")
	m := run(t, settings{mailertable: toPort(t, ".", s.addr)})
	for i, msg := range []message{
		{from: "sender@client.test", rcpts: []string{"deferred@a.test", `"two words"@b.test`}},
		{from: "", rcpts: []string{"held@a.test"}},
		{from: `"a \"quoted\" sender"@client.test`, rcpts: []string{"active@a.test"}},
	} {
		msg.data = testContent(i, 2000)
		for _, addr := range []string{p.smtp, m.smtp} {
			if err := sendOne(addr, msg); err != nil {
				t.Fatalf("%s: %v", msg.rcpts, err)
			}
		}
	}
	lists := map[string]func() (string, error){
		"postqueue -j": func() (string, error) { // which warns of our main.cf on standard error
			out, err := peerCommand(t, "postqueue", "-c", p.conf, "-j").Output()
			return string(out), err
		},
		"mailq --json": func() (string, error) { return m.command("mailq", "--json") },
	}
	hold := map[string]func(id string) (string, error){
		"postqueue -j": func(id string) (string, error) { return output(peerCommand(t, "postsuper", "-c", p.conf, "-h", id)) },
		"mailq --json": func(id string) (string, error) { return m.command("queue", "hold", id) },
	}
	got := map[string]map[string]listedMsg{}
	want := map[string]string{"d": "deferred", "h": "hold", "a": "active"}
	for name, list := range lists {
		must(t, func() error {
			out, err := list()
			if err != nil {
				return fmt.Errorf("%s: %w: %s", name, err, out)
			}
			if got[name], err = parseQueue(out); err != nil {
				return err
			}
			if h := got[name]["h"]; h.queue == "deferred" { // an attempt may have come between
				if out, err := hold[name](h.id); err != nil {
					return fmt.Errorf("holding %s: %w: %s", h.id, err, out)
				}
			}
			for first, queue := range want {
				if q := got[name][first]; q.queue != queue {
					return fmt.Errorf("%s: %s is not in the queue %s: %s", name, q.id, queue, out)
				}
			}
			return nil
		})
	}
	for first := range want {
		theirs, ours := got["postqueue -j"][first].all, got["mailq --json"][first].all
		a, b := map[string]string{}, map[string]string{}
		shapeOf(a, "", theirs)
		shapeOf(b, "", ours)
		for path, typ := range a {
			if b[path] != typ {
				t.Errorf("%s is a %s of Postfix, and %q of meta1:\n%v\n%v", path, typ, b[path], theirs, ours)
			}
		}
		for path := range b {
			name := strings.TrimPrefix(path, ".recipients[].")
			if a[path] == "" && !slices.Contains([]string{"delay_reason", "rcpt_id", "state", "attempts", "next_try", "destination"}, name) {
				t.Errorf("%s is no member of Postfix, nor one of ours that the manual tells of", path)
			}
		}
		for _, member := range []string{"queue_name", "sender", "forced_expire"} {
			if theirs[member] != ours[member] {
				t.Errorf("%s is %v of Postfix, and %v of meta1", member, theirs[member], ours[member])
			}
		}
		if x, y := addresses(theirs), addresses(ours); !slices.Equal(x, y) {
			t.Errorf("Postfix has the recipients %q, meta1 %q", x, y)
		}
		if d := theirs["message_size"].(float64) - ours["message_size"].(float64); d < -1000 || d > 1000 { // fields that they add, and our own line ends
			t.Errorf("message_size is %v of Postfix, and %v of meta1", theirs["message_size"], ours["message_size"])
		}
		if d := theirs["arrival_time"].(float64) - ours["arrival_time"].(float64); d < -600 || d > 600 {
			t.Errorf("arrival_time is %v of Postfix, and %v of meta1", theirs["arrival_time"], ours["arrival_time"])
		}
		if first == "d" && !strings.Contains(fmt.Sprint(ours), `"not" now`) {
			t.Errorf("the host's reply is not in %v", ours)
		}
	}
}

// addresses are those of the recipients of a message, sorted.
func addresses(m map[string]any) (all []string) {
	rcpts, _ := m["recipients"].([]any)
	for _, r := range rcpts {
		r, _ := r.(map[string]any)
		all = append(all, fmt.Sprint(r["address"]))
	}
	slices.Sort(all)
	return all
}
