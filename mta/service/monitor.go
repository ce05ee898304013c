package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"meta1/mta/supervise"
)

// monitorFD is the descriptor over which a monitor process talks to meta1.
const monitorFD = 3

// ReadFunc reads a file with root's rights if the configuration file config allows that to
// the account that serves. known and now are stamps of the content; if they are the same, the
// content is nil. Its errors go to the account.
type ReadFunc func(config, path, known string) (content []byte, now string, err error)

// Monitor is the main function of the monitor process. It serves meta1 over
// descriptor 3 until meta1 ends, whatever the reason, and then ends all programs.
func Monitor(read ReadFunc) error {
	// Caught and dropped: an ignored signal would stay ignored in the programs.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	f := os.NewFile(monitorFD, "monitor")
	c, err := net.FileConn(f)
	if err != nil {
		return fmt.Errorf("the monitor is started by meta1 serve alone: %w", err)
	}
	_ = f.Close()
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("the monitor is started by meta1 serve alone")
	}
	defer conn.Close()
	return serveMonitor(conn, read)
}

// serveMonitor does the monitor's work until the other side closes the connection.
func serveMonitor(conn *net.UnixConn, read ReadFunc) error {
	l := &link{conn: conn}
	first, files, err := l.read()
	closeAll(files)
	if err != nil || first.Op != opTable {
		return fmt.Errorf("waiting for the table of programs: %w", err)
	}
	local := NewLocal(first.Programs)
	local.onEnd = func(pid, status int) {
		_ = l.write(frame{Op: opEnded, PID: pid, Status: status}, nil)
	}
	defer local.Close()
	if err := l.write(frame{Op: opTable, Seq: first.Seq}, nil); err != nil {
		return err
	}
	for {
		f, files, err := l.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		if f.Op == opRead {
			err = l.write(readFor(f, first.Config, read), nil)
		} else {
			err = serveRequest(l, local, f, files)
		}
		closeAll(files)
		if err != nil {
			return err
		}
	}
}

// readFor answers a question for a file. Which ones may be asked for the configuration says, of
// which root named the file before the privileges were dropped.
func readFor(q frame, config string, read ReadFunc) frame {
	content, now, err := read(config, q.Path, q.Stamp)
	if err == nil && len(content) > maxRead {
		err = fmt.Errorf("%s is larger than %d bytes: let the account read it that runs meta1", q.Path, maxRead)
	}
	if err != nil {
		return frame{Op: opRead, Seq: q.Seq, Error: err.Error()}
	}
	return frame{Op: opRead, Seq: q.Seq, Content: content, Stamp: now}
}

// serveRequest starts or signals a program. The table protects the account of
// each: who asks is no longer root and may ask only for what is in it.
func serveRequest(l *link, local *Local, f frame, files []*os.File) error {
	switch f.Op {
	case opStart:
		answer := frame{Op: opStarted, Seq: f.Seq}
		p, err := local.Start(f.Service, f.ID, files)
		if err != nil {
			answer.Error = err.Error()
		} else {
			answer.PID = p.PID
		}
		return l.write(answer, nil)
	case opSignal:
		if s := syscall.Signal(f.Signal); s == syscall.SIGTERM || s == syscall.SIGKILL {
			_ = local.signal(f.PID, s) // it may have ended meanwhile
		}
		return nil
	default:
		return fmt.Errorf("unknown request %q", f.Op)
	}
}

// Remote is a Starter that asks a monitor process.
type Remote struct {
	link link
	cmd  *exec.Cmd // nil in tests
	run  *supervise.Group

	mu      sync.Mutex // guards the fields below
	seq     uint64
	waiting map[uint64]chan frame
	running map[int]*Process
	ended   map[int]int // statuses that came before their process was known
	err     error       // why the monitor is gone
}

// StartMonitor starts the monitor process as this account, which should be root:
// executable with the arguments args, which must call Monitor. Call it before the
// privileges are dropped. config is the absolute path of the configuration file. as is the account that the monitor
// itself takes, for one that needs no right of root; nil for ours.
func StartMonitor(executable string, args []string, programs []Program, config string, as *syscall.Credential) (*Remote, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("making the monitor's socket: %w", err)
	}
	defer theirs.Close()
	cmd := &exec.Cmd{
		Path: executable, Args: append([]string{"meta1"}, args...), Dir: "/", Env: environment(),
		Stderr: os.Stderr, ExtraFiles: []*os.File{theirs}, SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Credential: as},
	}
	if err := cmd.Start(); err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("starting the monitor process: %w", err)
	}
	r := newRemote(ours)
	r.cmd = cmd
	if err := r.sendTable(programs, config); err != nil {
		r.Close()
		return nil, fmt.Errorf("starting the monitor process: %w", err)
	}
	return r, nil
}

