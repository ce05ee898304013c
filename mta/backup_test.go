package mta

import (
	"context"
	"fmt"
	"io"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meta1/mta/control"
	"meta1/mta/supervise"
	"meta1/queue/fsck"
)

// TestBackup: a copy of a queue at work is whole by fsck, and a meta1 elsewhere delivers from it all that had been accepted before, with
// content in the store and in files, while the first one goes on and removes what the copy has.
func TestBackup(t *testing.T) {
	r := start(t, ". 1^esmtp:[127.0.0.1]\n", "")
	large := strings.Repeat("0123456789\r\n", 20_000)
	const n = 6
	send := func(i int, rcpt string) {
		t.Helper()
		text := fmt.Sprintf("Subject: %d\r\n\r\nhello\r\n", i)
		if i%2 == 1 {
			text += large
		}
		if err := smtp.SendMail(r.address("smtps"), nil, "s@a.test", []string{rcpt}, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		send(i, fmt.Sprintf("m%d@out.test", i))
	}
	stop := make(chan struct{})
	load := supervise.NewGroup(t.Context())
	for w := range 4 {
		load.Go(func(context.Context) error { // mail that comes and goes meanwhile
			for i := w; ; i += 4 {
				select {
				case <-stop:
					return nil
				default:
				}
				text := fmt.Sprintf("Subject: %d\r\n\r\n%s", 1000+i, large)
				if err := smtp.SendMail(r.address("smtps"), nil, "s@a.test", []string{fmt.Sprintf("more%d@out.test", i)}, []byte(text)); err != nil {
					return err
				}
				if _, err := r.control.Operate(t.Context(), control.Operation{Op: "remove", Rcpt: fmt.Sprintf("more%d@out.test", i)}); err != nil {
					return err
				}
			}
		})
	}
	dir := shortDir(t)
	to := filepath.Join(dir, "spool")
	for _, wrong := range []string{"spool", "/", dir, dir + "/../x", dir + "/none/x"} {
		if _, err := r.control.Backup(t.Context(), control.BackupQuestion{Directory: wrong}, nil); err == nil {
			t.Errorf("a copy to %s", wrong)
		}
	}
	if err := os.Mkdir(dir+"/open", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/open", 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := r.control.Backup(t.Context(), control.BackupQuestion{Directory: dir + "/open/x"}, nil); err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("a copy where others may write: %v", err)
	}
	done, err := r.control.Backup(t.Context(), control.BackupQuestion{Directory: to}, nil)
	if err != nil || done.Contents < n/2 {
		t.Fatalf("%+v, %v", done, err)
	}
	if _, err := r.control.Backup(t.Context(), control.BackupQuestion{Directory: to}, nil); err == nil {
		t.Error("a second copy took the place of the first")
	}
	for name, mode := range map[string]os.FileMode{"": 0o751, "/defedb": 0o700, "/1": 0o700} {
		if info, err := os.Stat(to + name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s of the copy: %v, %v", name, info, err)
		}
	}
	close(stop)
	load.Stop()
	if err := load.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.control.Operate(t.Context(), control.Operation{Op: "remove", Sender: "s@a.test"}); err != nil {
		t.Fatal(err)
	}
	r.stop()

	box := deliveryAgent(t)
	write(t, dir+"/meta1.conf", config(dir, `smtpc { LMTP_socket = "`+box+`/lmtp"; }`))
	write(t, dir+"/mt", ". lmtp:\n")
	write(t, dir+"/access", "cltaddr:127. relay\n")
	sum, err := Fsck(t.Context(), FsckSetup{File: dir + "/meta1.conf", Content: true, Stderr: io.Discard, Report: func(f fsck.Finding) {
		if f.Severity != fsck.Note {
			t.Error(f.String())
		}
	}})
	if err != nil || sum.Unrepaired > 0 {
		t.Fatalf("fsck: %+v, %v", sum, err)
	}
	b := startIn(t, dir)
	for i := range n {
		eventually(t, fmt.Sprintf("message %d", i), func() bool {
			names, _ := filepath.Glob(fmt.Sprintf("%s/mail/m%d/new/*", box, i))
			if len(names) == 0 {
				return false
			}
			text, err := os.ReadFile(names[0])
			return err == nil && len(names) == 1 && strings.Contains(string(text), fmt.Sprintf("Subject: %d\n", i)) && (i%2 == 0 || len(text) > 20_000*11)
		})
	}
	b.stop()
	if log := b.log.String(); strings.Contains(log, "sev=ERR") {
		t.Errorf("log\n%s", log)
	}
}
