//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestDiskFails has meta1 work on a disk that begins to fail. meta1 must end by itself, with
// EX_IOERR, and when the disk is mended it must start and deliver every message that it
// has acknowledged, be it a moment before it ended.
//
// The disk is a file system in user space, which tells the truth: what it has written is
// there, and what it fails is not. A loop device does not (it reports a short write as
// whole), and neither does ext4 on a failing one for a moment, so that a test on those
// proves nothing.
func TestDiskFails(t *testing.T) {
	needRoot(t, "it mounts a file system")
	isContent := func(path string) bool { return len(filepath.Base(filepath.Dir(path))) == 1 } // 0 to F
	for name, fails := range map[string]func(op, path string) bool{
		"everything":        func(string, string) bool { return true },
		"syncs":             func(op, _ string) bool { return op == "sync" },
		"writes of logs":    func(op, path string) bool { return op == "write" && strings.HasSuffix(path, ".log") },
		"syncs of content":  func(op, path string) bool { return op == "sync" && isContent(path) },
		"writes of content": func(op, path string) bool { return op == "write" && isContent(path) },
		"writes of tables":  func(op, path string) bool { return op == "write" && strings.HasSuffix(path, ".sst") },
	} {
		t.Run(name, func(t *testing.T) { diskFails(t, fails) })
	}
}

func diskFails(t *testing.T, fails func(op, path string) bool) {
	d := newBadDisk(t)
	// The large ones have a content file each, the others fill the logs.
	l := newLedger(t, func(id int) int { return []int{1000, 30_000, 200_000}[id%3] })
	s := newSink(t, "")
	s.keep = l.arrive
	s.answer(func(verb, _ string) string { return map[string]string{"RCPT": "451 4.3.0 later"}[verb] })
	m := run(t, settings{spool: d.at, mailertable: toPort(t, ".", s.addr), qmgr: "IBDB { size = 1MB; }"})
	stop := make(chan struct{})
	load := l.load(m.smtp, 10, stop)
	must(t, func() error {
		if acked, _, _ := l.missing(); acked < 100 {
			return fmt.Errorf("%d messages are acknowledged", acked)
		}
		return nil
	})
	d.fail(fails)
	select {
	case <-m.ended:
	case <-time.After(hangs):
		t.Error("meta1 works on although its disk fails")
		m.kill()
	}
	close(stop)
	load.Wait()
	const ioErr = 74
	if code := m.cmd.ProcessState.ExitCode(); code != ioErr {
		t.Errorf("meta1 ended with %v, want the status %d", m.cmd.ProcessState, ioErr)
	}
	acked, _, _ := l.missing()
	t.Logf("ended after %d messages and %d failures: %s", acked, d.failures.Load(), tail(m.log, 1))
	d.mend()
	s.answer(func(string, string) string { return "" })
	m.start()
	must(t, l.complete)
	m.queueEmpty()
	m.stop()
}

// badDisk is a file system in user space over a folder.
type badDisk struct {
	at       string                                     // where it is mounted
	fails    atomic.Pointer[func(op, path string) bool] // nil: nothing fails
	failures atomic.Int64
}

func newBadDisk(t *testing.T) *badDisk {
	t.Helper()
	dir := testDir(t)
	d := &badDisk{at: dir + "/mnt"}
	for _, name := range []string{dir + "/back", d.at} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir+"/back", 65534, 65534); err != nil {
		t.Fatal(err)
	}
	root, err := fusefs.NewLoopbackRoot(dir + "/back")
	if err != nil {
		t.Fatal(err)
	}
	loopback, ok := root.(*fusefs.LoopbackNode)
	if !ok {
		t.Fatalf("the root is a %T", root)
	}
	node := &badNode{LoopbackNode: loopback, d: d}
	loopback.RootData.RootNode = node
	server, err := fusefs.Mount(d.at, node, &fusefs.Options{MountOptions: fuse.MountOptions{
		AllowOther: true, DirectMount: true, Options: []string{"default_permissions"}, FsName: "bad disk",
	}})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		t.Skipf("there is no FUSE here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := within(server.Unmount); err != nil {
			t.Error(err)
		}
	})
	return d
}

// fail lets operations fail from now on.
func (d *badDisk) fail(fails func(op, path string) bool) { d.fails.Store(&fails) }

func (d *badDisk) mend() { d.fails.Store(nil) }

// judge is EIO for an operation that fails.
func (d *badDisk) judge(op, path string) syscall.Errno {
	if f := d.fails.Load(); f == nil || !(*f)(op, path) {
		return fusefs.OK
	}
	d.failures.Add(1)
	return syscall.EIO
}

// badNode is a file or a folder of a bad disk.
type badNode struct {
	*fusefs.LoopbackNode
	d *badDisk
}

var (
	_ fusefs.NodeWrapChilder = (*badNode)(nil)
	_ fusefs.NodeCreater     = (*badNode)(nil)
	_ fusefs.NodeOpener      = (*badNode)(nil)
	_ fusefs.NodeWriter      = (*badNode)(nil)
	_ fusefs.NodeFsyncer     = (*badNode)(nil)
	_ fusefs.NodeRenamer     = (*badNode)(nil)
	_ fusefs.NodeUnlinker    = (*badNode)(nil)
)

func (n *badNode) WrapChild(_ context.Context, child fusefs.InodeEmbedder) fusefs.InodeEmbedder {
	return &badNode{LoopbackNode: child.(*fusefs.LoopbackNode), d: n.d}
}

// path is where the node is on the disk.
func (n *badNode) path() string { return "/" + n.Path(n.Root()) }

func (n *badNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	if errno := n.d.judge("create", n.path()+"/"+name); errno != fusefs.OK {
		return nil, nil, 0, errno
	}
	inode, file, how, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return inode, hide(file), how, errno
}

func (n *badNode) Open(ctx context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	file, how, errno := n.LoopbackNode.Open(ctx, flags)
	return hide(file), how, errno
}

func (n *badNode) Write(ctx context.Context, f fusefs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if errno := n.d.judge("write", n.path()); errno != fusefs.OK {
		return 0, errno
	}
	return f.(fusefs.FileWriter).Write(ctx, data, off)
}

func (n *badNode) Fsync(ctx context.Context, f fusefs.FileHandle, flags uint32) syscall.Errno {
	if errno := n.d.judge("sync", n.path()); errno != fusefs.OK {
		return errno
	}
	if file, ok := f.(fusefs.FileFsyncer); ok {
		return file.Fsync(ctx, flags)
	}
	return fusefs.OK // a folder of the one below
}

func (n *badNode) Rename(ctx context.Context, name string, parent fusefs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if errno := n.d.judge("rename", n.path()+"/"+name); errno != fusefs.OK {
		return errno
	}
	return n.LoopbackNode.Rename(ctx, name, parent, newName, flags)
}

func (n *badNode) Unlink(ctx context.Context, name string) syscall.Errno {
	if errno := n.d.judge("remove", n.path()+"/"+name); errno != fusefs.OK {
		return errno
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

// badFile is an open file without its descriptor, so that the kernel cannot write past us.
type badFile struct {
	file
}

// file is what an open file can do.
type file interface {
	fusefs.FileReader
	fusefs.FileWriter
	fusefs.FileFsyncer
	fusefs.FileFlusher
	fusefs.FileReleaser
	fusefs.FileGetattrer
	fusefs.FileSetattrer
	fusefs.FileAllocater
}

func hide(f fusefs.FileHandle) fusefs.FileHandle {
	if f == nil {
		return nil
	}
	return &badFile{f.(file)}
}
