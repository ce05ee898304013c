package alias

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"meta1/mta/smtp"
)

// lists hold one another; some have owners of their own.
const lists = `all <direct@x.example> <sales@home.example> <alias@home.example> <dev@home.example>
owner-all boss
sales <s1@x.example> <direct@x.example>
owner-sales salesboss
alias <a1@x.example>
dev <d1@x.example> <kernel@home.example> <d2@x.example>
owner-dev devboss
verp-dev x
kernel <k1@x.example> <lab@home.example>
lab <l1@x.example> <deep@home.example>
owner-lab labboss
verp-lab x
deep <e1@x.example>
owner-deep deepboss
plain <p1@x.example> <sales@home.example>
verp-plain x
verponly <v1@x.example> <verpinner@home.example>
owner-verponly o
verpinner <v2@x.example>
verp-verpinner x
ring <r1@x.example> <ring2@home.example>
owner-ring ringboss
ring2 <r2@x.example> <ring@home.example>
owner-ring2 ringboss2
owner-loop <owner-loop@home.example> <x@x.example>
owner-owner-loop y
only <sales@home.example>
selfish <selfish@home.example>
owner-selfish z
`

func TestOwners(t *testing.T) {
	f := newTable(t, lists)
	for _, c := range []struct{ list, want string }{
		{"all", "owner-all: direct@x.example a1@x.example; owner-sales: s1@x.example; " +
			"owner-dev verp: d1@x.example k1@x.example d2@x.example; owner-lab verp: l1@x.example; owner-deep: e1@x.example"},
		{"dev", "owner-dev verp: d1@x.example k1@x.example d2@x.example; owner-lab verp: l1@x.example; owner-deep: e1@x.example"},
		{"plain", "- verp: p1@x.example; owner-sales: s1@x.example direct@x.example"},
		{"verponly", "owner-verponly: v1@x.example; owner-verponly verp: v2@x.example"},
		{"ring", "owner-ring: r1@x.example; owner-ring2: r2@x.example ring@home.example"},
		{"owner-loop", "-: owner-loop@home.example x@x.example"},
		{"only", "owner-sales: s1@x.example direct@x.example"},
		{"selfish", ""},
	} {
		r, err := Expand(t.Context(), f, Options{Home: "home.example", Delimiters: "+"}, path(t, c.list+"@home.example"))
		if got := groups(r); err != nil || got != c.want {
			t.Errorf("%s:\n got %s, %v\nwant %s", c.list, got, err, c.want)
		}
		kept, err := Expand(t.Context(), f, Options{Home: "home.example", Delimiters: "+", KeepSender: true}, path(t, c.list+"@home.example"))
		if len(kept.Groups) > 1 || first(kept).VERP || !first(kept).Owner.IsNull() || len(first(kept).Rcpts) != len(strings.Fields(show(r.Groups))) || err != nil {
			t.Errorf("%s with its sender kept: %s, %v", c.list, groups(kept), err)
		}
	}
}

func groups(r Result) string {
	var all []string
	for i := range r.Groups {
		name, _, _ := strings.Cut(r.Groups[i].Owner.Addr(), "@")
		if r.Groups[i].Owner.IsNull() {
			name = "-"
		}
		if r.Groups[i].VERP {
			name += " verp"
		}
		all = append(all, name+": "+show(r.Groups[i:i+1]))
	}
	return strings.Join(all, "; ")
}

// TestManyOwners: each group costs a copy of the message, so there is a limit.
func TestManyOwners(t *testing.T) {
	var b strings.Builder
	for _, n := range []int{MaxGroups, MaxGroups + 1} {
		fmt.Fprintf(&b, "top%d", n)
		for i := range n {
			fmt.Fprintf(&b, " <l%d@home.example>", i)
		}
		b.WriteString("\n")
	}
	for i := range MaxGroups + 1 {
		fmt.Fprintf(&b, "l%d <m%d@x.example>\nowner-l%d x\n", i, i, i)
	}
	f := newTable(t, b.String())
	o := Options{Home: "home.example", Delimiters: "+"}
	if r, err := Expand(t.Context(), f, o, path(t, fmt.Sprintf("top%d@home.example", MaxGroups))); err != nil || len(r.Groups) != MaxGroups {
		t.Errorf("%d groups, %v", len(r.Groups), err)
	}
	var reply smtp.Reply
	if _, err := Expand(t.Context(), f, o, path(t, fmt.Sprintf("top%d@home.example", MaxGroups+1))); !errors.As(err, &reply) || !strings.Contains(reply.String(), "too many lists") {
		t.Errorf("too many groups: %v", err)
	}
}
