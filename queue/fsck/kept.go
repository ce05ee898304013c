package fsck

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"meta1/mta/store"
	"meta1/mta/store/salvage"
	"meta1/mta/vfs"
	"meta1/queue/records"
)

// openKept opens the damaged store that o.From names, which a start or a repair has kept.
func (r *run) openKept() (*salvage.Store, error) {
	dir := r.o.From
	if !vfs.Exists(r.o.FS, dir) {
		return nil, fmt.Errorf("there is no kept store %s", dir)
	}
	o := salvage.Options{Known: records.KnownKey}
	if when, ok := strings.CutPrefix(filepath.Clean(dir), r.st.dir); ok && r.st.logDir != "" {
		o.LogDir = r.st.logDir + when
	}
	kept, err := salvage.Open(r.o.FS, dir, o)
	if err != nil {
		return nil, err
	}
	so := store.Options{Name: records.Name, Version: records.Version}
	if err := so.CheckVersion(dir, kept); errors.Is(err, store.ErrVersion) {
		return nil, errors.Join(err, kept.Close())
	}
	return kept, nil
}

// bringBack makes the messages anew that a kept store has and the store does not, with the
// recipients that had not ended when it was kept. Of one that ended later only the logs
// know, or that its content file is gone.
func (r *run) bringBack(ctx context.Context, c *Check, w *writer) error {
	from := &Check{v: View{Store: r.kept}}
	return r.kept.Scan([]byte{byte(records.KindEnvelope)}, []byte{byte(records.KindEnvelope) + 1}, func(k, v []byte) (bool, error) {
		key, err := records.ParseKey(k)
		if err != nil {
			return true, nil
		}
		e, err := records.DecodeEnvelope(key.TA, v)
		if err != nil {
			return true, nil
		}
		open, err := r.openIn(c, from, e)
		if err != nil || len(open) == 0 {
			return true, err
		}
		content := messageKey(records.KindContent, e.TA)
		v, inline, err := r.kept.Get(content)
		switch {
		case err != nil:
			return false, err
		case inline:
			err = w.set(content, v)
		default:
			if _, ok, ferr := c.inFile(e.TA); ferr != nil || !ok {
				return true, ferr // its file is gone: it has ended
			}
		}
		if err != nil {
			return false, err
		}
		w.rebuilt += len(open)
		f := newFound(Repairable, "brought-back", "%d of %d recipients are in the kept store, and not in this one", len(open), len(e.Rcpts)).ta(e.TA)
		f.Done = "they are due now"
		err = errors.Join(w.envelope(e), w.due(e.TA, open, "it was brought back from a kept store"), w.commit(), ctx.Err())
		r.report(f.Finding)
		return err == nil, err
	})
}

// openIn are the recipients of a message in a kept store that are to be brought back.
func (r *run) openIn(c, from *Check, e records.Envelope) (open []int, err error) {
	known, err := records.HasMessage(c.v.Store, e.TA)
	if err != nil || known {
		return nil, err
	}
	m, err := from.message(e.TA)
	if err != nil {
		return nil, err
	}
	rs, err := from.rcpts(e.TA)
	for i := range e.Rcpts {
		ref := records.Ref{TA: e.TA, Index: i}
		if (rs.deferred[i] || m.fresh && !rs.ended[i]) && !r.past.hasEnded(ref) {
			open = append(open, i)
		}
	}
	return open, err
}
