package logline

import "testing"

func TestSplit(t *testing.T) {
	for line, want := range map[string][2]string{
		"2026-11-20T12:00:00Z sev=INFO, a=b":                                             {"2026-11-20T12:00:00Z ", "sev=INFO, a=b"},
		`<22>Nov 20 12:00:00 mx meta1[1]: sev=INFO, a=[meta1@32473 x`:                    {"<22>Nov 20 12:00:00 mx meta1[1]: ", "sev=INFO, a=[meta1@32473 x"},
		`2026-11-20T12:00:00Z mx m - e [meta1@32473 sev="INFO" a="{\"\]"] sev=INFO, a=b`: {"2026-11-20T12:00:00Z mx m - e ", "sev=INFO, a=b"},
		`Nov 20 x: {"sev":"INFO"}`:                                                       {"Nov 20 x: ", `{"sev":"INFO"}`},
		"another program":                                                                {"another program", ""},
		"":                                                                               {},
	} {
		if head, body := Split([]byte(line)); string(head) != want[0] || string(body) != want[1] {
			t.Errorf("%q: %q %q", line, head, body)
		}
	}
}

func TestUnescape(t *testing.T) {
	for s, want := range map[string]string{"": "", "a%2Cb%25": "a,b%", "%zz%2": "%zz%2", "%0A": "\n"} {
		if got := Unescape(s); got != want {
			t.Errorf("%q: %q", s, got)
		}
	}
}
