package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta1/confparse"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // dates in Received: are part of the expected output
	goleak.VerifyTestMain(m)
}

// loadConfig reads options as they stand in a section smtps.
func loadConfig(t testing.TB, options string) Config {
	t.Helper()
	var cfg Config
	root := &confparse.Table{Options: []confparse.Option{{
		Name: "smtps", Kind: confparse.KindSection, Sub: cfg.Options(), Readme: "3.10", Doc: "x",
	}}}
	files := confparse.Files{"/meta1.conf": "smtps { " + options + " }"}
	if _, err := confparse.Load(confparse.LoadOptions{FS: files}, "/meta1.conf", root); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func mustNew(t testing.TB, cfg Config, deps Deps) *Server {
	t.Helper()
	s, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fakeMTA answers the ports of a server as QMGR and SMAR would, by rules.
type fakeMTA struct {
	ports *msg.Ports
	store *memStore
	log   *lockedBuffer // the server's log

	mu        sync.Mutex // guards the rules and results below
	inlineMax int64
	askName   bool // NewSession is answered with AskName
	asked     func(msg.AdmitQ)
	admit     func(msg.AdmitQ) smtp.Reply
	check     func(msg.CheckQ) msg.Verdict
	users     map[string]string // what Lookup finds in any map
	commit    func(msg.CommitQ) smtp.Reply
	next      uint64
	sessions  int // admitted and not ended
	committed []msg.CommitQ
}

func newFakeMTA() *fakeMTA {
	return &fakeMTA{
		ports: msg.NewPorts(), store: &memStore{files: map[smtp.ID]*memFile{}}, log: &lockedBuffer{},
		inlineMax: 1 << 20, users: map[string]string{},
		admit:  func(msg.AdmitQ) smtp.Reply { return smtp.Reply{} },
		check:  func(msg.CheckQ) msg.Verdict { return msg.Verdict{} },
		commit: func(msg.CommitQ) smtp.Reply { return smtp.Reply{} },
	}
}

// serve answers until ctx ends. Ports named in down are not opened.
func (f *fakeMTA) serve(ctx context.Context, g *supervise.Group, down ...string) {
	isDown := func(name string) bool {
		for _, d := range down {
			if d == name {
				return true
			}
		}
		return false
	}
	if !isDown("admit") {
		serveFake(ctx, g, f.ports.Admit, f.answerAdmit)
	}
	if !isDown("check") {
		serveFake(ctx, g, f.ports.Check, func(q msg.CheckQ) msg.Verdict {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.check(q)
		})
	}
	if !isDown("lookup") {
		serveFake(ctx, g, f.ports.Lookup, func(q msg.LookupQ) msg.LookupA {
			f.mu.Lock()
			defer f.mu.Unlock()
			value, found := f.users[q.Key]
			return msg.LookupA{Value: value, Found: found}
		})
	}
	if !isDown("commit") {
		serveFake(ctx, g, f.ports.Commit, f.answerCommit)
	}
}

func serveFake[Q, A any](ctx context.Context, g *supervise.Group, p *msg.Port[Q, A], answer func(Q) A) {
	requests, stop := p.Open()
	g.Go(func(context.Context) error {
		defer stop()
		for {
			select {
			case r := <-requests:
				r.Answer(answer(r.Q))
			case <-ctx.Done():
				return nil
			}
		}
	})
}

func (f *fakeMTA) answerAdmit(q msg.AdmitQ) msg.AdmitA {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked != nil {
		f.asked(q)
	}
	if q.Kind == msg.EndSession {
		f.sessions--
		return msg.AdmitA{}
	}
	if r := f.admit(q); !r.IsZero() {
		return msg.AdmitA{Reply: r}
	}
	if q.Kind == msg.NewSession {
		f.sessions++
	}
	f.next++
	return msg.AdmitA{ID: smtp.ID{Counter: f.next, Process: q.Server}, InlineMax: f.inlineMax, AskName: f.askName && q.Kind == msg.NewSession}
}

func (f *fakeMTA) answerCommit(q msg.CommitQ) msg.CommitA {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.commit(q); !r.IsZero() {
		return msg.CommitA{Reply: r}
	}
	f.committed = append(f.committed, q)
	return msg.CommitA{}
}

// content is what QMGR would have of a committed message.
func (f *fakeMTA) content(q msg.CommitQ) ([]byte, error) {
	if q.Inline != nil {
		return q.Inline, nil
	}
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	file := f.store.files[q.Envelope.TA]
	if file == nil || !file.durable {
		return nil, fmt.Errorf("no durable content for %v", q.Envelope.TA)
	}
	return file.data, nil
}

// deps are the Deps of a server in front of the fake.
func (f *fakeMTA) deps(listeners ...net.Listener) Deps {
	return Deps{
		Ports: f.ports, Content: f.store, Listeners: listeners,
		Log:      slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: noTime})),
		Hostname: "mx.example.org", Version: "1.0", Random: zeros{},
	}
}

func noTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// memStore is a ContentStore in memory.
type memStore struct {
	mu        sync.Mutex // guards all
	files     map[smtp.ID]*memFile
	createErr error
	writeErr  error
	commitErr error
	writes    int // calls of Write
}

type memFile struct {
	store   *memStore
	ta      smtp.ID
	data    []byte
	drop    int64 // bytes of data that head replaces
	head    []byte
	durable bool
	// detached: the store knows nothing of it any more.
	detached bool
}

func (s *memStore) Create(ta smtp.ID) (msg.ContentWriter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.createErr != nil {
		return nil, s.createErr
	}
	if s.files[ta] != nil {
		return nil, os.ErrExist
	}
	f := &memFile{store: s, ta: ta}
	s.files[ta] = f
	return f, nil
}

func (f *memFile) Write(p []byte) (int, error) {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if f.store.writeErr != nil {
		return 0, f.store.writeErr
	}
	if f.detached {
		return 0, os.ErrClosed
	}
	f.store.writes++
	f.data = append(f.data, p...)
	return len(p), nil
}

func (f *memFile) Top(drop int64, head []byte) error {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	f.drop, f.head = drop, head
	return nil
}

func (f *memFile) Commit(*msg.Envelope) error {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if f.detached {
		return os.ErrClosed
	}
	if f.store.commitErr != nil {
		delete(f.store.files, f.ta)
		return f.store.commitErr
	}
	f.data = append(slices.Clone(f.head), f.data[f.drop:]...)
	f.durable = true
	return nil
}

func (f *memFile) Abort() {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if !f.durable && !f.detached {
		delete(f.store.files, f.ta)
	}
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	return bytes.NewReader(f.data).ReadAt(p, off)
}

func (f *memFile) Detach() error {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if !f.detached {
		delete(f.store.files, f.ta)
	}
	f.detached = true
	return nil
}

// unfinished are the files that nobody has committed or removed.
func (s *memStore) unfinished() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, f := range s.files {
		if !f.durable {
			n++
		}
	}
	return n
}

// pipeListener is a listener whose connections are pipes in memory.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	errs   chan error // returned by Accept first
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{}), errs: make(chan error, 16)}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, err
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// dial connects to the listener from peer, or over no network if peer is "".
func (l *pipeListener) dial(peer string) (net.Conn, error) {
	a, b := net.Pipe()
	server := net.Conn(b)
	if peer != "" {
		server = &addrConn{Conn: b, peer: peer}
	}
	select {
	case l.conns <- server:
		return a, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	}
}

// addrConn is a pipe that seems to come over TCP.
type addrConn struct {
	net.Conn
	peer string
}

func (c *addrConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(c.peer), Port: 4711}
}

func (c *addrConn) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP("192.0.2.25"), Port: 25} }

// client collects what a server sends, so that the server never waits for it.
type client struct {
	conn net.Conn

	mu   sync.Mutex // guards the following
	more sync.Cond  // something has come
	got  bytes.Buffer
	gone bool
}

func newClient(conn net.Conn, g *supervise.Group) *client {
	c := &client{conn: conn}
	c.more.L = &c.mu
	g.Go(func(context.Context) error {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			c.mu.Lock()
			c.got.Write(b[:n])
			c.gone = err != nil
			c.more.Broadcast()
			c.mu.Unlock()
			if err != nil {
				return nil
			}
		}
	})
	return c
}

// read waits for what comes.
func (c *client) read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.got.Len() == 0 && !c.gone {
		c.more.Wait()
	}
	return c.got.Read(p) // io.EOF if it is empty
}

// take returns what has come since the last call, and whether the server has closed.
func (c *client) take() (text string, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text = c.got.String()
	c.got.Reset()
	return text, c.gone
}

// wantReply fails unless s begins with code.
func wantReply(t testing.TB, s, code string) {
	t.Helper()
	if !strings.HasPrefix(s, code) {
		t.Fatalf("reply %q, want %s", s, code)
	}
}

// zeros is a source of random bytes that are all 0, so that dialogues are always the same.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
