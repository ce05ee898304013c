// Package journal is the one writer of the queue's store: group commit. It gathers what all
// sessions and the core want written and makes it durable by one sync. While a sync runs, the next
// batch gathers, so the syncs per message fall as the load rises.
//
// A transaction is committed at once; on a slow disk it waits a moment for company. What
// nobody waits for, such as the end of a delivery, waits for the next transaction, as long as one
// is expected within Config.Delay (Save).
package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/records"
)

// Config is what a journal stands on. S is a step of the core, which is written as a whole or not
// at all.
type Config[S any] struct {
	DB *records.DB
	// TransactionsMax is how many transactions a commit has, at most; Delay is how long a step may wait to
	// share a sync, at most. They may answer anew at any time.
	TransactionsMax func() int
	Delay           func() time.Duration

	// Prepare is called before each commit.
	Prepare func() error
	// Refuses is the reply to a transaction that is not accepted, or zero.
	Refuses func(*msg.CommitQ) smtp.Reply
	// Write puts a step into a batch.
	Write func(*records.Batch, S) error
	// Knows tells whether the store has a message.
	Knows func(smtp.ID) (bool, error)
	// Check is called after each commit: an error means that it does not count.
	Check func() error
	// Done is told of each commit before anybody is answered: a listing after the 250 shows the
	// message. What it gets is valid during the call.
	Done func(*Done[S])
	// Now is the queue's clock.
	Now func() time.Time
}

// Done is what a commit made durable.
type Done[S any] struct {
	Mail    []*Request // in the order of their commit
	Saves   []S        // in the order of Save
	Spilled []smtp.ID  // of Journal.Spilled
	Gone    []smtp.ID  // those of Spilled that had been forgotten: nobody needs their files
	Size    int64      // bytes written
	Took    time.Duration
}

// Journal writes. Run must run while it is used.
type Journal[S any] struct {
	cfg Config[S]

	// What follows is Run's.
	lastSync  time.Duration // how long the last commit took
	lastBatch int           // transactions in the last commit that had any
	lastMail  time.Time     // when that began
	gap       time.Duration // time between such commits, the last ones above all
	spare     []S

	due *time.Timer // when what waits is committed in any case

	mu      sync.Mutex // guards what follows
	saves   []S
	spilled []smtp.ID
	hurried bool          // what waits has no time for company
	hurry   time.Duration // how long steps wait that cannot wait for it
	patient time.Duration // and the others
}

// Request is a transaction that is to be committed.
type Request = msg.Request[msg.CommitQ, msg.CommitA]

// New makes a journal.
func New[S any](cfg Config[S]) *Journal[S] {
	j := &Journal[S]{cfg: cfg, due: time.NewTimer(time.Hour)}
	j.due.Stop()
	j.gap = gapMax(cfg.Delay())
	j.expect()
	return j
}

// Run commits until ctx ends, and then once more what is left.
func (j *Journal[S]) Run(ctx context.Context, commits <-chan *Request) error {
	defer j.due.Stop()
	var mail []*Request
	for last := false; !last; {
		clear(mail)
		mail = mail[:0]
		select {
		case r := <-commits:
			mail = j.awaitMore(ctx, append(mail, r), commits)
		case <-j.due.C:
		case <-ctx.Done():
			last = true
			mail = drain(mail, commits, j.cfg.TransactionsMax())
		}
		if err := j.commit(mail); err != nil {
			return err
		}
	}
	return nil
}

// commitMax is how much content a commit has, in bytes, before it takes no more: the store has
// it in memory several times, and ends a log for each batch that is half as large as one.
const commitMax = 2 << 20

// recordLen is about what a message takes in a batch beside its content, and a step, in bytes.
const recordLen = 512

// slowSync is the time of a sync from which on it pays to wait for more.
const slowSync = time.Millisecond

// enough is how many transactions a commit should have. On a slow disk those sessions
// that were answered by the last commit are about to come again: without them, one message would make
// all others wait for a sync of its own.
func (j *Journal[S]) enough() int {
	if j.lastSync < slowSync {
		return 1
	}
	return min(j.lastBatch*3/4, j.cfg.TransactionsMax())
}

