package maps

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// PasswdValue is the value of every entry of a passwd map: in the aliases map it
// marks a valid local address (README 4.3.2).
const PasswdValue = "local:"

// passwdCheck is how often the file is looked at.
const passwdCheck = time.Second

// Passwd is a map of type passwd (README 3.9.1): its keys are the login names of
// passwd(5). A changed file is noticed within a second of the next lookup. Accounts
// that come from elsewhere, such as LDAP, are not seen.
type Passwd struct {
	path          string
	caseSensitive bool
	users         atomic.Pointer[map[string]bool]

	mu      sync.Mutex // guards checked and stamp
	checked time.Time
	stamp   fileStamp
}

// fileStamp tells versions of a file apart.
type fileStamp struct {
	time time.Time
	size int64
}

// OpenPasswd reads the file at path; "" means /etc/passwd.
func OpenPasswd(path string, caseSensitive bool) (*Passwd, error) {
	if path == "" {
		path = "/etc/passwd"
	}
	m := &Passwd{path: path, caseSensitive: caseSensitive}
	if err := m.read(); err != nil {
		return nil, err
	}
	return m, nil
}

// Blocking implements Map.
func (m *Passwd) Blocking() bool { return false }

// Lookup implements Map.
func (m *Passwd) Lookup(_ context.Context, key string) (string, Result) {
	m.refresh(time.Now())
	if !m.caseSensitive {
		key = Lower(key)
	}
	if (*m.users.Load())[key] {
		return PasswdValue, OK
	}
	return "", NotFound
}

// refresh reads the file again if it has changed. If it cannot be read the accounts
// that are known stay.
func (m *Passwd) refresh(now time.Time) {
	if !m.mu.TryLock() {
		return // another lookup does it
	}
	defer m.mu.Unlock()
	if now.Sub(m.checked) < passwdCheck {
		return
	}
	m.checked = now
	if info, err := os.Stat(m.path); err == nil && (fileStamp{info.ModTime(), info.Size()}) != m.stamp {
		m.read()
	}
}

// read needs mu held, or a Passwd that nobody else has.
func (m *Passwd) read() error {
	f, err := OpenFile(m.path)
	if err != nil {
		return fmt.Errorf("opening map: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("opening map: %w", err)
	}
	users := map[string]bool{}
	err = readLines(f, m.path, func(line string) error {
		if name, _, ok := strings.Cut(line, ":"); ok && name != "" {
			if !m.caseSensitive {
				name = Lower(name)
			}
			users[name] = true
		}
		return nil // a line that is none of an account, such as + of NIS, is passed over
	})
	if err != nil {
		return err
	}
	m.stamp = fileStamp{info.ModTime(), info.Size()}
	m.users.Store(&users)
	return nil
}
