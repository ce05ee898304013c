package verify

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
	"meta1/server/authn"
	"meta1/server/authn/arc"
	"meta1/server/authn/dmarc"
	"meta1/server/authn/dmarcrpt"
	"meta1/server/dkim"
)

// dmarcZone is DNS for these tests: TXT records by name.
func dmarcZone(t *testing.T, zone map[string]string) *msg.Ports {
	t.Helper()
	ports := msg.NewPorts()
	g := supervise.NewGroup(context.Background())
	requests, stop := ports.DNS.Open()
	g.Go(func(ctx context.Context) error {
		defer stop()
		for {
			select {
			case r := <-requests:
				text, ok := zone[r.Q.Name]
				a := msg.DNSA{Status: msg.DNSNoName}
				switch {
				case text == "!":
					a = msg.DNSA{Status: msg.DNSUnavailable, Err: "timeout"}
				case ok:
					a = msg.DNSA{Status: msg.DNSFound, Texts: []string{text}}
				}
				r.Answer(a)
			case <-ctx.Done():
				return nil
			}
		}
	})
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return ports
}

// TestDMARCDecision: what becomes of mail, and what is reported of it.
func TestDMARCDecision(t *testing.T) {
	ports := dmarcZone(t, map[string]string{
		"_dmarc.reject.test": "v=DMARC1; p=reject; rua=mailto:r@reject.test", "_dmarc.quarantine.test": "v=DMARC1; p=quarantine; rua=mailto:r@quarantine.test",
		"_dmarc.none.test": "v=DMARC1; p=none; rua=mailto:r@none.test", "_dmarc.testing.test": "v=DMARC1; p=reject; t=y; rua=mailto:r@testing.test", "_dmarc.broken.test": "!",
	})
	strict := DMARC{Check: true, Reject: ActionReject, Quarantine: ActionQuarantine, Lists: ActionQuarantine, TempError: ActionTempfail}
	trusting := strict
	trusting.Forwarders = []string{"192.0.2.0/24", ".trusted.test", "2001:db8::1"}
	lax := DMARC{Check: true, Reject: ActionNone, Quarantine: ActionNone, Lists: ActionQuarantine, TempError: ActionNone}
	careful := strict
	careful.Reject = ActionQuarantine
	client := msg.Client{IP: netip.MustParseAddr("198.51.100.1")}
	cases := []struct {
		name          string
		cfg           DMARC
		client        msg.Client
		header        string
		spf           string // domain that passes
		reply, hold   string
		result        string
		row           string // disposition and reason in the report
		policyDomain  string
		countedDomain int
	}{
		{"reject", strict, client, "From: a@reject.test\r\n", "evil.test", "550 5.7.1 Rejected per DMARC policy reject of reject.test", "", "dmarc=fail (p=reject dis=reject) header.from=reject.test policy.dmarc=reject", "reject ", "reject.test", 1},
		{"pass", strict, client, "From: a@reject.test\r\n", "reject.test", "", "", "dmarc=pass (p=reject dis=none) header.from=reject.test policy.dmarc=reject", "pass ", "reject.test", 1},
		{"quarantine", strict, client, "From: a@quarantine.test\r\n", "evil.test", "", "quarantined by DMARC: policy quarantine of quarantine.test", "dmarc=fail (p=quarantine dis=quarantine) header.from=quarantine.test policy.dmarc=quarantine", "quarantine ", "quarantine.test", 1},
		{"none", strict, client, "From: a@none.test\r\n", "evil.test", "", "", "dmarc=fail (p=none dis=none) header.from=none.test policy.dmarc=none", "none ", "none.test", 1},
		{"t=y", strict, client, "From: a@testing.test\r\n", "evil.test", "", "quarantined by DMARC: policy reject of testing.test", "dmarc=fail (p=reject dis=quarantine t=y) header.from=testing.test policy.dmarc=quarantine", "quarantine policy_test_mode", "testing.test", 1},
		{"a subdomain", strict, client, "From: a@sub.reject.test\r\n", "evil.test", "550 5.7.1 Rejected per DMARC policy reject of reject.test", "", "dmarc=fail (p=reject dis=reject) header.from=sub.reject.test policy.dmarc=reject polrec.domain=reject.test", "reject ", "reject.test", 1},
		{"only reported", lax, client, "From: a@reject.test\r\n", "evil.test", "", "", "dmarc=fail (p=reject dis=none) header.from=reject.test policy.dmarc=reject", "none local_policy", "reject.test", 1},
		{"quarantine for reject", careful, client, "From: a@reject.test\r\n", "evil.test", "", "quarantined by DMARC: policy reject of reject.test", "dmarc=fail (p=reject dis=quarantine) header.from=reject.test policy.dmarc=reject", "quarantine local_policy", "reject.test", 1},
		{"a list", strict, client, "List-Id: <x.list.test>\r\nFrom: a@reject.test\r\n", "list.test", "", "quarantined by DMARC: policy reject of reject.test", "dmarc=fail (p=reject dis=quarantine) header.from=reject.test policy.dmarc=reject", "quarantine mailing_list", "reject.test", 1},
		{"a forwarder by network", trusting, msg.Client{IP: netip.MustParseAddr("::ffff:192.0.2.7")}, "From: a@reject.test\r\n", "evil.test", "", "", "dmarc=fail (p=reject dis=none) header.from=reject.test policy.dmarc=reject", "none trusted_forwarder", "reject.test", 1},
		{"a forwarder by name", trusting, msg.Client{IP: client.IP, Name: "Mx.Trusted.test.", Resolve: "ok"}, "From: a@reject.test\r\n", "evil.test", "", "", "dmarc=fail (p=reject dis=none) header.from=reject.test policy.dmarc=reject", "none trusted_forwarder", "reject.test", 1},
		{"a name that is not confirmed", trusting, msg.Client{IP: client.IP, Name: "mx.trusted.test.", Resolve: "no"}, "From: a@reject.test\r\n", "evil.test", "550 5.7.1 Rejected per DMARC policy reject of reject.test", "", "dmarc=fail (p=reject dis=reject) header.from=reject.test policy.dmarc=reject", "reject ", "reject.test", 1},
		{"no answer", strict, client, "From: a@broken.test\r\n", "evil.test", "451 4.7.1 DMARC: the policy cannot be looked up now", "", "dmarc=temperror reason=\"no answer about the policy: _dmarc.broken.test: timeout\" header.from=broken.test", "", "", 0},
		{"no answer, tolerated", lax, client, "From: a@broken.test\r\n", "evil.test", "", "", "dmarc=temperror reason=\"no answer about the policy: _dmarc.broken.test: timeout\" header.from=broken.test", "", "", 0},
		{"no policy", strict, client, "From: a@other.test\r\n", "evil.test", "", "", "dmarc=none reason=\"no policy\" header.from=other.test", "", "", 0},
		{"no From", strict, client, "Subject: a@reject.test\r\n", "evil.test", "", "", "dmarc=none reason=\"no domain in From\"", "", "", 0},
		{"two From", strict, client, "From: a@evil.test\r\nFrom: a@reject.test\r\n", "evil.test", "550 5.7.1 Rejected per DMARC policy reject of reject.test", "", "dmarc=fail (p=reject dis=reject) header.from=reject.test policy.dmarc=reject", "reject ", "reject.test", 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			reports := dmarcrpt.New(dmarcrpt.Config{}, dmarcrpt.Deps{Ports: ports, Hostname: "mx.test", Dir: filepath.Join(t.TempDir(), "d")})
			counts := ""
			v := New(Config{DMARC: c.cfg}, Deps{DNS: ports.DNS, Hostname: "mx.test", Reports: reports, Count: func(m authn.Method, word string) { counts += string(m) + "=" + word + " " }})
			from, err := smtp.ParseMailbox("x@"+c.spf, smtp.ASCII)
			if err != nil {
				t.Fatal(err)
			}
			spfResult := authn.Result{Method: authn.SPF, Value: authn.Pass, Props: []authn.Prop{{Type: "smtp", Name: "mailfrom", Value: c.spf}}}
			m := &Mail{Verifier: v, Sender: Sender{Client: c.client, From: from}, SPF: &spfResult}
			header, err := dkim.ParseHeader([]byte(c.header))
			if err != nil {
				t.Fatal(err)
			}
			d := m.evaluateDMARC(t.Context(), header)
			reply := ""
			if !d.Reply.IsZero() {
				reply = d.Reply.String()
			}
			if reply != c.reply || d.Hold != c.hold || (d.Step.Check == "") != (reply == "" && d.Hold == "") {
				t.Errorf("%q, hold %q, %+v", reply, d.Hold, d.Step)
			}
			field := strings.Join(strings.Fields(string(authn.Append(nil, "mx.test", m.Results))), " ")
			if want := "Authentication-Results: mx.test; " + c.result; field != want {
				t.Errorf("%s\nwant\n%s", field, want)
			}
			policy := ""
			if _, rest, found := strings.Cut(c.result, "policy.dmarc="); found {
				policy, _, _ = strings.Cut(rest, " ")
			}
			if got := m.Fact("dmarc_policy"); got != policy || m.Fact("dmarc_domain") != m.DMARC.From || m.Fact("dmarc_result") != m.DMARC.Value.String() {
				t.Errorf("facts: %q %q %q", got, m.Fact("dmarc_domain"), m.Fact("dmarc_result"))
			}
			if !strings.Contains(counts, "dmarc="+m.DMARC.Value.String()+" ") {
				t.Errorf("counted %s", counts)
			}
			list := reports.List("")
			if len(list) != c.countedDomain {
				t.Fatalf("%d domains in reports", len(list))
			}
			if len(list) == 1 {
				rec := list[0].Report.Records[0]
				row := rec.Disposition + " "
				for _, r := range rec.Reasons {
					row += r.Type
				}
				if row != c.row || list[0].Domain != c.policyDomain {
					t.Errorf("%s: %q", list[0].Domain, row)
				}
			}
		})
	}
}

