package mta

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"

	"meta1/confparse"
	"meta1/mta/account"
	"meta1/mta/settings"
	"meta1/mta/tlsconf"
	"meta1/mta/verify"
)

// tlsFiles reads what sections tls and DKIM_signing, and auth of smtpc, name with the rights of the account that serves. What that
// may not read, a private key of mode 0600 for example, is read with root's rights if root is
// there: this process before it drops them, later the monitor.
type tlsFiles struct {
	account *account.Account // whose rights to take; nil for those of this process
	// asRoot reads a file with root's rights; nil if nobody has them.
	asRoot func(path string, known tlsconf.Stamp) ([]byte, tlsconf.Stamp, error)
	needed atomic.Bool // asRoot was called
}

// Read is that of tlsconf.Files.
func (f *tlsFiles) Read(path string, known tlsconf.Stamp) (content []byte, now tlsconf.Stamp, err error) {
	err = f.account.Do(func() (err error) {
		content, now, err = tlsconf.OS{}.Read(path, known)
		return err
	})
	switch {
	case !errors.Is(err, fs.ErrPermission):
		return content, now, err
	case f.asRoot == nil && f.account != nil:
		return nil, "", &fs.PathError{Op: "open", Path: path, Err: errNoRoot}
	case f.asRoot == nil:
		return nil, "", &fs.PathError{Op: "open", Path: path, Err: errNeverRoot}
	}
	f.needed.Store(true)
	return f.asRoot(path, known)
}

// List is that of tlsconf.Files. Directories the account must be able to read itself.
func (f *tlsFiles) List(dir string) (names []string, err error) {
	err = f.account.Do(func() (err error) {
		names, err = tlsconf.OS{}.List(dir)
		return err
	})
	return names, err
}

// What is told of a file that the account may not read if nobody can help.
var (
	errNoRoot    = fmt.Errorf("%w, and no process of meta1 has root's rights any more: restart it", fs.ErrPermission)
	errNeverRoot = fmt.Errorf("%w: started as root, meta1 would read it", fs.ErrPermission)
)

// errNotRoots says that the configuration is not root's alone.
var errNotRoots = errors.New("only root may read it, and what root reads for meta1 only root may choose")

// ReadAsRoot reads, as root, a file that a section tls or DKIM_signing, or auth of smtpc, of a configuration names, for the
// account that serves. Since the account must not be able to have root read just any file, nobody
// but root may be able to change the configuration, or to put another file in the place of this
// one: no folder on the way to it, through symbolic links too, may be writable by others. The
// configuration is read anew each time: a reload may name new files. Its mistakes are not told,
// since they could quote a file.
func ReadAsRoot(config, path string, known tlsconf.Stamp) (content []byte, now tlsconf.Stamp, err error) {
	c, result, err := settings.Load(config, confparse.LoadOptions{})
	for _, file := range result.Files {
		if err := verify.OnlyRoot(file); err != nil {
			return nil, "", fmt.Errorf("%s: %w: %w", path, errNotRoots, err)
		}
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s: only root may read it, and the configuration has a mistake", path)
	}
	return readAsRoot(c, path, known)
}

// ReadForServer is ReadAsRoot as the monitor calls it.
func ReadForServer(config, path, known string) (content []byte, now string, err error) {
	content, stamp, err := ReadAsRoot(config, path, tlsconf.Stamp(known))
	return content, string(stamp), err
}

// readAsRoot is ReadAsRoot for a configuration that only root may write.
func readAsRoot(c *Config, path string, known tlsconf.Stamp) (content []byte, now tlsconf.Stamp, err error) {
	sealing := slices.ContainsFunc(c.ARCSections(), func(s settings.ARCSection) bool { k := s.Config.Keys(); return slices.Contains(k.Files(), path) })
	named := sealing || c.Resolver.SRS.Present && c.Resolver.SRS.SecretFile == path ||
		slices.ContainsFunc(c.TLSSections(), func(s settings.TLSSection) bool { return slices.Contains(s.Section.Files(), path) }) ||
		slices.ContainsFunc(c.Logins(), func(s settings.LoginSection) bool { return s.Auth.TokenFile == path }) ||
		path == c.Control.HTTP.TokenFile || path == c.Control.HTTP.ReadTokenFile ||
		slices.ContainsFunc(c.DKIMSections(), func(s settings.DKIMSection) bool { return slices.Contains(s.Config.Files(), path) })
	if !named {
		return nil, "", fmt.Errorf("%s: only root may read it, and no section that may name such a file does", path)
	}
	if err := verify.OnlyRoot(path); err != nil {
		return nil, "", fmt.Errorf("%s: %w: %w", path, errNotRoots, err)
	}
	return tlsconf.OS{}.Read(path, known)
}

// filesFor reads as the account would that serves, before the privileges are dropped: with
// root's help if we are root, and as we are otherwise.
func filesFor(c *Config, a *account.Account, result *confparse.Result) *tlsFiles {
	f := &tlsFiles{}
	if os.Geteuid() == 0 && a != nil {
		f.account = a
		f.asRoot = func(path string, known tlsconf.Stamp) ([]byte, tlsconf.Stamp, error) {
			return ReadAsRoot(result.File, path, known)
		}
	}
	return f
}
