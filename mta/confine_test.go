package mta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"meta1/mta/account"
	"meta1/mta/control"
	"meta1/mta/exit"
	"meta1/mta/lda"
)

// TestLandlock starts MTAs that may write their own directories alone, and mails through
// them to a service, which writes elsewhere.
func TestLandlock(t *testing.T) {
	if err := account.LandlockPossible(); err != nil {
		t.Skip(err)
	}
	t.Run("ours", func(t *testing.T) { testLandlock(t, "allow_root = true;") })
	if os.Getuid() == 0 {
		t.Run("root's", func(t *testing.T) { testLandlock(t, "user = nobody;") })
	}
}

func testLandlock(t *testing.T, account string) {
	dir := shortDir(t)
	owner := os.Getuid()
	if account == "user = nobody;" {
		owner = 65534
	}
	for d, mode := range map[string]os.FileMode{"": 0o755, "/elsewhere": 0o777, "/logs": 0o777, "/mail": 0o777, "/spool": 0o750, "/cdb": 0o750} {
		err := errors.Join(os.MkdirAll(dir+d, 0o755), os.Chmod(dir+d, mode))
		if mode == 0o750 {
			err = errors.Join(err, os.Chown(dir+d, owner, -1))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	extra := `landlock = on; log_file = "../logs/log"; CDB_base_directory = "../cdb"; smtpc { LMTP_socket = lmtp; }
		lda { start_action = nostartaccept; listen_socket { type = unix; path = lmtp; } path = meta1; arguments = "meta1 LDA ` + dir + `/mail"; }`
	conf := strings.Replace(config(dir, extra), "allow_root = true;", account, 1)
	write(t, dir+"/meta1.conf", conf)
	write(t, dir+"/mt", "box.test lmtp:\n")
	write(t, dir+"/access", "cltaddr:127. relay\n")
	write(t, dir+"/elsewhere/old", "")
	if err := os.Chmod(dir+"/elsewhere/old", 0o666); err != nil {
		t.Fatal(err)
	}
	copyTest(t, dir+"/test")
	cmd := exec.Command(dir+"/test", "SERVE", dir+"/meta1.conf")
	cmd.Env = append(os.Environ(), "PROBE="+dir)
	var log logBuffer
	cmd.Stderr = &log
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, &log)
		}
	}()
	out, err := io.ReadAll(pipe)
	if err != nil {
		t.Fatal(err)
	}
	denied := syscall.EACCES.Error()
	for what, want := range map[string]string{
		"read": "allowed", "spool": "allowed", "log": "allowed", "null": "allowed",
		"write": denied, "change": denied, "remove": denied, "rename": denied, "execute": denied,
	} {
		if !regexp.MustCompile("probe " + what + ": .*" + want).Match(out) {
			t.Errorf("%s is not %s:\n%s\n%s", what, want, out, &log)
		}
	}
	at := regexp.MustCompile(`listen smtps (\S+)`).FindSubmatch(out)
	if at == nil {
		t.Fatalf("it is not ready\n%s", &log)
	}
	for _, size := range []int{10, 1 << 20} { // in memory, and in a content file
		text := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72)
		if err := smtp.SendMail(string(at[1]), nil, "s@box.test", []string{"joe@box.test"}, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the arrival of the mail", func() bool {
		names, _ := os.ReadDir(dir + "/mail/joe/new")
		return len(names) == 2
	})

	ask := control.NewClient(dir + "/spool/control")
	defer ask.Close()
	reload := func(from, to string) control.ReloadReport {
		t.Helper()
		write(t, dir+"/meta1.conf", strings.Replace(conf, from, to, 1))
		r, err := ask.Reload(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if errs := strings.Join(reload("../logs/log", "../elsewhere/log").Errors, "\n"); !strings.Contains(errs, "permission denied") || !strings.Contains(errs, landlockNote) {
		t.Errorf("a reload with a log file elsewhere says %q", errs)
	}
	if _, err := os.Stat(dir + "/elsewhere/log"); err == nil {
		t.Error("it made a log file elsewhere")
	}
	write(t, dir+"/elsewhere/mt", "box.test lmtp:\n")
	if r := reload("file = mt;", `file = "`+dir+`/elsewhere/mt";`); len(r.Errors) > 0 {
		t.Errorf("a reload with a map elsewhere: %q", r.Errors)
	}
}

// probe says what this process may do with the files below a directory, besides its work.
func probe(dir string) {
	tell := func(what string, err error) {
		text := "allowed"
		if err != nil {
			text = err.Error()
		}
		fmt.Printf("probe %s: %s\n", what, text)
	}
	tell("read", func() error { _, err := os.ReadFile(dir + "/mt"); return err }())
	tell("spool", errors.Join(os.Mkdir(dir+"/spool/d", 0o700), os.WriteFile(dir+"/spool/f", nil, 0o600), os.Rename(dir+"/spool/f", dir+"/spool/d/f")))
	tell("log", os.WriteFile(dir+"/logs/new", nil, 0o600))
	tell("null", os.WriteFile(os.DevNull, nil, 0o600))
	tell("write", os.WriteFile(dir+"/elsewhere/new", nil, 0o600))
	tell("change", os.WriteFile(dir+"/elsewhere/old", nil, 0o600))
	tell("remove", os.Remove(dir+"/elsewhere/old"))
	tell("rename", os.Rename(dir+"/logs/new", dir+"/elsewhere/new"))
	tell("execute", exec.Command("/bin/true").Run())
}

// ldaProcess serves LMTP on the listening socket that is its standard input.
func ldaProcess(mail string) int {
	l, err := net.FileListener(os.Stdin)
	if err == nil {
		err = lda.Run(context.Background(), lda.Options{MailDir: mail, Create: true, Listener: l, Hostname: "box.test"})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exit.Software
	}
	return exit.OK
}