// awaitMore gathers what has come, and waits a part of a sync's time until that is enough.
func (j *Journal[S]) awaitMore(ctx context.Context, mail []*Request, commits <-chan *Request) []*Request {
	mail = drain(mail, commits, j.cfg.TransactionsMax())
	enough := j.enough()
	if len(mail) >= enough {
		return mail
	}
	timer := time.NewTimer(min(j.lastSync/4, j.cfg.Delay()))
	defer timer.Stop()
	for len(mail) < enough && inlineOf(mail) < commitMax {
		select {
		case r := <-commits:
			mail = drain(append(mail, r), commits, j.cfg.TransactionsMax())
		case <-timer.C:
			return mail
		case <-ctx.Done():
			return mail
		}
	}
	return mail
}

func drain(mail []*Request, commits <-chan *Request, most int) []*Request {
	for size := inlineOf(mail); len(mail) < most && size < commitMax; {
		select {
		case r := <-commits:
			mail = append(mail, r)
			size += len(r.Q.Inline)
		default:
			return mail
		}
	}
	return mail
}

// inlineOf is how much content the transactions bring into their commit, in bytes.
func inlineOf(mail []*Request) (n int) {
	for _, m := range mail {
		n += len(m.Q.Inline)
	}
	return n
}

// commit writes one batch with all that waits, tells the queue and answers the transactions.
func (j *Journal[S]) commit(mail []*Request) error {
	d := &Done[S]{}
	d.Saves, d.Spilled = j.take()
	if len(mail)+len(d.Saves)+len(d.Spilled) == 0 {
		return nil
	}
	if err := j.cfg.Prepare(); err != nil {
		return err
	}
	b := j.cfg.DB.NewBatchOf(inlineOf(mail) + recordLen*(len(mail)+len(d.Saves)))
	err := errors.Join(j.fill(b, mail, d), j.fillSpilled(b, d))
	if err != nil {
		b.Discard()
		return fmt.Errorf("filling a batch for the store: %w", err)
	}
	d.Size = int64(b.Len())
	start := time.Now()
	err = j.cfg.DB.Commit(b)
	if err == nil {
		err = j.cfg.Check()
	}
	if err != nil {
		for _, r := range d.Mail {
			r.Answer(msg.CommitA{Reply: smtp.NewReply(451, "4.3.0", "cannot store the message")})
		}
		return err
	}
	d.Took = time.Since(start)
	j.learn(start, d)
	j.cfg.Done(d)
	for _, r := range d.Mail {
		r.Answer(msg.CommitA{})
	}
	clear(d.Saves)
	j.spare = d.Saves
	return nil
}

// fill puts transactions and steps into the batch. Transactions that are refused are answered
// at once.
func (j *Journal[S]) fill(b *records.Batch, mail []*Request, d *Done[S]) (err error) {
	d.Mail = mail[:0]
	for _, r := range mail {
		if reply := j.cfg.Refuses(&r.Q); !reply.IsZero() {
			r.Answer(msg.CommitA{Reply: reply})
			continue
		}
		if q := &r.Q; q.Hold != "" {
			err = b.AcceptHeld(q.Envelope, q.Size, q.Inline, j.cfg.Now(), q.Hold)
		} else {
			err = b.Accept(q.Envelope, q.Size, q.Inline)
		}
		if err != nil {
			return err
		}
		d.Mail = append(d.Mail, r)
	}
	for _, s := range d.Saves {
		if err := j.cfg.Write(b, s); err != nil {
			return err
		}
	}
	return nil
}

// fillSpilled gives up the store's copy of content that has become a file. A message that is
// forgotten in this batch, or later, has its file unlinked by the core.
func (j *Journal[S]) fillSpilled(b *records.Batch, d *Done[S]) error {
	for _, ta := range d.Spilled {
		known, err := j.cfg.Knows(ta)
		if err != nil {
			return err
		}
		if !known {
			d.Gone = append(d.Gone, ta)
		} else if err := b.Spilled(ta); err != nil {
			return err
		}
	}
	return nil
}
