//go:build linux || freebsd

package service

import "syscall"

// dieWithParent asks the system to kill the process when we die. The signal is bound
// to the thread that starts the process; Go keeps its threads to the end.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
