package mta

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// dropPrivileges makes this process run as the account, with all its threads and
// for good.
func dropPrivileges(a *account) error {
	if err := syscall.Setgroups(a.groups); err != nil {
		return fmt.Errorf("setting the groups of %s: %w", a.name, err)
	}
	if err := syscall.Setgid(a.gid); err != nil {
		return fmt.Errorf("changing to group %d: %w", a.gid, err)
	}
	if err := syscall.Setuid(a.uid); err != nil {
		return fmt.Errorf("changing to user %s: %w", a.name, err)
	}
	if os.Getuid() != a.uid || os.Geteuid() != a.uid || os.Getgid() != a.gid || os.Getegid() != a.gid {
		return fmt.Errorf("changing to user %s: the system says that it did, but we are %d", a.name, os.Geteuid())
	}
	if a.uid != 0 && syscall.Setuid(0) == nil {
		return errors.New("root's privileges could be taken back after they were dropped")
	}
	return nil
}
