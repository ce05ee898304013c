package access

import (
	"fmt"
	"testing"
)

func TestParse(t *testing.T) {
	for value, want := range map[string]string{
		"ok":                          "ok quick=false",
		"RELAY":                       "relay quick=false",
		"quick:relay":                 "relay quick=true",
		"Quick: ok":                   "ok quick=true",
		"cont":                        "cont quick=false",
		"discard":                     "discard quick=false",
		"reject":                      "error quick=false 550 5.7.0 Rejected.",
		"error:551 5.7.1 No spammers": "error quick=false 551 5.7.1 No spammers",
		"error:451 later":             "error quick=false 451 later",
		"error:421":                   "error quick=false 421",
		"quick:error:551 5.7.1 No":    "error quick=true 551 5.7.1 No",
		"list:<list1@local.dom>":      "other quick=false list:<list1@local.dom>",
		"okay":                        "other quick=false okay",
		"error:550 5.7 text":          "error quick=false 550 5.7 text",
		" relay ":                     "relay quick=false",
	} {
		r, err := Parse(value)
		got := fmt.Sprintf("%s quick=%v", r.Word, r.Quick)
		if r.Word == Error {
			got += " " + r.Reply.String()
		}
		if r.Text != "" {
			got += " " + r.Text
		}
		if err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", value, got, err, want)
		}
	}
	for _, bad := range []string{"error:", "error:200 2.0.0 fine", "error:55 x", "error:600 x", "error:550 4.7.1 x", "error:+50 x", "quick:error:abc"} {
		if r, err := Parse(bad); err == nil || r.Word != Error {
			t.Errorf("%q: %+v was accepted", bad, r)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"quick:error:551 5.7.1 No", "relay", "reject", "error:", "session_feature=notls;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err == nil && r.Word == Error && (r.Reply.Code < 400 || r.Reply.Code > 599) {
			t.Errorf("%q gives the reply %v", s, r.Reply)
		}
	})
}
