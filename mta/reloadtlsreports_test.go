package mta

import (
	"fmt"
	"net"
	"testing"

	"meta1/client/tlsrpt"
)

// TestReloadTLSReports: section tls_reports of smtpc comes, changes and goes. A reload that fails changes nothing; what was
// counted is kept when the section has gone, and nothing more is.
func TestReloadTLSReports(t *testing.T) {
	b := startAs(t, "b.test", "b.test lmtp:\n", "")
	_, port, _ := net.SplitHostPort(b.address("smtps"))
	zone := []string{"b.test. 60 IN MX 1 mx.b.test.", "mx.b.test. 60 IN A 127.0.0.1", `_smtp._tls.b.test. 60 IN TXT "v=TLSRPTv1; rua=mailto:r@b.test"`}
	dns := fmt.Sprintf("access; } DNS { nameservers = 127.0.0.1; port = %d; } ", serveDNS(t, zone))
	a := start(t, "", "")
	change := func(reports, more string) {
		a.reconfigure("smtpc { remote_port = "+port+"; "+reports+" } "+more, "access; }", dns, "qmgr {", "qmgr { flags = { -reuse_connection };")
	}
	change("", "")
	a.reload()
	received := 0
	// send sends a message, and returns what is said of b.test when the other MTA has it.
	send := func() (list []tlsrpt.Entry, err error) {
		t.Helper()
		if reply := a.offer("smtps", "127.0.0.1", "x@b.test", "y@b.test"); reply[0] != '2' {
			t.Fatal(reply)
		}
		received++
		eventually(t, "the mail", func() bool { return len(b.queued()) == received && len(a.queued()) == 0 })
		return a.control.TLSReports(t.Context(), "b.test")
	}
	if list, err := send(); err == nil {
		t.Errorf("without the section: %+v", list)
	}
	change("tls_reports { }", `control { http { port = 0; token_file = "`+a.dir+`/nothing"; } }`)
	a.refusesReload("nothing")
	if list, err := send(); err == nil {
		t.Errorf("after a reload that failed: %+v", list)
	}

	change("tls_reports { organization = Us; }", "")
	a.reload()
	if _, err := send(); err != nil {
		t.Error(err)
	}
	counted := func(organization string) (sessions uint64) {
		t.Helper()
		eventually(t, "the count", func() bool {
			list, err := a.control.TLSReports(t.Context(), "b.test")
			if err != nil || len(list) != 1 || len(list[0].Report.Policies) != 1 {
				return false
			}
			if r := list[0].Report; r.Organization != organization {
				t.Errorf("the report is from %q, not from %q", r.Organization, organization)
			}
			of := list[0].Report.Policies[0].Summary
			sessions = of.Good + of.Bad
			return true
		})
		return sessions
	}
	if n := counted("Us"); n != 1 {
		t.Errorf("%d sessions are counted", n)
	}
	change("tls_reports { organization = Them; }", "")
	a.reload()
	if n := counted("Them"); n != 1 {
		t.Errorf("%d sessions are counted", n)
	}
	change("", "")
	a.reload()
	if _, err := send(); err != nil {
		t.Error(err)
	}
	if n := counted("Them"); n != 1 {
		t.Errorf("without the section %d sessions are counted", n)
	}
}
