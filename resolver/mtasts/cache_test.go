package mtasts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"meta1/mta/vfs"
	"meta1/mta/vfs/crashfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a domain example.test with its name server and policy host.
type world struct {
	mu      sync.Mutex
	id      string // of the TXT record; "": none; "fail": no answer
	handle  http.HandlerFunc
	fetches int
	conns   chan net.Conn
	fs      vfs.FS
	end     sync.Once // closes conns
}

const policyText = "version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 604800\n"

func newWorld() *world {
	return &world{id: "1", handle: serve(policyText), conns: make(chan net.Conn), fs: crashfs.FS(crashfs.New(), nil)}
}

func serve(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, text)
	}
}

func (w *world) set(id string, handle http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.id, w.handle = id, handle
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fetches
}

func (w *world) CachedTXT(string) (TXT, bool) { return TXT{}, false }

func (w *world) TXT(_ context.Context, name string) TXT {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case name != "_mta-sts.example.test" || w.id == "":
		return TXT{}
	case w.id == "fail":
		return TXT{Err: errors.New("SERVFAIL")}
	}
	return TXT{Texts: []string{"v=STSv1; id=" + w.id + ";"}}
}

func (w *world) Addrs(_ context.Context, host string) ([]netip.Addr, error) {
	if host != "mta-sts.example.test" {
		return nil, errors.New("no address")
	}
	return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.fetches++
	handle := w.handle
	w.mu.Unlock()
	if r.Host != "mta-sts.example.test" || r.URL.Path != "/.well-known/mta-sts.txt" {
		http.Error(rw, "what?", http.StatusTeapot)
		return
	}
	handle(rw, r)
}

func (w *world) dial(_ context.Context, addr netip.AddrPort) (net.Conn, error) {
	if addr != netip.MustParseAddrPort("192.0.2.1:443") {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	w.conns <- theirs
	return ours, nil
}

func (w *world) Accept() (net.Conn, error) {
	nc, ok := <-w.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return nc, nil
}

func (w *world) Close() error {
	w.end.Do(func() { close(w.conns) })
	return nil
}

func (w *world) Addr() net.Addr { return &net.TCPAddr{} }

// certificate is a self-signed one for a name.
func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// with runs f in a bubble with a cache in a world. f may open further caches.
func with(t *testing.T, name string, f func(w *world, open func() (*Cache, func()))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cert, roots := certificate(t, name)
		server := &http.Server{Handler: w, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ErrorLog: log.New(io.Discard, "", 0)}
		served := make(chan error)
		go func() { served <- server.ServeTLS(w, "", "") }()
		f(w, func() (*Cache, func()) {
			c, err := Open(Config{Dir: "/mtasts", Roots: roots}, Deps{DNS: w, Dial: w.dial, FS: w.fs})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error)
			go func() { ran <- c.Run(ctx) }()
			return c, func() {
				cancel()
				if err := errors.Join(<-ran, c.Close()); err != nil {
					t.Error(err)
				}
			}
		})
		// First the connections: Close says goodbye over TLS with the server's mutex held. If the
		// client did so at the same time, each would wait for the other to read, and in a bubble
		// the time does not pass that would end it, as the mutex is waited for.
		time.Sleep(time.Minute)
		_ = server.Close()
		<-served
	})
}

// found is what Find says, in one line.
func found(c *Cache) string {
	f := c.Find(context.Background(), "Example.TEST.")
	why := ""
	if len(f.Trace) > 0 {
		why = f.Trace[0].Effect
	}
	if f.Policy == nil {
		return "none: " + why
	}
	return fmt.Sprintf("%s %s %s: %s", f.ID, f.Policy.Mode, f.Policy.MX, why)
}

