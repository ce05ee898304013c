package logfmt

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// writeLarge hands a packet that is too large for a datagram to systemd's journal: as a file in memory that nobody
// can change any more, whose descriptor is sent without a byte
// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL).
func writeLarge(conn *net.UnixConn, packet []byte) error {
	fd, err := unix.MemfdCreate("meta1-log", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("making a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "meta1-log")
	defer f.Close()
	if _, err := f.Write(packet); err != nil {
		return fmt.Errorf("writing a file in memory: %w", err)
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("sealing a file in memory: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var send error
	err = raw.Write(func(s uintptr) bool { // net refuses to send descriptors alone
		send = unix.Sendmsg(int(s), nil, unix.UnixRights(int(f.Fd())), nil, unix.MSG_NOSIGNAL)
		return send != unix.EAGAIN
	})
	if err == nil {
		err = send
	}
	return err
}
