package access

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"meta1/mta/msg"
)

// Network is the door of the API over TCP.
type Network struct {
	// Describe says what a TLS handshake gave; nil without TLS.
	Describe func(r *http.Request) *msg.TLS
	now      atomic.Pointer[keys]
}

// keys are what opens the door.
type keys struct {
	http         HTTP
	read, change Tokens
	hosts        []string
}

// Set takes a configuration, the tokens of its files, and the names of this host, from the next
// request on.
func (n *Network) Set(c HTTP, read, change Tokens, hostnames ...string) {
	n.now.Store(&keys{http: c, read: read, change: change, hosts: append(hostnames, c.Hostnames...)})
}

// Door is the door. A page may always be fetched by who names the right host: it holds nothing.
func (n *Network) Door(r *http.Request) Who {
	k := n.now.Load()
	from := r.RemoteAddr
	if reason := k.foreign(r); reason != "" {
		return refused(http.StatusForbidden, from, reason)
	}
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return refused(http.StatusUnauthorized, from, "Authorization: wants Bearer and a token")
		}
		change, read := k.change.find(token), k.read.find(token)
		switch {
		case change > 0:
			return Who{Level: Change, Name: fmt.Sprintf("token %d of token_file from %s", change, from)}
		case read > 0:
			return Who{Level: Read, Name: fmt.Sprintf("token %d of read_token_file from %s", read, from)}
		}
		return refused(http.StatusUnauthorized, from, "the token is wrong")
	}
	if who, ok := n.certificate(k, r); ok {
		return who
	}
	return refused(http.StatusUnauthorized, from, "a token or a certificate is needed")
}

// Foreign says why a request may not even have a page, or "".
func (n *Network) Foreign(r *http.Request) string { return n.now.Load().foreign(r) }

// certificate decides by the certificate of the client. A name counts only if an authority of
// the section tls has signed it, a fingerprint always: it names that one certificate.
func (n *Network) certificate(k *keys, r *http.Request) (who Who, ok bool) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || n.Describe == nil {
		return who, false
	}
	names := []string{fingerprintOf(r.TLS.PeerCertificates[0])}
	reason := "no option names it"
	if t := n.Describe(r); t != nil && t.Verify == msg.VerifyOK {
		names = append(names, strings.ToLower(t.CN))
	} else if t != nil && t.Reason != "" {
		reason += ", and it is not verified: " + t.Reason
	}
	has := func(list []string) bool {
		return slices.ContainsFunc(list, func(s string) bool {
			return s != "" && (slices.Contains(names, strings.ToLower(s)) || slices.Contains(names, strings.ToLower(strings.ReplaceAll(s, ":", ""))))
		})
	}
	name := "certificate " + names[0][:16] + " from " + r.RemoteAddr
	switch {
	case has(k.http.ChangeCertificates):
		return Who{Level: Change, Name: name}, true
	case has(k.http.ReadCertificates):
		return Who{Level: Read, Name: name}, true
	}
	return refused(http.StatusUnauthorized, name, "the certificate is not one of those that may ask: "+reason), true
}

// fingerprintOf is the SHA-256 fingerprint of a certificate in hexadecimal digits.
func fingerprintOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// foreign says why a request seems to come from a page of somebody else in a browser, or "". The
// name in Host must be one of ours: a page of a stranger may have our address by DNS (DNS
// rebinding), but not our name. What a browser says of the page that asks must be ours, too.
func (k *keys) foreign(r *http.Request) string {
	host := hostOf(r.Host)
	if _, err := netip.ParseAddr(host); err != nil && host != "localhost" &&
		!slices.ContainsFunc(k.hosts, func(h string) bool { return h != "" && strings.EqualFold(strings.TrimSuffix(h, "."), host) }) {
		return "Host: names another host; the option hostnames of section control/http lists the names of this one"
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		scheme := "http"
		if r.TLS != nil {
			scheme = "https"
		}
		// Behind a proxy that does TLS the page has another scheme than we see, and the same host.
		if err != nil || !strings.EqualFold(u.Host, r.Host) || u.Scheme != scheme && u.Scheme != "https" {
			return "Origin: is another site"
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return ""
	}
	if r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.URL.Path == "/" {
		return "" // a link to the page: what it answers holds nothing
	}
	return "the request comes from another site"
}

// hostOf is a Host: without port, brackets and the dot at its end.
func hostOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}
