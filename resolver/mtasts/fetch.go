package mtasts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"
)

// Limits of a fetch.
const (
	fetchTime  = 20 * time.Second // all of it
	headerMax  = 16 << 10         // bytes of the reply's header
	fetchesMax = 8                // at a time
	addrsMax   = 4                // addresses of the policy host that are tried
)

// Dial opens a TCP connection to an address. It must obey ctx.
type Dial func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)

// fetcher gets policies over HTTPS (RFC 8461 section 3.3).
type fetcher struct {
	dns    DNS
	dial   Dial
	client atomic.Pointer[http.Client]
	turns  chan struct{} // a token for each fetch
}

func newFetcher(names DNS, dial Dial, roots *x509.CertPool) *fetcher {
	f := &fetcher{dns: names, dial: dial, turns: make(chan struct{}, fetchesMax)}
	f.trust(roots)
	return f
}

// trust takes other authorities for the fetches that begin from now on.
func (f *fetcher) trust(roots *x509.CertPool) {
	f.client.Store(&http.Client{
		// A redirect is a failure; it would let the web server of a domain's customer set
		// the policy.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: nil, DialContext: f.connect, DisableKeepAlives: true, DisableCompression: true,
			MaxResponseHeaderBytes: headerMax, TLSHandshakeTimeout: fetchTime,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		},
	})
}

// fetch gets the policy of a domain. It waits for its turn, too.
func (f *fetcher) fetch(ctx context.Context, domain string) (*Policy, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	select {
	case f.turns <- struct{}{}:
		defer func() { <-f.turns }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	u := url.URL{Scheme: "https", Host: "mta-sts." + domain, Path: "/.well-known/mta-sts.txt"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "meta1")
	resp, err := f.client.Load().Do(req)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // the address is known
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the policy host replied %d", resp.StatusCode)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "text/plain" {
		return nil, &invalidError{errors.New("the policy is not text/plain")}
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, textMax+1))
	if err != nil {
		return nil, err
	}
	p, err := ParsePolicy(text)
	if err != nil {
		return nil, &invalidError{err}
	}
	return p, nil
}

// connect opens a connection to the policy host, at the addresses that our own resolver
// gives.
func (f *fetcher) connect(ctx context.Context, _, hostport string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	addrs, err := f.dns.Addrs(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, ip := range addrs[:min(len(addrs), addrsMax)] {
		var conn net.Conn
		if conn, err = f.dial(ctx, netip.AddrPortFrom(ip, 443)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}
