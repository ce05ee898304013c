package server

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/server/auth"
)

// TestAuthStop: a server that stops ends a session in the middle of AUTH: one that waits
// for the client, one that waits for saslauthd, and one whose refusal is held back.
func TestAuthStop(t *testing.T) {
	hangs := func(context.Context, string, string) (net.Conn, error) {
		a, b := net.Pipe()
		go func() {
			defer b.Close()
			_, _ = io.Copy(io.Discard, b)
		}()
		return a, nil
	}
	for _, tt := range []struct {
		name, line string
		cfg        auth.Config
	}{
		{"client", "AUTH PLAIN", auth.Config{PasswordMap: "users"}},
		{"saslauthd", "AUTH PLAIN AGphbmUAeA==", auth.Config{Saslauthd: auth.Saslauthd{Path: "x"}, Timeout: time.Minute}},
		{"delay", "AUTH PLAIN AGphbmUAeA==", auth.Config{PasswordMap: "users", Failures: auth.Limits{Delay: 8 * time.Second}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, fake := newPipeListener(), newFakeMTA()
				fake.users["jane"] = "{PLAIN}other"
				deps := fake.deps(l)
				deps.Dial = hangs
				b := startDeps(t, Config{AuthPresent: true, Auth: tt.cfg}, fake, deps)
				conn, err := l.dial("192.0.2.1")
				if err != nil {
					t.Fatal(err)
				}
				c := newClient(conn, b.group)
				for _, line := range []string{"EHLO client", tt.line} {
					if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				c.take()
				began := time.Now()
				b.stop()
				synctest.Wait()
				text, _ := c.take()
				if !strings.HasPrefix(text, "421 4.3.2 ") || time.Since(began) > 0 {
					t.Errorf("after %v: %q", time.Since(began), text)
				}
				b.end(t)
			})
		})
	}
}