// TestDMARCSealers: an ARC chain exempts mail if those who made it are trusted and say that it had passed.
func TestDMARCSealers(t *testing.T) {
	const pass = " lists.test; spf=fail; dmarc=pass (p=reject) header.from=Reject.test"
	const fail = " lists.test; dmarc=fail header.from=reject.test"
	for _, c := range []struct {
		name    string
		trusted []string
		verdict dkim.Verdict
		sealers []string
		results []string
		want    int
	}{
		{"trusted", []string{"lists.test"}, dkim.Pass, []string{"lists.test"}, []string{pass}, 1},
		{"trusted by .domain", []string{".TEST"}, dkim.Pass, []string{"lists.test"}, []string{pass}, 1},
		{"nobody is trusted", nil, dkim.Pass, []string{"lists.test"}, []string{pass}, 0},
		{"a stranger", []string{"lists.test"}, dkim.Pass, []string{"evil.test"}, []string{pass}, 0},
		{"a name that only ends so", []string{"lists.test"}, dkim.Pass, []string{"evillists.test"}, []string{pass}, 0},
		{"the first has seen it pass", []string{"lists.test", "b.test"}, dkim.Pass, []string{"lists.test", "b.test"}, []string{pass, fail}, 1},
		{"a stranger after it", []string{"lists.test", "b.test"}, dkim.Pass, []string{"lists.test", "evil.test"}, []string{pass, fail}, 0},
		{"a stranger before it", []string{"b.test"}, dkim.Pass, []string{"evil.test", "b.test"}, []string{fail, pass}, 2},
		{"it failed before", []string{"lists.test"}, dkim.Pass, []string{"lists.test"}, []string{fail}, 0},
		{"another domain passed", []string{"lists.test"}, dkim.Pass, []string{"lists.test"}, []string{" x; dmarc=pass header.from=other.test"}, 0},
		{"no results", []string{"lists.test"}, dkim.Pass, []string{"lists.test"}, []string{" ;;; \""}, 0},
		{"a broken chain", []string{"lists.test"}, dkim.Fail, []string{"lists.test"}, []string{pass}, 0},
	} {
		d := DMARC{Sealers: c.trusted, Reject: ActionReject, Quarantine: ActionQuarantine, Lists: ActionReject}
		chain := &arc.Result{Verdict: c.verdict, Sealers: c.sealers, Authenticated: c.results}
		if got := d.vouched(chain, "reject.test"); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
		p, override, comment := d.apply(&Mail{Chain: chain}, &dmarc.Result{Policy: dmarc.Reject, From: "reject.test"}, nil)
		want := "reject  "
		if c.want > 0 {
			want = fmt.Sprintf("none local_policy arc=pass as[%d].d=%s", c.want, c.sealers[c.want-1])
		}
		if got := p.String() + " " + override + " " + comment; got != want {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
	}
	if (&DMARC{Sealers: []string{"lists.test"}}).vouched(nil, "reject.test") != 0 {
		t.Error("no chain vouches")
	}
}
