package smtp

import "testing"

// TestReplyClasses: a reply is of one class, and only 2yz accepts anything. 354, which
// asks for the content, is no delivery.
func TestReplyClasses(t *testing.T) {
	for _, c := range []struct {
		code                           int
		accepted, temporary, permanent bool
	}{
		{0, false, false, false},
		{199, false, false, false},
		{200, true, false, false},
		{250, true, false, false},
		{299, true, false, false},
		{300, false, false, false},
		{354, false, false, false},
		{400, false, true, false},
		{499, false, true, false},
		{500, false, false, true},
		{599, false, false, true},
		{600, false, false, false},
	} {
		r := Reply{Code: c.code}
		if r.Accepted() != c.accepted || r.Temporary() != c.temporary || r.Permanent() != c.permanent {
			t.Errorf("%d: accepted %v, temporary %v, permanent %v", c.code, r.Accepted(), r.Temporary(), r.Permanent())
		}
	}
}
