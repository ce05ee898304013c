package mta

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"time"

	mdns "github.com/miekg/dns"

	"meta1/confparse"
	"meta1/resolver"
	"meta1/resolver/dns"
	"meta1/server/dkim"
)

// VerifyDKIM verifies the signatures of a message, whose lines end in CR LF, with the keys that
// the name servers of section smar.DNS have.
func VerifyDKIM(ctx context.Context, c *Config, result *confparse.Result, message io.Reader) ([]dkim.Result, error) {
	client, err := resolver.NewDNS(c.Resolver, resolver.Deps{ConfigDir: filepath.Dir(result.File)})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	v := dkim.NewVerification()
	if _, err := io.Copy(v, message); err != nil {
		return nil, err
	}
	return v.Results(ctx, func(ctx context.Context, name string) ([]string, error) {
		a := client.Lookup(ctx, name, mdns.TypeTXT)
		if a.Status == dns.Temporary {
			return nil, errors.New(a.Err)
		}
		return a.Texts(), nil
	}, time.Now()), nil
}
