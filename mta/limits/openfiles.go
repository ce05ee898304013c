package limits

import "syscall"

// OpenFiles raises the limit on open files to what is wanted: as far as the hard
// limit, which root may raise, too. It returns the limit, which may be less than wanted, or more.
func OpenFiles(wanted uint64) uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return wanted // nothing is known of a limit
	}
	if uint64(l.Cur) >= wanted {
		return uint64(l.Cur)
	}
	more := l
	setLimit(&more, wanted)
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more) == nil {
		return wanted
	}
	l.Cur = l.Max
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l) // the runtime has done that already
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return wanted
	}
	return uint64(l.Cur)
}
