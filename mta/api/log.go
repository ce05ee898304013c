package api

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"meta1/mta/maillog"
)

const (
	// logMax bounds what is read of the end of one log file, in bytes, and logTime the time for all.
	logMax  = 64 << 20
	logTime = 10 * time.Second
	// storyMax bounds the lines that are kept of one message.
	storyMax = 10_000
)

// readLog calls emit for what the log files tell of a message: as far back as logMax reaches. What was put away
// by logrotate is for meta1 log.
func (a *API) readLog(ctx context.Context, ta string, emit func(*maillog.Line) error) (note string, err error) {
	names, err := a.deps.LogFiles()
	if err != nil {
		return "", err
	}
	var logs []io.Reader
	cut := false
	for _, name := range names {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // of a module that has logged nothing yet
		}
		if err != nil {
			return "", err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return "", err
		}
		if info.Size() > logMax {
			cut = true
			if _, err := f.Seek(-logMax, io.SeekEnd); err != nil {
				return "", err
			}
		}
		logs = append(logs, io.LimitReader(f, logMax))
	}
	ctx, cancel := context.WithTimeout(ctx, logTime)
	defer cancel()
	if err := maillog.Read(ctx, logs, maillog.NewStory(ta, emit).Add); err != nil {
		return "", err
	}
	if cut {
		note = "only the end of the log was read: meta1 log reads all"
	}
	return note, nil
}
