package socks

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"meta1/confparse"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// play is a SOCKS5 proxy: it expects and says each part of a script in turn ("<" and
// ">" in front), and then, if it takes the request, is the host, which says hello.
func play(t *testing.T, nc net.Conn, script []string) {
	for _, part := range script {
		if part[0] == '>' {
			if _, err := io.WriteString(nc, part[1:]); err != nil {
				return
			}
			continue
		}
		got := make([]byte, len(part)-1)
		if _, err := io.ReadFull(nc, got); err != nil || !bytes.Equal(got, []byte(part[1:])) {
			t.Errorf("the proxy got %q %v, want %q", got, err, part[1:])
			return
		}
	}
	if script[len(script)-1] == reply("\x00") {
		_, _ = io.WriteString(nc, "hello")
	}
}

// The request for 192.0.2.1 port 25 and replies to it (RFC 1928 sections 4 and 6).
const (
	request = "<\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x19"
	bound   = "\x00\x01\x00\x00\x00\x00\x00\x00"
)

func reply(code string) string { return ">\x05" + code + bound }

// TestDial: what a proxy does, and what it says of the host or of itself.
func TestDial(t *testing.T) {
	for name, c := range map[string]struct {
		key     string
		script  []string // nil: the proxy cannot be reached
		text    string   // of the error; "" for none
		host    bool     // it speaks of the host
		refused bool
	}{
		"open":        {script: []string{"<\x05\x01\x00", ">\x05\x00", request, reply("\x00")}},
		"key":         {key: "sesame", script: []string{"<\x05\x02\x00\x02", ">\x05\x02", "<\x01\x05meta1\x06sesame", ">\x01\x00", request, reply("\x00")}},
		"key wrong":   {key: "x", script: []string{"<\x05\x02\x00\x02", ">\x05\x02", "<\x01\x05meta1\x01x", ">\x01\x01"}, text: "the proxy failed: username/password authentication failed"},
		"key wanted":  {script: []string{"<\x05\x01\x00", ">\x05\xff"}, text: "the proxy failed: no acceptable authentication methods"},
		"down":        {text: "the proxy failed: connection refused"},
		"cut":         {script: []string{"<\x05\x01\x00"}, text: "the proxy failed: EOF"},
		"not socks":   {script: []string{"<\x05\x01\x00", ">HTTP/1.1 400 Bad Request\r\n"}, text: "the proxy failed: unexpected protocol version 72"},
		"failure":     {script: []string{"<\x05\x01\x00", ">\x05\x00", request, reply("\x01")}, text: "the proxy failed: general SOCKS server failure"},
		"forbidden":   {script: []string{"<\x05\x01\x00", ">\x05\x00", request, reply("\x02")}, text: "the proxy failed: connection not allowed by ruleset"},
		"unreachable": {script: []string{"<\x05\x01\x00", ">\x05\x00", request, reply("\x04")}, text: "the proxy says: host unreachable", host: true},
		"refused":     {script: []string{"<\x05\x01\x00", ">\x05\x00", request, reply("\x05")}, text: "the proxy says: connection refused", host: true, refused: true},
		"unknown":     {script: []string{"<\x05\x01\x00", ">\x05\x00", request, reply("\x63")}, text: "the proxy failed: unknown code: 99"},
	} {
		t.Run(name, func(t *testing.T) {
			p := Config{Type: "inet6", Address: netip.MustParseAddr("2001:db8::80"), Port: 1080, User: "meta1", Key: c.key}
			var theirs net.Conn
			done := make(chan struct{})
			dial := func(_ context.Context, network, addr string) (nc net.Conn, err error) {
				if network != "tcp" || addr != "[2001:db8::80]:1080" {
					t.Errorf("connects to %s %s", network, addr)
				}
				if c.script == nil {
					return nil, errors.New("connection refused")
				}
				nc, theirs = net.Pipe()
				go func() {
					defer close(done)
					play(t, theirs, c.script)
					_ = theirs.Close()
				}()
				return nc, nil
			}
			nc, err := p.Dial(t.Context(), dial, "192.0.2.1:25")
			switch {
			case c.text == "":
				hello := make([]byte, 5)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(nc, hello); err != nil || string(hello) != "hello" {
					t.Errorf("%q %v", hello, err)
				}
				_ = nc.Close()
			case err == nil || err.Error() != c.text:
				t.Errorf("%v", err)
			}
			var host *HostError
			if errors.As(err, &host) != c.host || c.host && host.Refused != c.refused || c.text != "" && !c.host && !errors.As(err, new(*Error)) {
				t.Errorf("%#v", err)
			}
			if c.script != nil {
				<-done
			}
		})
	}
}

// TestDialHangs: a proxy that does not answer is left in time, most likely because the host does not.
func TestDialHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Config{Type: "unix", Path: "/proxy"}
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		_, err := p.Dial(ctx, func(_ context.Context, network, addr string) (net.Conn, error) {
			if network != "unix" || addr != "/proxy" {
				t.Errorf("connects to %s %s", network, addr)
			}
			return ours, nil
		}, "192.0.2.1:25")
		if h := (*HostError)(nil); !errors.As(err, &h) || h.Refused || err.Error() != "the proxy says: nothing in time" || time.Since(begin) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		_ = theirs.Close()
	})
}

// TestOptions: a section that names no proxy is refused.
func TestOptions(t *testing.T) {
	for text, want := range map[string]string{
		"address = 192.0.2.1;":                 "",
		"type = inet6; address = 2001:db8::1;": "",
		"type = unix; path = /p;":              "",
		"":                                     "needs an address",
		"type = unix;":                         "needs a path",
		"type = inet6; address = 192.0.2.1;":   "no address of type inet6",
		"address = 2001:db8::1;":               "no address of type inet",
		"address = 192.0.2.1; proxy_key = " + strings.Repeat("x", 256) + ";": "256 octets",
		"address = 192.0.2.1; user = " + strings.Repeat("x", 256) + ";":      "256 octets",
	} {
		p := Config{}
		root := &confparse.Table{Options: []confparse.Option{{
			Name: "proxy", Kind: confparse.KindSection, Readme: "3.11", Doc: "section under test", Sub: p.Options(),
		}}}
		files := confparse.Files{"/test.conf": "proxy { " + text + " }"}
		_, err := confparse.Load(confparse.LoadOptions{FS: files}, "/test.conf", root)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
