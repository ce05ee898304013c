package authn

import (
	"context"
	"errors"

	"meta1/mta/msg"
)

// DNS asks SMAR for records. Any goroutine may use it.
type DNS struct {
	Port *msg.Port[msg.DNSQ, msg.DNSA]
}

// Lookup gives the records of a name. It waits until ctx ends at most; the answer is then
// msg.DNSUnavailable, as it is if SMAR is down.
func (d DNS) Lookup(ctx context.Context, name string, t msg.RecordType) msg.DNSA {
	a, err := d.Port.Ask(ctx, msg.DNSQ{Name: name, Type: t})
	if err != nil {
		return msg.DNSA{Status: msg.DNSUnavailable, Err: err.Error()}
	}
	return a
}

// TXT gives the TXT records of a name, each joined. None is no error; an error is a temporary
// failure. It is a dkim.LookupTXT.
func (d DNS) TXT(ctx context.Context, name string) ([]string, error) {
	a := d.Lookup(ctx, name, msg.RecordTXT)
	if a.Status == msg.DNSUnavailable {
		return nil, errors.New(a.Err)
	}
	return a.Texts, nil
}
