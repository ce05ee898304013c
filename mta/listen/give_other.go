//go:build unix && !linux

package listen

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// give changes the owner by path, because these systems can open no socket to hold on to
// it. So root does it only for its own sockets, in folders that nobody else may write.
func give(s Socket, from int) error {
	var st unix.Stat_t
	if err := unix.Lstat(s.Path, &st); err != nil {
		return err
	}
	if err := owned(uint32(st.Mode), uint64(st.Nlink), st.Uid, from); err != nil {
		return err
	}
	if s.has(st.Uid, st.Gid) {
		return nil
	}
	if from != os.Geteuid() {
		return errors.New("on this system a socket with another owner than meta1's account must be in a folder that only root may write")
	}
	return os.Lchown(s.Path, s.UID, s.GID)
}