func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "monitor")
	defer f.Close()
	theirs = os.NewFile(uintptr(fds[1]), "monitor")
	c, err := net.FileConn(f)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), theirs, nil
}

func newRemote(conn *net.UnixConn) *Remote {
	r := &Remote{
		run: supervise.NewGroup(context.Background()), waiting: map[uint64]chan frame{},
		running: map[int]*Process{}, ended: map[int]int{},
	}
	r.link.conn = conn
	r.run.Go(func(context.Context) error {
		r.receive()
		return nil
	})
	return r
}

func (r *Remote) sendTable(programs []Program, config string) error {
	f, err := r.ask(frame{Op: opTable, Programs: programs, Config: config}, nil)
	if err == nil && f.Error != "" {
		err = errors.New(f.Error)
	}
	return err
}

// Start asks the monitor to start a process.
func (r *Remote) Start(service string, id int, files []*os.File) (*Process, error) {
	f, err := r.ask(frame{Op: opStart, Service: service, ID: id}, files)
	if err != nil {
		return nil, err
	}
	if f.Error != "" {
		return nil, errors.New(f.Error)
	}
	p := &Process{PID: f.PID, done: make(chan struct{})}
	p.signal = func(s syscall.Signal) error {
		return r.link.write(frame{Op: opSignal, PID: f.PID, Signal: int(s)}, nil)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if status, ok := r.ended[f.PID]; ok {
		delete(r.ended, f.PID)
		p.end(status)
	} else if r.err != nil {
		p.end(-int(syscall.SIGKILL))
	} else {
		r.running[f.PID] = p
	}
	return p, nil
}

// Read has the monitor read a file that only root may read, see ReadFunc.
// It waits for at most readTime.
func (r *Remote) Read(path, known string) (content []byte, now string, err error) {
	f, err := r.askWithin(readTime, frame{Op: opRead, Path: path, Stamp: known}, nil)
	if err == nil && f.Error != "" {
		err = errors.New(f.Error)
	}
	return f.Content, f.Stamp, err
}

func (p *Process) end(status int) {
	p.status = status
	close(p.done)
}

// readTime bounds how long a disk that hangs can hold a reload up.
const readTime = 30 * time.Second

// ask sends a question and waits for its answer.
func (r *Remote) ask(f frame, files []*os.File) (frame, error) {
	return r.askWithin(math.MaxInt64, f, files)
}

// askWithin is ask with a limit for the answer.
func (r *Remote) askWithin(limit time.Duration, f frame, files []*os.File) (frame, error) {
	answer := make(chan frame, 1)
	r.mu.Lock()
	r.seq++
	f.Seq = r.seq
	if r.err != nil {
		r.mu.Unlock()
		return frame{}, r.err
	}
	r.waiting[f.Seq] = answer
	r.mu.Unlock()
	if err := r.link.write(f, files); err != nil {
		return frame{}, errors.Join(errGone, err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case a, ok := <-answer:
		if !ok {
			return frame{}, errGone
		}
		return a, nil
	case <-timer.C:
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting, f.Seq)
		return frame{}, fmt.Errorf("the monitor process has not answered within %v", limit)
	}
}

// receive reads what the monitor says until it ends.
func (r *Remote) receive() {
	for {
		f, files, err := r.link.read()
		closeAll(files)
		if err != nil {
			r.gone()
			return
		}
		r.take(f)
	}
}

func (r *Remote) take(f frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.Op != opEnded {
		if c := r.waiting[f.Seq]; c != nil {
			delete(r.waiting, f.Seq)
			c <- f
		}
		return
	}
	if p := r.running[f.PID]; p != nil {
		delete(r.running, f.PID)
		p.end(f.Status)
	} else {
		r.ended[f.PID] = f.Status
	}
}

// gone ends everything that waits for the monitor.
func (r *Remote) gone() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errGone
	for seq, c := range r.waiting {
		delete(r.waiting, seq)
		close(c)
	}
	for pid, p := range r.running {
		delete(r.running, pid)
		p.end(-int(syscall.SIGKILL)) // the monitor takes its programs with it
	}
}

// Close ends the monitor and with it all programs, and waits for that.
func (r *Remote) Close() {
	_ = r.link.conn.CloseWrite()
	if r.cmd != nil {
		_ = r.cmd.Wait()
	}
	_ = r.run.Wait()
	_ = r.link.conn.Close()
}