// TestFind: what counts, whatever DNS and the policy host say.
func TestFind(t *testing.T) {
	for name, c := range map[string]struct {
		id     string
		handle http.HandlerFunc
		cert   string
		want   string
	}{
		"good":      {"1", serve(policyText), "", "1 enforce [mx.example.test]: "},
		"no record": {"", nil, "", "none: "},
		"no answer": {"fail", nil, "", "none: SERVFAIL"},
		"404":       {"1", http.NotFound, "", "none: the policy host replied 404"},
		"redirect": {"1", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.test/", http.StatusMovedPermanently)
		}, "", "none: the policy host replied 301"},
		"html": {"1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, policyText)
		}, "", "none: the policy is not text/plain"},
		"huge":      {"1", serve(strings.Repeat("x", 1<<20)), "", "none: the policy has more than 65536 bytes"},
		"malformed": {"1", serve("hello"), "", "none: line 1 is no pair of key and value"},
		"slow": {"1", func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			time.Sleep(time.Second) // so that its empty answer is never what the client sees of the end
		}, "", "none: context deadline exceeded"},
		"other name": {"1", serve(policyText), "www.example.test", "none: tls: failed to verify certificate: x509: certificate is valid for www.example.test, not mta-sts.example.test"},
	} {
		t.Run(name, func(t *testing.T) {
			cert := c.cert
			if cert == "" {
				cert = "mta-sts.example.test"
			}
			with(t, cert, func(w *world, open func() (*Cache, func())) {
				w.set(c.id, c.handle)
				cache, closeIt := open()
				defer closeIt()
				begin := time.Now()
				if got := found(cache); got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
				if took := time.Since(begin); took > fetchTime {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// TestKept: a policy that is kept counts until it expires, over a restart as well.
func TestKept(t *testing.T) {
	with(t, "mta-sts.example.test", func(w *world, open func() (*Cache, func())) {
		c, closeIt := open()
		if got := found(c); got != "1 enforce [mx.example.test]: " {
			t.Fatal(got)
		}
		closeIt()
		w.set("", http.NotFound) // somebody forges DNS
		c, closeIt = open()
		if got := found(c); got != "1 enforce [mx.example.test]: there is no MTA-STS record" || w.count() != 1 {
			t.Errorf("after a restart: %s, %d fetches", got, w.count())
		}
		w.set("fail", http.NotFound)
		if got := found(c); got != "1 enforce [mx.example.test]: SERVFAIL" {
			t.Error(got)
		}
		w.set("2", http.NotFound) // a new policy that cannot be fetched
		for range 3 {
			if got := found(c); got != "1 enforce [mx.example.test]: the policy host replied 404" || w.count() != 2 {
				t.Errorf("%s, %d fetches", got, w.count())
			}
		}
		time.Sleep(retryAfter)
		w.set("2", serve("version: STSv1\nmode: none\nmax_age: 60\n"))
		if got := found(c); got != "2 none []: " {
			t.Error(got)
		}
		w.set("", nil)
		time.Sleep(61 * time.Second)
		if got := found(c); got != "none: " {
			t.Error(got)
		}
		closeIt()
	})
}

// TestRefresh: a policy in use is fetched anew before it expires, one that is not used is
// forgotten when it does.
func TestRefresh(t *testing.T) {
	with(t, "mta-sts.example.test", func(w *world, open func() (*Cache, func())) {
		c, closeIt := open()
		defer closeIt()
		found(c)
		w.set("", serve(strings.Replace(policyText, "mx.example", "mx2.example", 1)))
		time.Sleep(26 * time.Hour)
		if got := found(c); got != "1 enforce [mx2.example.test]: there is no MTA-STS record" || w.count() != 2 {
			t.Errorf("%s, %d fetches", got, w.count())
		}
		time.Sleep(60 * 24 * time.Hour)
		if n := w.count(); n < 25 || n > 35 {
			t.Errorf("%d fetches in 60 days of which 30 are without use", n)
		}
		c.mu.Lock()
		n := len(c.domains)
		c.mu.Unlock()
		if names, err := w.fs.List("/mtasts"); n != 0 || err != nil || len(names) != 0 {
			t.Errorf("%d domains known, files %v %v", n, names, err)
		}
	})
}

// TestTogether: many questions at once make one fetch, and none waits longer than it may.
func TestTogether(t *testing.T) {
	with(t, "mta-sts.example.test", func(w *world, open func() (*Cache, func())) {
		w.set("1", func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(5 * time.Second)
			serve(policyText)(rw, r)
		})
		c, closeIt := open()
		defer closeIt()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if f := c.Find(ctx, "example.test"); f.Policy != nil {
			t.Error("a policy before it was there")
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if got := found(c); got != "1 enforce [mx.example.test]: " {
					t.Error(got)
				}
			})
		}
		wg.Wait()
		if n := w.count(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// TestDamaged: files that cannot be read are removed, and the rest counts.
func TestDamaged(t *testing.T) {
	with(t, "mta-sts.example.test", func(w *world, open func() (*Cache, func())) {
		c, closeIt := open()
		found(c)
		closeIt()
		for name, text := range map[string]string{"0123.json": "{", "4567.json": `{"version":2,"domain":"a.test"}`, "89.new": "x", "other": "x"} {
			f, err := w.fs.Create("/mtasts/" + name)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(f, text)
			_ = f.Close()
		}
		w.set("fail", nil)
		c, closeIt = open()
		defer closeIt()
		if got := found(c); got != "1 enforce [mx.example.test]: SERVFAIL" {
			t.Error(got)
		}
		if names, err := w.fs.List("/mtasts"); err != nil || len(names) != 2 {
			t.Errorf("%v %v", names, err)
		}
	})
}
