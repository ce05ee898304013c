package tlsrpt

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"meta1/mta/msg"
)

// Limits of a post.
const (
	postTime  = 30 * time.Second // all of it
	headerMax = 16 << 10         // bytes of the reply's header
	replyMax  = 64 << 10         // bytes of the reply that are read
	addrsMax  = 4                // addresses of a host that are tried
)

// Dial opens a TCP connection to an address. It must obey ctx.
type Dial func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)

// poster sends reports by HTTPS (RFC 8460 section 5.4).
type poster struct {
	dial    Dial
	roots   *x509.CertPool
	private bool
}

// post sends a report to a URI whose hosts have addresses.
func (p *poster) post(ctx context.Context, uri string, packed []byte, addrs map[string][]netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, postTime)
	defer cancel()
	transport := &http.Transport{
		Proxy: nil, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: headerMax, TLSHandshakeTimeout: postTime,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: p.roots},
		DialContext: func(ctx context.Context, _, hostport string) (net.Conn, error) {
			return p.connect(ctx, hostport, addrs)
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport: transport,
		// A redirect could lead anywhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, uri, bytes.NewReader(packed))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/tlsrpt+gzip")
	req.Header.Set("User-Agent", "meta1")
	resp, err := client.Do(req)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // the address is known
		}
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, replyMax)) // the status tells all
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("the host replied %d", resp.StatusCode)
	}
	return nil
}

// connect opens a connection to a host, at the addresses that our own resolver gives, if
// they are such that strangers may name them.
func (p *poster) connect(ctx context.Context, hostport string, addrs map[string][]netip.Addr) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, err
	}
	err = errors.New("the host has no address")
	for _, ip := range addrs[host][:min(len(addrs[host]), addrsMax)] {
		if !p.private && !public(ip) {
			err = fmt.Errorf("%s is a private address (https_private_hosts)", ip)
			continue
		}
		var nc net.Conn
		if nc, err = p.dial(ctx, netip.AddrPortFrom(ip, uint16(port))); err == nil {
			return nc, nil
		}
	}
	return nil, err
}

// public tells an address of the open Internet.
func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	if !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return false
	}
	for _, net := range []string{"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"} {
		if netip.MustParsePrefix(net).Contains(ip) {
			return false
		}
	}
	return true
}

// deliver sends a report wherever the domain wants it. It is delivered if one place has taken
// it (RFC 8460 section 3).
func (r *Reports) deliver(ctx context.Context, name string, rep *Report) error {
	by := r.terms.Load()
	a, err := r.deps.Ports.Report.Ask(ctx, msg.TLSReportQ{Domain: name, Hosts: by.https})
	switch {
	case err != nil:
		return fmt.Errorf("no answer about the TLSRPT record: %w", err)
	case a.Err != "":
		return errors.New("no answer about the TLSRPT record: " + a.Err)
	case len(a.RUA) == 0:
		return errUnwanted
	}
	packed, err := rep.packed()
	if err != nil {
		return err
	}
	var all error
	taken := false
	for _, uri := range a.RUA {
		u, err := url.Parse(uri)
		switch {
		case err != nil:
		case u.Scheme == "mailto":
			err = r.mail(ctx, by, name, rep, packed, uri)
		case !by.https:
			err = errors.New("reports are not posted here (option https)")
		default:
			err = by.poster.post(ctx, uri, packed, a.Addrs)
		}
		if err != nil {
			all = errors.Join(all, fmt.Errorf("%s: %w", clip(uri), err))
			continue
		}
		taken = true
	}
	if taken {
		return nil
	}
	return all
}

// errUnwanted says that the domain wants no report any more.
var errUnwanted = errors.New("the domain wants no reports any more")
