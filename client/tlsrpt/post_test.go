package tlsrpt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"meta1/mta/tlsconf/tlstest"
)

// base64Reader reads the body of a part.
func base64Reader(r io.Reader) io.Reader { return base64.NewDecoder(base64.StdEncoding, r) }

// TestPost: what a host must do for a report to count as delivered, and where none is posted.
func TestPost(t *testing.T) {
	cert := tlstest.SelfSigned(t, tlstest.Spec{Names: []string{"r.example"}, From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour)})
	roots := x509.NewCertPool()
	roots.AddCert(cert.Certificate)
	var got []byte
	var kind string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "https://r.example/ok", http.StatusTemporaryRedirect)
		case "/ok":
			got, _ = io.ReadAll(r.Body)
			kind = r.Method + " " + r.Header.Get("Content-Type")
			w.WriteHeader(http.StatusCreated)
		default:
			http.Error(w, "no", http.StatusTeapot)
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: cert.Key}}}
	s.StartTLS()
	defer s.Close()
	dial := func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		switch addr.String() {
		case "192.0.2.1:443", "127.0.0.1:443":
			return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
		}
		return nil, errors.New("connection refused")
	}
	addr := func(s ...string) map[string][]netip.Addr {
		all := map[string][]netip.Addr{}
		for _, one := range s {
			all["r.example"] = append(all["r.example"], netip.MustParseAddr(one))
			all["other.example"] = all["r.example"]
		}
		return all
	}
	for _, c := range []struct {
		uri     string
		addrs   map[string][]netip.Addr
		private bool
		want    string // "" for a success
	}{
		{"https://r.example/ok", addr("198.51.100.1", "192.0.2.1"), false, ""},
		{"https://r.example/ok", addr("127.0.0.1"), true, ""},
		{"https://r.example/ok", addr("127.0.0.1"), false, "is a private address"},
		{"https://r.example/ok", addr("10.1.2.3", "192.168.0.1", "169.254.169.254", "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "100.64.0.1"), false, "is a private address"},
		{"https://r.example/ok", nil, false, "no address"},
		{"https://r.example:444/ok", addr("192.0.2.1"), false, "connection refused"},
		{"https://r.example/no", addr("192.0.2.1"), false, "replied 418"},
		{"https://r.example/moved", addr("192.0.2.1"), false, "replied 307"},
		{"https://other.example/ok", addr("192.0.2.1"), false, "certificate"},
	} {
		got, kind = nil, ""
		p := poster{dial, roots, c.private}
		err := p.post(t.Context(), c.uri, []byte("packed"), c.addrs)
		switch {
		case c.want == "" && (err != nil || string(got) != "packed" || kind != "POST application/tlsrpt+gzip"):
			t.Errorf("%s: %v, got %q by %s", c.uri, err, got, kind)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || got != nil):
			t.Errorf("%s at %v: %v, want %s", c.uri, c.addrs, err, c.want)
		}
	}
}

// TestMailbox: which address a mailto URI names.
func TestMailbox(t *testing.T) {
	for uri, want := range map[string]string{
		"mailto:a@b.example": "a@b.example", "mailto:a%2Bb@c.example?subject=x&bcc=y@z": "a+b@c.example", "mailto:a@b.example,c@d.example": "",
		"mailto:a%0D%0Ax@b.example": "", "mailto:": "", "mailto:a": "", "mailto://a@b.example": "", "mailto:a%zz@b.example": "",
	} {
		p, err := mailbox(uri)
		if got := p.Addr(); want != "" && (err != nil || got != want) || want == "" && err == nil {
			t.Errorf("%s: %q %v, want %q", uri, got, err, want)
		}
	}
}
