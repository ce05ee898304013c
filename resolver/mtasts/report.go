package mtasts

import (
	"crypto/tls"
	"errors"
	"strconv"
	"time"

	"meta1/mta/msg"
)

// Standing is what is known of the policy of a domain, without asking anybody.
type Standing struct {
	Policy *Policy // that counts; nil for none
	// Failure is why there is none although the domain announces one, in the words of Reason;
	// TLSSuccess if it announces none.
	Failure msg.TLSResult
	Reason  string
}

// Known tells what is known of a domain, for reports (RFC 8460).
func (c *Cache) Known(name string) Standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.domains[name]
	switch {
	case d == nil:
		return Standing{}
	case d.kept != nil && d.kept.valid(time.Now()) && d.kept.Policy.Mode != None:
		p := d.kept.Policy
		return Standing{Policy: &p}
	case d.kept != nil && d.kept.valid(time.Now()):
		return Standing{}
	}
	return Standing{Failure: d.result, Reason: d.failure}
}

// Lines are the lines of the policy as its host would have them.
func (p *Policy) Lines() []string {
	lines := []string{"version: STSv1", "mode: " + string(p.Mode)}
	for _, mx := range p.MX {
		lines = append(lines, "mx: "+mx)
	}
	return append(lines, "max_age: "+strconv.FormatInt(int64(p.MaxAge/time.Second), 10))
}

// invalidError is a policy that was fetched and cannot be used.
type invalidError struct{ err error }

func (e *invalidError) Error() string { return e.err.Error() }
func (e *invalidError) Unwrap() error { return e.err }

// resultOf is why a fetch failed, in the words of RFC 8460 section 4.3.2.2.
func resultOf(err error) msg.TLSResult {
	switch {
	case errors.As(err, new(*invalidError)):
		return msg.TLSPolicyInvalid
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return msg.TLSPolicyUntrusted
	}
	return msg.TLSPolicyFetchError
}
