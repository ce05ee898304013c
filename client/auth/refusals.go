package auth

import (
	"sync"
	"time"

	"meta1/mta/smtp"
)

// refusalsMax bounds what is remembered.
const refusalsMax = 1000

// Refusals remembers which hosts have refused which login, so that a wrong password is not
// tried for each message in the queue: many hosts lock an account for that. Any goroutine may
// use it. The zero Refusals is ready.
type Refusals struct {
	mu    sync.Mutex // guards known
	known map[refusalKey]Refusal
}

type refusalKey struct {
	host  string
	login Login
	token Secret
}

// Refusal is one of them.
type Refusal struct {
	At, Until time.Time
	Reply     smtp.Reply
}

// Note remembers a refusal. token is that of a login by token, "" otherwise: another one in
// the file may be tried at once.
func (r *Refusals) Note(host string, l Login, token Secret, f Refusal) {
	if !f.Until.After(f.At) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[refusalKey]Refusal{}
	}
	if len(r.known) >= refusalsMax {
		for k, old := range r.known {
			if !old.Until.After(f.At) {
				delete(r.known, k)
			}
		}
	}
	if len(r.known) < refusalsMax {
		r.known[refusalKey{host, l, token}] = f
	}
}

// Find returns a refusal that still holds.
func (r *Refusals) Find(host string, l Login, token Secret, now time.Time) (Refusal, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := refusalKey{host, l, token}
	f, ok := r.known[key]
	if ok && !f.Until.After(now) {
		delete(r.known, key)
		return Refusal{}, false
	}
	return f, ok
}
