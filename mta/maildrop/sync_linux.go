package maildrop

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncAll syncs the file system of a file, and with it the name that the file has got.
func syncAll(f *os.File) error { return unix.Syncfs(int(f.Fd())) }
