package migrate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Write writes files into a directory, which is made if it is not there (mode 0755). A file with
// passwords gets mode 0600, others 0644. One that exists is never written over unless force is set: then
// nothing is written at all, and the error names it. With force each file is replaced in one step.
func Write(dir string, files []File, force bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if !force {
		for _, f := range files {
			if _, err := os.Lstat(filepath.Join(dir, f.Name)); !errors.Is(err, os.ErrNotExist) {
				if err == nil {
					err = os.ErrExist
				}
				return fmt.Errorf("%s: %w; nothing was written (--force replaces it)", filepath.Join(dir, f.Name), err)
			}
		}
	}
	for _, f := range files {
		if err := writeFile(dir, f, force); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a file; with force under a new name, which it then moves to its own.
func writeFile(dir string, f File, force bool) error {
	mode := os.FileMode(0o644)
	if f.Secret {
		mode = 0o600
	}
	path := filepath.Join(dir, f.Name)
	name := path
	if force {
		name = path + ".new"
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = out.WriteString(f.Text)
	if e := out.Sync(); err == nil {
		err = e
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil || !force {
		return err
	}
	return os.Rename(name, path)
}
