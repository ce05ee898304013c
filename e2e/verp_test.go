package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestVERPWays: the ways to turn VERP on (README 3.14), and that "never" and "always"
// override the others. Also a bounce of ours goes to such an address.
func TestVERPWays(t *testing.T) {
	t.Parallel()
	const aliases = "plain@list.test <u@a.test> <bad@a.test>\nlist@list.test <u@a.test> <bad@a.test>\nverp-list@list.test something\n"
	for name, c := range map[string]struct {
		option, mail, rcpt string
		want               []string // senders and recipients
	}{
		"not": {rcpt: "plain@list.test", want: []string{"s@client.test to u@a.test", " to s@client.test"}},
		"verp- alias": {
			rcpt: "list@list.test",
			want: []string{"s+u=a.test@client.test to u@a.test", " to s+bad=a.test@client.test"},
		},
		"XVERP": {
			mail: " XVERP", rcpt: "plain@list.test",
			want: []string{"s+u=a.test@client.test to u@a.test", " to s+bad=a.test@client.test"},
		},
		"always, own delimiters": {
			option: `VERP { when = always; delimiter1 = "--"; delimiter2 = "_at_"; }`, rcpt: "plain@list.test",
			want: []string{"s--u_at_a.test@client.test to u@a.test", " to s--bad_at_a.test@client.test"},
		},
		"never": {
			option: `VERP { when = never; }`, mail: " XVERP", rcpt: "list@list.test",
			want: []string{"s@client.test to u@a.test", " to s@client.test"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, "")
			refuseBad(s)
			m := newMTA(t, settings{
				mailertable: toPort(t, ".", s.addr), qmgr: c.option, flags: ", xverp",
				smar: `aliases { file = "aliases"; flags = { all_domains }; }`,
			})
			writeFile(t, m.dir+"/aliases", aliases)
			m.start()
			speak(t, m.smtp, testContent(1, 500), "MAIL FROM:<s@client.test>"+c.mail, "RCPT TO:<"+c.rcpt+">")
			s.waitFor(len(c.want))
			m.queueEmpty()
			var got []string
			for _, a := range s.arrivals() {
				got = append(got, fmt.Sprint(a.from, " to ", strings.Join(a.rcpts, " ")))
			}
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
