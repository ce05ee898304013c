package store

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/vfs"
)

// isLocked recognises the failure to lock a store, for which Pebble has no value:
// by fcntl if another process has it, or by its own table if this one has.
func isLocked(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) && strings.Contains(err.Error(), "LOCK") ||
		strings.Contains(err.Error(), "lock held by current process")
}

// isPlainFileError recognises failures of the file system that are no damage.
func isPlainFileError(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) ||
		vfs.IsNoDescriptor(err) || errors.Is(err, syscall.EIO)
}

// IsCorrupt tells whether an error of a read says that a file of the store is damaged.
func IsCorrupt(err error) bool { return pebble.IsCorruptionError(err) }
