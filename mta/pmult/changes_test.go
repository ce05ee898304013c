package pmult

import (
	"bufio"
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"meta1/pmilter"
	"meta1/server/milter"
)

// modify makes modifications as docs/pmilter.md says: positions are those of the original.
func modify(fields []milter.Header, mods []headerMod) string {
	type place struct{ before, field string }
	places := make([]place, len(fields)+1)
	for i := range fields {
		places[i].field = fields[i].Raw()
	}
	for _, m := range mods {
		switch m.mod {
		case pmilter.HeaderInsert:
			places[m.pos-1].before += m.header
		case pmilter.HeaderRemove:
			places[m.pos-1].field = ""
		case pmilter.HeaderAppend:
			places[len(fields)].before += m.header
		default:
			return "impossible"
		}
	}
	var b strings.Builder
	for _, p := range places {
		b.WriteString(p.before + p.field)
	}
	return b.String()
}

// TestHeaderChanges has filters change headers at random: the modifications make the same
// header of the original, octet by octet.
func TestHeaderChanges(t *testing.T) {
	for seed := range int64(3000) {
		r := rand.New(rand.NewSource(seed))
		var text string
		for range r.Intn(6) {
			text += fmt.Sprintf("%c:%s%d\r\n", 'A'+rune(r.Intn(3)), strings.Repeat(" ", r.Intn(3)), r.Intn(2))
		}
		from, _, _, err := milter.ReadHeader(bufio.NewReader(strings.NewReader(text+"\r\n")), 1000)
		if err != nil {
			t.Fatal(err)
		}
		var list []milter.Change
		for range r.Intn(6) {
			c := milter.Change{Kind: milter.ChangeKind(r.Intn(3)), Index: r.Intn(5), Name: string(rune('A' + r.Intn(3))), Value: fmt.Sprintf(" new%d\r\n\tfold", r.Intn(9))}
			if c.Kind == milter.ChangeHeader {
				c.Index = max(c.Index, 1)
				if r.Intn(2) == 0 {
					c.Value = ""
				}
			}
			list = append(list, c)
		}
		to, _ := milter.Apply(from, list)
		mods, fit := headerChanges(from, to)
		want := string(milter.AppendHeader(nil, to))
		if got := modify(from, mods); got != want || !fit {
			t.Fatalf("seed %d: %q with %+v\nbecomes %q\nwant %q (%v)", seed, text, list, got, want, fit)
		}
		for _, m := range mods {
			if err := pmilter.CheckHeader(m.mod, m.header); err != nil {
				t.Fatalf("seed %d: %+v: %v", seed, m, err)
			}
		}
	}
}

// TestHeaderChangesTooLarge: what the server would not take is told by replacing the message.
func TestHeaderChangesTooLarge(t *testing.T) {
	large, _ := milter.Apply(nil, []milter.Change{{Kind: milter.AddHeader, Name: "X", Value: " " + strings.Repeat("x", pmilter.TextMax)}})
	if _, fit := headerChanges(nil, large); fit {
		t.Error("a field that is too large fits")
	}
	many := make([]milter.Change, pmilter.ChangesMax)
	for i := range many {
		many[i] = milter.Change{Kind: milter.AddHeader, Name: "X", Value: " y"}
	}
	fields, _ := milter.Apply(nil, many)
	if _, fit := headerChanges(nil, fields); fit {
		t.Error("too many fields fit")
	}
}
