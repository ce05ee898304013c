package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/access"
	"meta1/mta/supervise"
)

// copier is a Backend that only copies the queue.
type copier struct {
	Backend
	copying func(ctx context.Context, tell func(BackupProgress)) error
}

func (c *copier) Backup(ctx context.Context, q BackupQuestion, tell func(BackupProgress)) (BackupReport, error) {
	return BackupReport{Directory: q.Directory, Contents: 7}, c.copying(ctx, tell)
}

// pipes is a listener of connections in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p <- theirs
	return ours, nil
}

// serveCopier serves one in a bubble until done is called.
func serveCopier(t *testing.T, copying func(context.Context, func(BackupProgress)) error) (c *Client, done func()) {
	l := make(pipes)
	g := supervise.NewGroup(t.Context())
	anybody := func(*http.Request) access.Who { return access.Who{Level: access.Change} }
	g.Go(func(ctx context.Context) error {
		return Serve(ctx, l, Handler(&copier{copying: copying}, anybody, nil))
	})
	c = &Client{path: "pipes", http: http.Client{Timeout: clientTime, Transport: &http.Transport{DialContext: l.dial}}}
	return c, func() {
		c.Close()
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// each tells n times, once a second.
func each(ctx context.Context, n int, tell func(BackupProgress)) error {
	for i := range n {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		tell(BackupProgress{Files: int64(i + 1)})
	}
	return nil
}

const threeHours = 3 * 3600

// TestLongBackup: a copy takes hours, with and without progress.
func TestLongBackup(t *testing.T) {
	for _, failure := range []error{nil, errors.New("the disk is full")} {
		synctest.Test(t, func(t *testing.T) {
			c, done := serveCopier(t, func(ctx context.Context, tell func(BackupProgress)) error {
				return errors.Join(each(ctx, threeHours, tell), failure)
			})
			defer done()
			n := 0
			r, err := c.Backup(t.Context(), BackupQuestion{Directory: "/x"}, func(p BackupProgress) {
				if n++; p.Files != int64(n) {
					t.Errorf("line %d tells of %d files", n, p.Files)
				}
			})
			if n != threeHours || failure == nil && (err != nil || r.Contents != 7) || failure != nil && (err == nil || !strings.Contains(err.Error(), failure.Error())) {
				t.Errorf("%d lines, %+v, %v", n, r, err)
			}
			whole := http.Client{Transport: c.http.Transport}
			a, err := whole.Post("http://meta1/backup", "application/json", strings.NewReader(`{"directory":"/x"}`))
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			text, err := io.ReadAll(a.Body)
			want, status := `{"directory":"/x","contents":7,"seconds":0}`, http.StatusOK
			if failure != nil {
				want, status = `{"error":"the disk is full"}`, http.StatusServiceUnavailable
			}
			if err != nil || a.StatusCode != status || string(bytes.TrimSpace(text)) != want {
				t.Errorf("without progress: %s, %s, %v", a.Status, text, err)
			}
		})
	}
}

// TestBackupFailsAtOnce: what fails before any progress has the status of an error.
func TestBackupFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, done := serveCopier(t, func(context.Context, func(BackupProgress)) error { return errors.New("/x exists") })
		defer done()
		if _, err := c.Backup(t.Context(), BackupQuestion{Directory: "/x"}, nil); err == nil || !strings.HasSuffix(err.Error(), "pipes: /x exists") {
			t.Error(err)
		}
		if _, err := c.Backup(t.Context(), BackupQuestion{Directory: strings.Repeat("x", bodyMax)}, nil); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Error(err)
		}
	})
}

// TestBackupAskerGoes: the copy ends when the asker is interrupted, and when it reads nothing.
func TestBackupAskerGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 2)
		c, done := serveCopier(t, func(ctx context.Context, tell func(BackupProgress)) error {
			err := each(ctx, threeHours, tell)
			ended <- err
			return err
		})
		defer done()
		ctx, interrupt := context.WithCancel(t.Context())
		_, err := c.Backup(ctx, BackupQuestion{Directory: "/x"}, func(p BackupProgress) {
			if p.Files == 600 {
				interrupt()
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the copy after an interrupt: %v", err)
		}
		began := time.Now()
		_, err = c.Backup(t.Context(), BackupQuestion{Directory: "/x"}, func(p BackupProgress) {
			if p.Files == 1 {
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("the copy for an asker who reads nothing: %v", err)
				}
			}
		})
		if took := time.Since(began); err == nil || took > 2*silence {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// TestBackupServerSilent: the asker does not wait for a meta1 that says nothing any more.
func TestBackupServerSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, done := serveCopier(t, func(ctx context.Context, tell func(BackupProgress)) error {
			if err := each(ctx, 900, tell); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		})
		defer done()
		began := time.Now()
		_, err := c.Backup(t.Context(), BackupQuestion{Directory: "/x"}, nil)
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "has said nothing for 1m0s") || took != 900*time.Second+silence {
			t.Errorf("after %v: %v", took, err)
		}
	})
}
