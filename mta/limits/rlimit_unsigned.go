//go:build !freebsd && !dragonfly

package limits

import "syscall"

// setLimit sets the limit, and the hard one if that is lower.
func setLimit(l *syscall.Rlimit, to uint64) { l.Cur, l.Max = to, max(l.Max, to) }
