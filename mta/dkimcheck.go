package mta

import (
	"context"
	"crypto"
	"fmt"
	"path/filepath"
	"time"

	mdns "github.com/miekg/dns"

	"meta1/confparse"
	"meta1/resolver"
	"meta1/resolver/dns"
	"meta1/server/dkim"
)

// DKIMKey is a key of a section sign, and what DNS says of it.
type DKIMKey struct {
	Server string // the section smtps
	dkim.Section
	Kind  string // rsa or ed25519
	InUse bool   // it signs now; another one has followed it otherwise, or its time is to come
	Name  string // of the record in DNS
	Want  string // the record that DNS should have
	// Problem is why hosts would not verify its signatures; "" if they would.
	Problem string
}

// CheckDKIM reads the keys of all sections DKIM_signing, and compares them with DNS. section is
// the name of one section smtps, or "" for all.
func CheckDKIM(ctx context.Context, c *Config, result *confparse.Result, section string) ([]DKIMKey, error) {
	client, err := resolver.NewDNS(c.Resolver, resolver.Deps{ConfigDir: filepath.Dir(result.File)})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var all []DKIMKey
	for _, s := range c.DKIMSections() {
		if section != "" && s.Name != section {
			continue
		}
		signer, err := dkim.New(s.Config, dkim.Deps{})
		if err != nil {
			return nil, fmt.Errorf("section %s: %w", s.Path, err)
		}
		for _, k := range signer.Keys(time.Now()) {
			key := DKIMKey{
				Server: s.Name, Section: k.Section, Kind: dkim.KindOf(k.Private), InUse: k.InUse,
				Name: dkim.RecordName(k.Selector, k.Domain),
			}
			if key.Want, err = dkim.Record(k.Private.Public()); err != nil {
				return nil, err
			}
			key.Problem = judgeRecord(client.Lookup(ctx, key.Name, mdns.TypeTXT), k.Private.Public())
			all = append(all, key)
		}
	}
	return all, nil
}

// judgeRecord compares what DNS has with a key; "" is good.
func judgeRecord(a *dns.Answer, key crypto.PublicKey) string {
	records := a.Texts()
	switch {
	case a.Status == dns.Temporary:
		return "DNS does not answer: " + a.Err
	case len(records) == 0:
		return "DNS has no such record"
	case len(records) > 1:
		return fmt.Sprintf("DNS has %d records where one may be", len(records))
	}
	p, err := dkim.ParseRecord(records[0])
	switch {
	case err != nil:
		return err.Error()
	case !p.Equal(key):
		return "DNS has another key"
	case !p.Serves():
		return "the record allows neither mail nor SHA-256 (s=, h=)"
	case p.Test:
		return "the record says that DKIM is only tried (t=y)"
	}
	return ""
}
