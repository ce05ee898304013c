package account

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// emptyBoundingSet takes every capability out of the bounding set, for all threads, so that
// no program that we execute can have one. Who may not do that (a container whose root has
// few capabilities) is left with noNewPrivileges, which comes to the same.
func emptyBoundingSet() error {
	for c := uintptr(0); c < 64; c++ {
		err := landlocksys.AllThreadsPrctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPERM): // the kernel knows no more; see above
			return nil
		case err != nil:
			return fmt.Errorf("emptying the bounding set of capabilities: %w", err)
		}
	}
	return nil
}

// noNewPrivileges sees to it that executing a program gives no thread of ours more
// rights, whatever bits the file has.
func noNewPrivileges() error {
	if err := landlocksys.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	return nil
}

// landlockMin is the version of Landlock that can let files be moved between directories.
const landlockMin = 2

// LandlockPossible says why the option landlock cannot be obeyed, or nil.
func LandlockPossible() error {
	v, err := landlocksys.LandlockGetABIVersion()
	if errors.Is(err, unix.EPERM) {
		return errors.New("landlock is set, but this process may not use Landlock: something forbids the call landlock_create_ruleset, such as SystemCallFilter of a systemd unit or the seccomp profile of a container")
	}
	if err != nil || v < landlockMin {
		return errors.New("landlock is set, but this kernel has no Landlock that would do (5.19 and later, CONFIG_LSM with landlock)")
	}
	return nil
}

// LandlockTo lets this process, for good, execute nothing, and write nothing but what is
// below these directories. What the kernel is too old to forbid stays allowed.
func LandlockTo(dirs []string) error {
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("restricting what may be written: %s is not absolute", dir)
		}
	}
	err := landlock.V5.BestEffort().RestrictPaths(
		landlock.PathAccess(landlocksys.AccessFSReadFile|landlocksys.AccessFSReadDir, "/"),
		landlock.RWFiles(os.DevNull).IgnoreIfMissing(),
		landlock.RWDirs(dirs...).WithRefer().IgnoreIfMissing(),
	)
	if err != nil {
		return fmt.Errorf("restricting what may be written to %s: %w", strings.Join(dirs, ", "), err)
	}
	return nil
}
