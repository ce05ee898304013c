package tlsconf

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/tlsconf/tlstest"
)

// memory is Files in memory. A stamp is how often a file was written.
type memory struct {
	mu    sync.Mutex
	files map[string][]byte
	count map[string]int
	reads int
}

func newMemory() *memory { return &memory{files: map[string][]byte{}, count: map[string]int{}} }

func (m *memory) write(path string, content []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[path] = content
	m.count[path]++
	if content == nil {
		delete(m.files, path)
	}
}

func (m *memory) put(t *testing.T, name string, c *tlstest.Cert) {
	t.Helper()
	m.write("/etc/"+name+".pem", c.Chain())
	m.write("/etc/"+name+".key", c.KeyPEM(t))
}

func (m *memory) Read(path string, known Stamp) ([]byte, Stamp, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	content, ok := m.files[path]
	if !ok {
		return nil, "", &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	now := Stamp(fmt.Sprint(m.count[path]))
	if known == now {
		return nil, now, nil
	}
	m.reads++
	return content, now, nil
}

func (m *memory) List(dir string) (names []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for path := range m.files {
		if filepath.Dir(path) == dir {
			names = append(names, filepath.Base(path))
		}
	}
	slices.Sort(names)
	return names, nil
}

// logBuffer is a log that is read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// take returns what was logged, and forgets it.
func (b *logBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

// watched is a Provider whose Run is at work in a bubble of synctest.
type watched struct {
	*Provider
	t     *testing.T
	files *memory
	log   logBuffer
}

// watch starts Run. The clock of a bubble begins in 2000.
func watch(t *testing.T, m *memory, text string) *watched {
	t.Helper()
	p, err := New(read(t, Server, "/etc", text), Deps{Role: Server, Name: "smtps", Files: m})
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{Provider: p, t: t, files: m}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx, slog.New(slog.NewTextHandler(&w.log, nil))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// after lets time pass and returns what was logged.
func (w *watched) after(d time.Duration) string {
	w.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	return w.log.take()
}

// gauge is a metric that has one value: its labels and the value.
func (w *watched) gauge(name string) string {
	w.t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(Collector{w.Provider})
	families, err := r.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	text := ""
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				text += l.GetValue() + " "
			}
			text += fmt.Sprint(m.GetGauge().GetValue())
		}
	}
	return text
}

func (w *watched) serves() string { return w.now.Load().pairs[0].chain[0].Subject.CommonName }

// TestRun: renewed files are found and taken, broken ones are told once and leave the old
// ones in use.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		year := time.Now().Add(300 * 24 * time.Hour)
		issue := func(cn string) *tlstest.Cert {
			return tlstest.SelfSigned(t, tlstest.Spec{CN: cn, To: year})
		}
		m := newMemory()
		m.put(t, "host", issue("first"))
		m.write("/etc/cas/a", issue("a CA").PEM())
		w := watch(t, m, "cert_file = host.pem; key_file = host.key; CAcert_directory = cas;")
		before := m.reads
		if log := w.after(10 * time.Minute); log != "" || m.reads != before {
			t.Errorf("nothing has changed: %d reads, %s", m.reads-before, log)
		}
		second := issue("second")
		m.write("/etc/host.pem", second.Chain()) // and the key after the look of each minute
		if log := w.after(61 * time.Second); log != "" || w.serves() != "first" {
			t.Errorf("half of it was taken: %s", log)
		}
		m.write("/etc/host.key", second.KeyPEM(t))
		if log := w.after(5 * time.Second); !strings.Contains(log, "TLS files were renewed") || w.serves() != "second" {
			t.Errorf("not taken: %s", log)
		}
		m.write("/etc/host.key", []byte("rubbish"))
		if log := w.after(2 * time.Minute); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, "no private key") || w.serves() != "second" {
			t.Errorf("a broken key: %s", log)
		}
		if log := w.after(time.Hour); log != "" {
			t.Errorf("told again too soon: %s", log)
		}
		current := func(want float64) {
			t.Helper()
			if got := w.gauge("meta1_tls_files_current"); got != fmt.Sprintf("smtps %v", want) {
				t.Errorf("meta1_tls_files_current: %s", got)
			}
		}
		current(0)
		if log := w.after(24 * time.Hour); strings.Count(log, "the newest TLS files cannot be used") != 1 {
			t.Errorf("not told again: %s", log)
		}
		m.write("/etc/host.key", nil)
		if log := w.after(2 * time.Minute); !strings.Contains(log, "does not exist") || w.serves() != "second" {
			t.Errorf("a missing key: %s", log)
		}
		m.put(t, "host", issue("third"))
		if log := w.after(2 * time.Minute); !strings.Contains(log, "renewed") || w.serves() != "third" {
			t.Errorf("not taken: %s", log)
		}
		current(1)
		m.write("/etc/host.key", []byte("rubbish"))
		w.Judge()
		current(0)
		if log := w.after(2 * time.Minute); log != "" || w.serves() != "third" {
			t.Errorf("told twice, or taken: %s", log)
		}
		m.put(t, "host", issue("third"))
		w.Judge()
		current(0) // it was judged, not taken
		if log := w.after(2 * time.Minute); !strings.Contains(log, "renewed") || w.serves() != "third" {
			t.Errorf("not taken: %s", log)
		}
		current(1)
		m.write("/etc/cas/b", issue("b CA").PEM())
		if log := w.after(2 * time.Minute); !strings.Contains(log, "renewed") || len(w.now.Load().cas) != 2 {
			t.Errorf("a new CA: %s", log)
		}
	})
}

