package verify

import (
	"context"
	"strconv"
	"time"

	"meta1/confparse"
	"meta1/server/authn"
	"meta1/server/authn/arc"
	"meta1/server/dkim"
)

// ARC holds subsection arc.
type ARC struct {
	Verify bool
}

func (a *ARC) table() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{Name: "verify", Type: confparse.Bool, Default: "true", Readme: "own", Into: &a.Verify, Doc: "Verify the ARC sets of hosts that have forwarded the mail (RFC 8617). Section ARC_sealing needs the result."},
	}}
}

// verification begins to read a message, for all that hash its body. The chain is nil if ARC is not verified.
func (m *Mail) verification() (*dkim.Verification, *arc.Chain) {
	if !m.cfg.ARC.Verify {
		return dkim.NewVerification(), nil
	}
	chain := &arc.Chain{}
	return dkim.NewVerification(chain.Bodies), chain
}

// addChain verifies the ARC sets of a message that was read, and reports the result (RFC 8617 section 10.2).
func (m *Mail) addChain(ctx context.Context, chain *arc.Chain, message arc.Message) {
	if chain == nil {
		return
	}
	c := chain.Verify(ctx, message, m.dns.TXT, time.Now())
	m.Chain = &c
	r := authn.Result{Method: authn.ARC, Value: string(c.Verdict), Reason: c.Reason}
	if c.Instance > 0 {
		r.Comment = "i=" + strconv.Itoa(c.Instance)
	}
	if c.Verdict == dkim.Pass {
		r.Comment += " sealed by " + c.Sealers[len(c.Sealers)-1]
		r.Props = []authn.Prop{{Type: "header", Name: "oldest-pass", Value: strconv.Itoa(c.OldestPass)}}
	}
	if ip := addrText(m.Client.IP); ip != "" && c.Instance > 0 {
		r.Props = append(r.Props, authn.Prop{Type: "smtp", Name: "remote-ip", Value: ip})
	}
	m.add(r)
}
