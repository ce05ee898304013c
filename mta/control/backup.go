package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// silence is how long one who waits for a copy hears nothing before it gives up: a line comes each second.
const silence = time.Minute

// longAnswer writes the answer to a request that may last for hours. Its methods are not called at the same time.
type longAnswer struct {
	w     http.ResponseWriter
	begun bool // some line was written
}

// patience gives the next write its time, in the place of the one that the server gives the whole answer. The asker who does not read
// until then has gone.
func (l *longAnswer) patience() {
	_ = http.NewResponseController(l.w).SetWriteDeadline(time.Now().Add(silence)) // of what cannot do so the server bounds the time
}

// line writes one line at once. The first makes the answer one of lines, with status 200.
func (l *longAnswer) line(v any) {
	l.patience()
	if !l.begun {
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.begun = true
	}
	if json.NewEncoder(l.w).Encode(v) == nil { // the asker has gone otherwise, which ends the request
		_ = http.NewResponseController(l.w).Flush()
	}
}

// backup serves POST /backup.
func backup(b Backend, r *http.Request, w *longAnswer) {
	var q BackupQuestion
	if err := decode(r, &q); err != nil {
		answer(w.w, http.StatusBadRequest, apiError{Error: err.Error()})
		return
	}
	tell := func(BackupProgress) { w.patience() }
	if q.Progress {
		tell = func(p BackupProgress) { w.line(BackupLine{Progress: &p}) }
	}
	done, err := b.Backup(r.Context(), q, tell)
	w.patience()
	switch {
	case err != nil && w.begun:
		w.line(BackupLine{Err: err.Error()})
	case err != nil:
		answer(w.w, http.StatusServiceUnavailable, apiError{Error: err.Error()})
	case q.Progress:
		w.line(BackupLine{Report: &done})
	default:
		answer(w.w, http.StatusOK, done)
	}
}

// Backup makes a copy of the queue in a new directory. tell is called each second; nil: nobody wants to know. It lasts as long as meta1
// makes the copy: when ctx ends, meta1 removes what there is of it.
func (c *Client) Backup(ctx context.Context, q BackupQuestion, tell func(BackupProgress)) (done BackupReport, err error) {
	q.Progress = true
	body, err := json.Marshal(q)
	if err != nil {
		return done, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(silence, func() { cancel(fmt.Errorf("meta1 has said nothing for %v", silence)) })
	defer silent.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://meta1/backup", bytes.NewReader(body))
	if err != nil {
		return done, err
	}
	req.Header.Set("Content-Type", "application/json")
	long := http.Client{Transport: c.http.Transport} // without a limit for the whole answer
	r, err := long.Do(req)
	if err != nil {
		return done, c.unreachable(because(ctx, err))
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return done, c.refused(r)
	}
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		silent.Reset(silence)
		var l BackupLine
		switch err := json.Unmarshal(lines.Bytes(), &l); {
		case err != nil:
			return done, fmt.Errorf("reading the answer of meta1 at %s: %w", c.path, err)
		case l.Err != "":
			return done, fmt.Errorf("asking meta1 at %s: %s", c.path, l.Err)
		case l.Report != nil:
			return *l.Report, nil
		case l.Progress != nil && tell != nil:
			tell(*l.Progress)
		}
	}
	err = lines.Err()
	if err == nil {
		err = errors.New("meta1 ended before the copy was made")
	}
	return done, fmt.Errorf("reading the answer of meta1 at %s: %w", c.path, because(ctx, err))
}

// because is the reason for which a context ended, if that is what an error tells of.
func because(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) {
		return context.Cause(ctx)
	}
	return err
}