// TestExpiry: certificates that expire soon and CRLs that have expired are told once a day,
// and are metrics.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		m := newMemory()
		ca := tlstest.Root(t, "Root")
		between := ca.Issue(t, tlstest.Spec{CN: "Between", CA: true, To: begin.Add(20 * 24 * time.Hour)})
		between.Issue(t, tlstest.Spec{CN: "host", To: begin.Add(50 * 24 * time.Hour)}).Write(t, t.TempDir(), "x")
		m.put(t, "host", between.Issue(t, tlstest.Spec{CN: "host", To: begin.Add(50 * 24 * time.Hour)}))
		m.write("/etc/ca.pem", ca.PEM())
		m.write("/etc/crl.pem", ca.CRL(t, begin.Add(36*time.Hour)))
		w := watch(t, m, "cert_file = host.pem; key_file = host.key; flags = { use_chain }; CAcert_file = ca.pem; CRL_file = crl.pem;")
		if log := w.after(time.Minute); log != "" {
			t.Errorf("too soon: %s", log)
		}
		if got, want := w.gauge("meta1_tls_certificate_expiry_seconds"), fmt.Sprintf("/etc/host.pem smtps %v", float64(begin.Add(20*24*time.Hour).Unix())); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if got, want := w.gauge("meta1_tls_crl_expiry_seconds"), fmt.Sprintf("/etc/crl.pem /CN=Root smtps %v", float64(begin.Add(36*time.Hour).Unix())); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if log := w.after(48 * time.Hour); strings.Count(log, "a CRL has expired") != 1 || strings.Contains(log, "certificate is") {
			t.Errorf("after two days: %s", log)
		}
		m.write("/etc/crl.pem", ca.CRL(t, begin.Add(1000*time.Hour)))
		w.after(5 * 24 * time.Hour)
		if log := w.after(24 * time.Hour); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "about to expire") || !strings.Contains(log, "file=/etc/host.pem") {
			t.Errorf("twelve days before: %s", log)
		}
		w.after(12 * 24 * time.Hour)
		if log := w.after(24 * time.Hour); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, "a TLS certificate has expired") {
			t.Errorf("afterwards: %s", log)
		}
	})
}

// TestOS: what is read of the disk.
func TestOS(t *testing.T) {
	dir := t.TempDir()
	tlstest.WriteFile(t, dir+"/a", []byte("one"), 0o600)
	content, first, err := OS{}.Read(dir+"/a", "")
	if string(content) != "one" || first == "" || err != nil {
		t.Errorf("%q %q %v", content, first, err)
	}
	if content, now, err := (OS{}).Read(dir+"/a", first); content != nil || now != first || err != nil {
		t.Errorf("unchanged: %q %q %v", content, now, err)
	}
	tlstest.WriteFile(t, dir+"/a", []byte("two"), 0o600)
	if content, now, err := (OS{}).Read(dir+"/a", first); string(content) != "two" || now == first || err != nil {
		t.Errorf("changed: %q %q %v", content, now, err)
	}
	for _, path := range []string{dir, "/dev/null", dir + "/none"} {
		if _, _, err := (OS{}).Read(path, ""); err == nil {
			t.Errorf("%s was read", path)
		}
	}
	if names, err := (OS{}).List(dir); !slices.Equal(names, []string{"a"}) || err != nil {
		t.Errorf("%q %v", names, err)
	}
	if _, err := (OS{}).List(dir + "/a"); err == nil {
		t.Error("a file was listed")
	}
}
