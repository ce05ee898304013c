//go:build unix && !linux && !freebsd

package service

import "syscall"

// dieWithParent can ask for nothing here: the system has no parent death signal.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
