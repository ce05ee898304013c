package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"meta1/mta/supervise"
)

// stopGrace is how long processes may take to end at the very end.
const stopGrace = 5 * time.Second

// Local is a Starter that starts programs itself, under the account of each if it
// is root.
type Local struct {
	programs table
	group    *supervise.Group
	apart    *supervise.Group      // waits for successors, which Close leaves running
	onEnd    func(pid, status int) // may be nil

	mu      sync.Mutex // guards running and closed
	running map[int]*Process
	closed  bool
}

// NewLocal makes a starter of the programs.
func NewLocal(programs []Program) *Local {
	return &Local{
		programs: newTable(programs), group: supervise.NewGroup(context.Background()), apart: supervise.NewGroup(context.Background()),
		running: map[int]*Process{},
	}
}

// Start starts a process.
func (l *Local) Start(service string, id int, files []*os.File) (*Process, error) {
	p, err := l.programs.find(service, id)
	if err != nil {
		return nil, err
	}
	return l.start(p, id, files)
}

// Only is a Starter of one program, whatever service and number it is asked for. Close of this one ends what it has started.
func (l *Local) Only(p Program) Starter { return &only{l, p} }

type only struct {
	local   *Local
	program Program
}

// Start starts a process of the program.
func (o *only) Start(_ string, id int, files []*os.File) (*Process, error) {
	return o.local.start(&o.program, id, files)
}

func (l *Local) start(p *Program, id int, files []*os.File) (*Process, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.New("programs are being stopped")
	}
	c := p.command(id, files)
	if err := c.Start(); err != nil {
		return nil, p.startError(err)
	}
	proc := newProcess(c.Process.Pid)
	proc.successor = p.Successor
	l.running[proc.PID] = proc
	keeper := l.group
	if p.Successor {
		keeper = l.apart
	}
	keeper.Go(func(context.Context) error {
		l.wait(c, proc)
		return nil
	})
	if sockets, _ := p.split(files); p.PassFD != "" {
		l.pass(p, sockets, proc)
	}
	return proc, nil
}

func newProcess(pid int) *Process {
	return &Process{PID: pid, done: make(chan struct{}), signal: func(s syscall.Signal) error {
		return syscall.Kill(-pid, s)
	}}
}

// wait notes the end of a process.
func (l *Local) wait(c *exec.Cmd, p *Process) {
	_ = c.Wait() // its status says it all
	l.mu.Lock()
	delete(l.running, p.PID)
	l.mu.Unlock()
	p.status = exitStatus(c.ProcessState)
	if l.onEnd != nil {
		l.onEnd(p.PID, p.status)
	}
	close(p.done)
}

// signal sends a signal to a process that this starter started and that runs.
func (l *Local) signal(pid int, s syscall.Signal) error {
	l.mu.Lock()
	p := l.running[pid]
	l.mu.Unlock()
	if p == nil {
		return fmt.Errorf("no process %d", pid)
	}
	return p.signal(s)
}

// Close ends all processes but successors, and waits for their end. Nothing starts afterwards.
func (l *Local) Close() {
	l.mu.Lock()
	l.closed = true
	stop := make([]*Process, 0, len(l.running))
	for _, p := range l.running {
		if !p.successor {
			stop = append(stop, p)
		}
	}
	l.mu.Unlock()
	for _, p := range stop {
		l.group.Go(func(context.Context) error {
			p.Stop(stopGrace)
			return nil
		})
	}
	l.group.Stop()
	_ = l.group.Wait()
}

// passTries and passPause bound how long a program may take to make its socket.
const (
	passTries = 300
	passPause = 100 * time.Millisecond
)

// pass sends the sockets to a program as soon as it listens on its path. If it
// never does, the program is ended, which is the failure that the restart policy
// sees.
func (l *Local) pass(program *Program, files []*os.File, p *Process) {
	fds := make([]*os.File, 0, len(files))
	for _, f := range files {
		if fd, err := dup(f); err == nil {
			fds = append(fds, fd)
		}
	}
	l.group.Go(func(ctx context.Context) error {
		defer closeAll(fds)
		for range passTries {
			if sendFiles(program.PassFD, program.UID, fds) == nil {
				return nil
			}
			select {
			case <-time.After(passPause):
			case <-p.done:
				return nil
			case <-ctx.Done():
				return nil
			}
		}
		p.Stop(stopGrace)
		return nil
	})
}

// sendFiles sends the descriptors in one message with a single byte (SCM_RIGHTS). uid is
// the account that must serve the path, -1 for any: as root we could be led to the socket
// of another program by a link.
func sendFiles(path string, uid int, files []*os.File) error {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer c.Close()
	if uid >= 0 {
		peer, err := peerOf(c)
		if err != nil {
			return err
		}
		if peer != uid {
			return fmt.Errorf("%s is served by user %d, not by %d", path, peer, uid)
		}
	}
	_, _, err = c.WriteMsgUnix([]byte{0}, rights(files), nil)
	return err
}

func rights(files []*os.File) []byte {
	if len(files) == 0 {
		return nil
	}
	fds := make([]int, 0, len(files))
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	return unix.UnixRights(fds...)
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
