package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
	"meta1/queue/defedb"
	"meta1/queue/vfs"
)

// spillers is how many content files are written and synced at once.
const spillers = 16

// deferrer is the one writer of the DEFEDB and of content files that outlive their
// first attempt. It takes what the loop asks for in batches, so that many
// recipients share one sync.
type deferrer struct {
	q   *Queue
	ops *mailbox[deferOp]
}

type deferKind uint8

const (
	deferPut    deferKind = iota // the recipient waits: content to a file, state to the DEFEDB
	deferEnd                     // the recipient has ended; forget: it was the last
	deferForget                  // the transaction has no recipient any more
	deferSpill                   // the content becomes a file, to free memory
	deferUnlink                  // the content file goes
)

// deferOp is one thing to do. It holds copies, because the loop goes on meanwhile.
type deferOp struct {
	kind   deferKind
	ta     smtp.ID
	t      *transaction // deferPut, deferSpill: env, size and spill are read
	body   msg.Body     // deferPut, deferSpill: the content as it is now
	living bits         // deferPut, deferSpill: recipients that have not ended
	r      *rcpt        // deferPut, deferEnd: passed back in the event
	state  defedb.State // deferPut: the new state; deferEnd: index
	old    time.Time    // next time to try in the DEFEDB, or zero
	unlink bool         // deferForget: the content file goes too
}

func (d *deferrer) run(ctx context.Context) error {
	var spare []deferOp
	for {
		select {
		case <-ctx.Done():
			return d.do(context.WithoutCancel(ctx), d.ops.take(nil))
		case <-d.ops.ready:
		}
		ops := d.ops.take(spare)
		if err := d.do(ctx, ops); err != nil {
			return err
		}
		spare = ops
	}
}

// do works through a batch: content files first, then the DEFEDB, then what is to
// be removed.
func (d *deferrer) do(ctx context.Context, ops []deferOp) error {
	if len(ops) == 0 {
		return nil
	}
	failed := d.spillAll(ctx, ops)
	if err := d.commit(ops, failed); err != nil {
		return err
	}
	ev := &deferredEvent{}
	for i := range ops {
		op := &ops[i]
		switch op.kind {
		case deferPut:
			ev.put = append(ev.put, putResult{r: op.r, state: op.state, err: failed[op.t]})
		case deferSpill:
			ev.spilled = append(ev.spilled, spillResult{t: op.t, err: failed[op.t]})
		case deferEnd:
			ev.ended = append(ev.ended, op.r)
		case deferForget:
			if op.unlink {
				d.unlink(op.ta)
			}
		case deferUnlink:
			d.unlink(op.ta)
		}
	}
	d.q.events.put(ev)
	return nil
}

func (d *deferrer) unlink(ta smtp.ID) {
	if err := d.q.cdb.Remove(ta); err != nil {
		d.q.log.Error("cannot remove content", "ss_ta", ta.String(), "error", err)
	}
}

// spillAll writes the content files that are missing and returns what failed.
func (d *deferrer) spillAll(ctx context.Context, ops []deferOp) map[*transaction]error {
	todo := map[*transaction]*deferOp{}
	for i := range ops {
		if op := &ops[i]; (op.kind == deferPut || op.kind == deferSpill) && !op.t.spill.file {
			todo[op.t] = op
		}
	}
	if len(todo) == 0 {
		return nil
	}
	type job struct {
		op  *deferOp
		err error
	}
	jobs := make(chan *job, len(todo))
	all := make([]*job, 0, len(todo))
	for _, op := range todo {
		j := &job{op: op}
		all = append(all, j)
		jobs <- j
	}
	close(jobs)
	g := supervise.NewGroup(ctx)
	for range min(spillers, len(todo)) {
		g.Go(func(context.Context) error {
			for j := range jobs {
				j.err = d.spill(j.op)
			}
			return nil
		})
	}
	err := g.Wait()
	failed := map[*transaction]error{}
	for _, j := range all {
		if j.err = errors.Join(j.err, err); j.err == nil {
			j.op.t.spill.file = true
			continue
		}
		failed[j.op.t] = j.err
		if vfs.IsFull(j.err) {
			d.q.space.full()
		}
		d.q.log.Error("cannot write content to a file; it stays where it is", "ss_ta", j.op.ta.String(), "error", j.err)
	}
	return failed
}

// spill writes one content file durably. A file that is there already is a rest of
// an attempt that failed, and is replaced.
func (d *deferrer) spill(op *deferOp) error {
	ta, env := op.ta, op.t.env
	w, err := d.q.cdb.Create(ta)
	if errors.Is(err, fs.ErrExist) {
		// If the DEFEDB has the transaction, the file is whole and must stay.
		if deferred, err := d.q.defedb.HasRcpts(ta); err != nil || deferred {
			return err
		}
		if err := d.q.cdb.Remove(ta); err != nil {
			return err
		}
		w, err = d.q.cdb.Create(ta)
	}
	if err != nil {
		return err
	}
	defer w.Abort() // nothing after CommitRest
	if err := writeBody(w, op.body); err != nil {
		return err
	}
	return w.CommitRest(env, op.living.missing(len(env.Rcpts)))
}

// writeBody copies a whole content.
func writeBody(w io.Writer, body msg.Body) error {
	if b := body.Bytes(); b != nil {
		_, err := w.Write(b)
		return err
	}
	r, err := body.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if n, err := io.Copy(w, r); err != nil || n != body.Size() {
		return errors.Join(err, fmt.Errorf("copied %d bytes of %d", n, body.Size()))
	}
	return nil
}

// commit writes the batch to the DEFEDB.
func (d *deferrer) commit(ops []deferOp, failed map[*transaction]error) error {
	b := d.q.defedb.NewBatch()
	var put []*transaction
	changes := 0
	for i := range ops {
		op := &ops[i]
		var err error
		switch op.kind {
		case deferPut:
			if failed[op.t] != nil {
				continue
			}
			if !op.t.spill.ta {
				err = b.PutTA(op.t.env, op.t.size)
				op.t.spill.ta = true
				put = append(put, op.t)
			}
			err = errors.Join(err, b.Put(&op.state, op.old))
		case deferEnd:
			err = b.End(op.ta, op.state.Index, op.old)
		case deferForget:
			err = b.Forget(op.ta)
		default:
			continue
		}
		if err != nil {
			b.Discard()
			return fmt.Errorf("filling a batch for the DEFEDB: %w", err)
		}
		changes++
	}
	if changes == 0 {
		b.Discard()
		return nil
	}
	if err := d.q.defedb.Commit(b); err != nil {
		for _, t := range put {
			t.spill.ta = false
		}
		return err
	}
	d.q.log.LogAttrs(context.Background(), slog.LevelDebug, "deferred envelopes written", slog.Int("changes", changes))
	return nil
}
