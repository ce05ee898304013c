package mta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"meta1/mta/account"
	"meta1/mta/service"
	"meta1/mta/supervise"
	"meta1/mta/verify"
)

// Successor says how the process is started that takes the place of this one at an upgrade.
type Successor struct {
	// Program is the path by which the binary was started: another one may stand there by then. "" is none.
	Program string
	Args    []string // of this process, without its name
	Dir     string   // in which this process was started
	Env     []string // its environment, with handover.Variable and without what was meant for this process alone
}

// The programs of an upgrade, by the names under which the starter knows them; no section has such a name. The first two
// try the binary, the last is the new process.
const (
	upgradeVersion = "upgrade/version"
	upgradeCheck   = "upgrade/check"
	upgradeServe   = "upgrade/serve"
)

// successor are the programs of an upgrade, or the reason why there can be none. byRoot says that root will start them, on the
// request of an account that is not root: then nobody else may be able to choose what they are.
func (m *mta) successor(byRoot bool) (programs []service.Program, refusal string) {
	s := &m.setup.Successor
	switch {
	case s.Program == "":
		return nil, "this meta1 was not started by meta1 serve"
	case os.Getpid() == 1:
		return nil, "this is process 1 of a container, which ends with it: start a new container instead"
	case syscall.Access(s.Program, 1) != nil: // X_OK
		return nil, s.Program + " cannot be executed"
	}
	if byRoot {
		for _, path := range append([]string{s.Program}, m.result.Files...) {
			if err := verify.OnlyRoot(path); err != nil {
				return nil, fmt.Sprintf("root would start the new process, and others than root can change what that is: %v: restart meta1 instead", err)
			}
		}
	}
	for name, args := range map[string][]string{
		upgradeVersion: {"version"},
		upgradeCheck:   {"config", "check", "-f", m.setup.File},
		upgradeServe:   s.Args,
	} {
		programs = append(programs, service.Program{
			Service: name, Path: s.Program, Args: append([]string{s.Program}, args...), UID: -1, Dir: s.Dir, Env: s.Env, Max: 1,
			Successor: name == upgradeServe, Output: name != upgradeServe,
		})
	}
	return programs, ""
}

// monitorAccount is the account of a monitor that starts nothing but a successor; nil for ours.
func monitorAccount(a *account.Account) *syscall.Credential {
	if a == nil {
		return nil
	}
	groups := make([]uint32, 0, len(a.Groups))
	for _, g := range a.Groups {
		groups = append(groups, uint32(g))
	}
	return &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID), Groups: groups}
}

const (
	// versionTime is how long a new binary may take to tell its version, and outputMax how much of what
	// a program of an upgrade prints is told.
	versionTime = 10 * time.Second
	outputMax   = 4 << 10
	// outputTime is how long after its end what a program has printed is waited for.
	outputTime = time.Second
)

// try runs a program of an upgrade until its end, and returns what it prints, at most outputMax of it. Its
// error says what to do.
func (m *mta) try(ctx context.Context, name string, limit time.Duration) (string, error) {
	what := m.setup.Successor.Program + map[string]string{upgradeVersion: " version", upgradeCheck: " config check"}[name]
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	p, err := m.starter.Start(name, 0, []*os.File{w})
	_ = w.Close()
	if err != nil {
		return "", err
	}
	var text []byte
	reader := supervise.NewGroup(context.Background())
	reader.Go(func(context.Context) error {
		text, _ = io.ReadAll(io.LimitReader(r, outputMax))
		_, _ = io.Copy(io.Discard, r)
		return nil
	})
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s has not ended within %v", what, limit))
	defer cancel()
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Stop(0)
		err = context.Cause(ctx)
	}
	_ = r.SetReadDeadline(time.Now().Add(outputTime)) // something that it has started may hold the other end
	_ = reader.Wait()
	said := strings.TrimSpace(string(text))
	if err == nil && p.Status() != 0 {
		err = errors.New(strings.TrimSuffix(fmt.Sprintf("%s ended with %s: %s", what, service.StatusText(p.Status()), said), ": "))
	}
	return said, err
}

// tryBinary tries the binary that stands in the place of ours now, and the configuration with it. It returns
// the version.
func (m *mta) tryBinary(ctx context.Context, limit time.Duration) (version string, err error) {
	said, err := m.try(ctx, upgradeVersion, min(versionTime, limit))
	if err != nil {
		return "", err
	}
	version, ok := strings.CutPrefix(said, "meta1 ")
	if !ok {
		return "", fmt.Errorf("%s is no meta1: its version is %.80q", m.setup.Successor.Program, said)
	}
	version, _, _ = strings.Cut(version, "\n")
	_, err = m.try(ctx, upgradeCheck, limit)
	return version, err
}

// binaryStamp tells one binary from another that stands in its place.
type binaryStamp struct {
	info os.FileInfo // nil: it cannot be told
}

func stampOf(path string) binaryStamp {
	info, err := os.Stat(path)
	if err != nil {
		return binaryStamp{}
	}
	return binaryStamp{info}
}

// differs reports whether another binary stands at the path by now; one that cannot be found does.
func (b binaryStamp) differs(path string) bool {
	now := stampOf(path)
	return b.info == nil || now.info == nil || !os.SameFile(b.info, now.info) ||
		b.info.Size() != now.info.Size() || !b.info.ModTime().Equal(now.info.ModTime())
}
