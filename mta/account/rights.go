package account

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Do calls f with the rights of the account, and takes root's rights back when it has
// returned. What is below a folder that the account may write is opened, made and removed
// so: as root we could be led to anything by a link. A nil account is ours already.
func (a *Account) Do(f func() error) error {
	if a == nil || a.UID == os.Geteuid() {
		return f()
	}
	groups, err := syscall.Getgroups()
	if err != nil {
		return fmt.Errorf("finding our groups: %w", err)
	}
	gid := os.Getegid()
	err = errors.Join(syscall.Setgroups(a.Groups), syscall.Setregid(-1, a.GID))
	if err == nil {
		err = syscall.Setreuid(-1, a.UID)
	}
	if err == nil {
		err = f()
	} else {
		err = fmt.Errorf("taking the rights of user %s: %w", a.Name, err)
	}
	// The user first: only root may set the others.
	if back := errors.Join(syscall.Setreuid(-1, 0), syscall.Setregid(-1, gid), syscall.Setgroups(groups)); back != nil {
		err = errors.Join(err, fmt.Errorf("taking root's rights back: %w", back))
	}
	return err
}

// Become makes this process run as the account, with all its threads and
// for good. No program that it executes can have more rights, even one with a setuid bit.
func (a *Account) Become() error {
	if a.UID != 0 {
		if err := emptyBoundingSet(); err != nil { // only root may
			return err
		}
		if err := noNewPrivileges(); err != nil {
			return err
		}
	}
	if err := syscall.Setgroups(a.Groups); err != nil {
		return fmt.Errorf("setting the groups of %s: %w", a.Name, err)
	}
	if err := syscall.Setgid(a.GID); err != nil {
		return fmt.Errorf("changing to group %d: %w", a.GID, err)
	}
	if err := syscall.Setuid(a.UID); err != nil {
		return fmt.Errorf("changing to user %s: %w", a.Name, err)
	}
	if os.Getuid() != a.UID || os.Geteuid() != a.UID || os.Getgid() != a.GID || os.Getegid() != a.GID {
		return fmt.Errorf("changing to user %s: the system says that it did, but we are %d", a.Name, os.Geteuid())
	}
	if a.UID != 0 && syscall.Setuid(0) == nil {
		return errors.New("root's privileges could be taken back after they were dropped")
	}
	return nil
}
