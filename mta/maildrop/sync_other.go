//go:build !linux

package maildrop

import "os"

// syncAll syncs the file. Whether its name is then on the disk is for the file system to say.
func syncAll(f *os.File) error { return f.Sync() }
