//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// group is a control group (cgroups v2) that holds all processes of an MTA: their
// processor time, which outlives them, their memory, and their end.
type group struct {
	path string
	dir  *os.File
}

// newGroup makes a group. It needs no controller, only that cgroup2 is mounted somewhere.
func newGroup() (*group, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "cgroup2" {
			continue
		}
		path := filepath.Join(f[1], fmt.Sprintf("meta1-bench-%d", os.Getpid()))
		if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("making a control group: %w", err)
		}
		dir, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		return &group{path, dir}, nil
	}
	return nil, errors.New("cgroup2 is not mounted: mount -t cgroup2 none /mnt")
}

// start starts a program in the group.
func (g *group) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(g.dir.Fd())
	return cmd.Start()
}

// processor is the processor time that all processes of the group have used, those that
// have ended included.
func (g *group) processor() time.Duration {
	text, _ := os.ReadFile(filepath.Join(g.path, "cpu.stat"))
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return time.Duration(n) * time.Microsecond
		}
	}
	return 0
}

// ownProcessor is the processor time that this process has used: source and sink, and the
// looking after the memory of the MTA.
func ownProcessor() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil { // it cannot fail
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (g *group) processes() []string {
	text, _ := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
	return strings.Fields(string(text))
}

// watch samples the memory of the group until the function that it returns is called,
// which gives the most in MiB: the proportional share (Pss) of all processes.
func (g *group) watch() (stop func() float64) {
	end, most := make(chan struct{}), make(chan float64)
	go func() {
		highest := 0.0
		for tick := time.NewTicker(250 * time.Millisecond); ; {
			highest = max(highest, g.memory())
			select {
			case <-tick.C:
			case <-end:
				tick.Stop()
				most <- highest
				return
			}
		}
	}()
	return func() float64 { close(end); return <-most }
}

func (g *group) memory() (mib float64) {
	for _, pid := range g.processes() {
		text, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
		if err != nil {
			continue // it has ended
		}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			if f := strings.Fields(lines.Text()); len(f) > 1 && f[0] == "Pss:" {
				kib, _ := strconv.ParseFloat(f[1], 64)
				mib += kib / 1024
			}
		}
	}
	return mib
}

// end ends all processes of the group and removes it.
func (g *group) end() {
	for range 1000 {
		_ = os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0)
		for _, pid := range g.processes() { // kernels before 5.14 know no cgroup.kill
			if n, err := strconv.Atoi(pid); err == nil {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		}
		if os.Remove(g.path) == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = g.dir.Close()
}
