package listen

import (
	"golang.org/x/sys/unix"
)

// give changes the owner of the file that was looked at, and of no other.
func give(s Socket, from int) error {
	fd, err := unix.Open(s.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := owned(st.Mode, uint64(st.Nlink), st.Uid, from); err != nil {
		return err
	}
	if s.has(st.Uid, st.Gid) {
		return nil
	}
	return unix.Fchownat(fd, "", s.UID, s.GID, unix.AT_EMPTY_PATH)
}
