package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Program says what is executed for a service, and how.
type Program struct {
	Service string // name of the section
	Path    string // absolute
	Args    []string
	// PassID is an option of two characters such as "-i"; if set, it is put in front
	// of the other arguments together with the number of the process (README 3.7,
	// item 9).
	PassID string
	// UID, GID and Groups are the account; UID -1 means the one of the caller.
	UID, GID int
	Groups   []int
	Dir      string // working directory, absolute
	// PassFD is the Unix socket over which the program takes its sockets, or "".
	PassFD string
	// Connected: descriptor 0 is a connected socket, and descriptor 1 as well.
	Connected bool
	// Output: the last of the files of a start is where the process prints to.
	Output bool
	// Max is how many processes may run at once.
	Max int
	// Env is the environment; nil stands for a few variables of the starter's.
	Env []string
	// Successor: the program takes the place of the process that runs the server. It gets its files as
	// descriptors from 3 on, and goes on when its starter ends. Whoever has it started as root must
	// have seen to it that only root can replace it.
	Successor bool
}

// argv is the argument vector of a process.
func (p *Program) argv(id int) []string {
	args := append([]string(nil), p.Args...)
	if len(args) == 0 {
		args = []string{p.Path}
	}
	if p.PassID != "" {
		args = append([]string{args[0], p.PassID + strconv.Itoa(id)}, args[1:]...)
	}
	return args
}

// kept are the variables of our environment that programs get.
var kept = [...]string{"PATH", "HOME", "TZ", "LANG", "LC_ALL", "GOMAXPROCS", "GOMEMLIMIT"}

func environment() []string {
	var env []string
	for _, name := range kept {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// command prepares the execution. files are the sockets, and with Output what it prints
// to; they stay open.
func (p *Program) command(id int, files []*os.File) *exec.Cmd {
	files, output := p.split(files)
	c := &exec.Cmd{
		Path: p.Path, Args: p.argv(id), Dir: p.Dir, Env: environment(),
		Stdout: output, Stderr: output, SysProcAttr: dieWithParent(),
	}
	if p.Env != nil {
		c.Env = p.Env
	}
	if p.Successor {
		c.SysProcAttr, c.ExtraFiles, files = &syscall.SysProcAttr{}, files, nil
	}
	c.SysProcAttr.Setpgid = true
	if p.PassFD == "" && len(files) > 0 {
		c.Stdin = files[0]
		if p.Connected {
			c.Stdout = files[0]
		}
	}
	if p.UID >= 0 {
		groups := make([]uint32, 0, len(p.Groups))
		for _, g := range p.Groups {
			groups = append(groups, uint32(g))
		}
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(p.UID), Gid: uint32(p.GID), Groups: groups}
	}
	return c
}

// split divides the files of a start into sockets and what the process prints to.
func (p *Program) split(files []*os.File) (sockets []*os.File, output *os.File) {
	if n := len(files); p.Output && n > 0 {
		return files[:n-1], files[n-1]
	}
	return files, os.Stderr
}

// startError says what could not be started, where and as whom: each may be the
// reason.
func (p *Program) startError(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	text := "starting " + p.Path + " in " + p.Dir
	if p.UID >= 0 {
		text += " as user " + strconv.Itoa(p.UID)
	}
	return fmt.Errorf("%s: %w", text, err)
}

// Starter starts the programs of services.
type Starter interface {
	// Start starts one process of a service. id tells it from its siblings. files are
	// its sockets, and last what it prints to if the program has Output; the caller closes
	// them afterwards.
	Start(service string, id int, files []*os.File) (*Process, error)
}

// Process is a started process.
type Process struct {
	PID       int
	signal    func(syscall.Signal) error // to its group
	done      chan struct{}
	status    int // set before done is closed
	successor bool
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Status is the exit status, or the negative number of the signal that ended the
// process. It is valid when Done is closed.
func (p *Process) Status() int { return p.status }

// Stop ends the process and waits for its end: TERM, and KILL after the grace.
func (p *Process) Stop(grace time.Duration) {
	select {
	case <-p.done:
		return
	default:
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	_ = p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// StatusText says in words how a process ended.
func StatusText(status int) string {
	if status < 0 {
		return "signal " + strings.ToLower(syscall.Signal(-status).String())
	}
	return "exit status " + strconv.Itoa(status)
}

// exitStatus is the status of an ended process.
func exitStatus(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return -int(w.Signal())
	}
	return s.ExitCode()
}

// table is a set of programs by their services.
type table map[string]*Program

func newTable(programs []Program) table {
	t := table{}
	for i := range programs {
		t[programs[i].Service] = &programs[i]
	}
	return t
}

func (t table) find(service string, id int) (*Program, error) {
	p := t[service]
	if p == nil {
		return nil, fmt.Errorf("no service %q", service)
	}
	if id < 0 || id >= p.Max {
		return nil, fmt.Errorf("service %s: process %d is beyond processes_max %d", service, id, p.Max)
	}
	return p, nil
}
