package logfmt_test

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta1/mta/logfmt"
)

// TestJournalLarge: an entry that no datagram can hold comes as a sealed file.
func TestJournalLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	c := daemon(t, path)
	var attrs []slog.Attr
	for i := range 300 {
		attrs = append(attrs, slog.String("f"+strconv.Itoa(i), strings.Repeat("x", 1000)))
	}
	sent(t, logfmt.SyslogConfig{Protocol: logfmt.ProtocolJournal, Ident: "meta1", Server: path}, attrs...)
	text := received(t, c)
	e, err := entry(text)
	if err != nil || e["META1_F299"] != strings.Repeat("x", 1000) || len(e["MESSAGE"]) < 300_000 {
		t.Errorf("%d fields: %v", len(e), err)
	}
}

// received reads the file whose descriptor comes.
func received(t *testing.T, c *net.UnixConn) []byte {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Minute))
	oob := make([]byte, 64)
	n, m, _, _, err := c.ReadMsgUnix(nil, oob)
	if err != nil || n != 0 {
		t.Fatalf("%d bytes beside the descriptor, %v", n, err)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:m])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%v %v", messages, err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v %v", fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "entry")
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("the file can still be changed")
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}
