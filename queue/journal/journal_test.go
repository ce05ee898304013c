package journal

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/vfs/crashfs"
	"meta1/queue/records"
)

// desk is a journal on a disk in memory, and what it committed.
type desk struct {
	*Journal[int]
	t     *testing.T
	port  *msg.Port[msg.CommitQ, msg.CommitA]
	began time.Time
	done  []commit
	fails error
	ids   uint64
	delay time.Duration
	end   func() error
}

// commit is one commit: when, with how much mail and which steps.
type commit struct {
	at    time.Duration
	mail  int
	steps []int
}

const delay = 100 * time.Millisecond

func open(t *testing.T) *desk {
	t.Helper()
	fs := crashfs.FS(crashfs.New(), func() (free, total int64) { return 1 << 30, 1 << 30 }) // small, as its reserve is
	db, err := records.Open(fs, "store", store.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, delay: delay, port: msg.NewPort[msg.CommitQ, msg.CommitA](100), began: time.Now()}
	d.Journal = New(Config[int]{
		DB: db, TransactionsMax: func() int { return 100 }, Delay: func() time.Duration { return d.delay },
		Prepare: func() error { return nil }, Refuses: func(*msg.CommitQ) smtp.Reply { return smtp.Reply{} },
		Write: func(*records.Batch, int) error { return nil }, Knows: func(smtp.ID) (bool, error) { return true, nil },
		Check: func() error { return d.fails }, Now: time.Now,
		Done: func(c *Done[int]) {
			d.done = append(d.done, commit{time.Since(d.began), len(c.Mail), slices.Clone(c.Saves)})
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	commits, stop := d.port.Open()
	go func() { ended <- d.Run(ctx, commits) }()
	synctest.Wait()
	d.end = func() error {
		cancel()
		err := <-ended
		stop()
		return errors.Join(err, db.Close())
	}
	return d
}

func (d *desk) mail() *msg.CommitQ {
	d.ids++
	return &msg.CommitQ{Envelope: &msg.Envelope{TA: smtp.ID{Counter: d.ids}, Rcpts: make([]msg.Rcpt, 1)}, Inline: []byte("x"), Size: 1}
}

// alone commits one message.
func (d *desk) alone() {
	d.t.Helper()
	if a, err := d.port.Ask(context.Background(), *d.mail()); err != nil || !a.Reply.IsZero() {
		d.t.Fatalf("%v, %v", a.Reply, err)
	}
}

// TestCheckFails: a commit that does not count is no acceptance, and ends the journal.
func TestCheckFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.fails = errors.New("a disk that lies")
		a, err := d.port.Ask(context.Background(), *d.mail())
		if err != nil || a.Reply.Code != 451 {
			t.Errorf("%v, %v", a.Reply, err)
		}
		if err := d.end(); err == nil || err.Error() != "a disk that lies" || len(d.done) > 0 {
			t.Errorf("%v, %v", err, d.done)
		}
	})
}

// TestCompany: what nobody waits for shares the sync of the next message where one is expected, is
// written soon where not, and late when it does not come.
func TestCompany(t *testing.T) {
	const ms = time.Millisecond
	cases := []struct {
		name    string
		every   time.Duration // time between messages
		patient bool
		steps   int
		after   time.Duration // how long it waits, if no message comes any more
	}{
		{"no mail", 0, true, 1, hurry},
		{"mail seldom", 150 * ms, true, 1, hurry},
		{"mail now and then", 50 * ms, true, 1, delay},
		{"more mail", 10 * ms, true, 1, 20 * ms},
		{"much mail", ms / 2, true, 1, hurry},
		{"something goes on after it", 50 * ms, false, 1, hurry},
		{"many steps", 50 * ms, true, waitingMax, hurry},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := open(t)
				for i := 0; c.every > 0 && i < 40; i++ {
					d.alone()
					time.Sleep(c.every)
				}
				if c.every > 0 && c.patient && c.after > hurry { // with the next message
					d.Save(true, 7)
					time.Sleep(c.every / 2)
					d.alone()
					if last := d.done[len(d.done)-1]; last.mail != 1 || !slices.Equal(last.steps, []int{7}) {
						t.Errorf("%v, want a message and a step in one commit", last)
					}
				}
				began := time.Since(d.began)
				for i := range c.steps {
					d.Save(c.patient, i)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				last := d.done[len(d.done)-1]
				if waited := last.at - began; len(last.steps) != c.steps || waited < c.after || waited > c.after*5/4 {
					t.Errorf("%d steps after %v, want %d after %v", len(last.steps), waited, c.steps, c.after)
				}
				if err := d.end(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestHurry: a step that something waits for takes along those that have time, and comes not later for
// others behind it.
func TestHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		for range 40 {
			d.alone()
			time.Sleep(50 * time.Millisecond)
		}
		began := time.Since(d.began)
		d.Save(true, 1)
		time.Sleep(10 * time.Millisecond)
		d.Save(false, 2)
		for i := range 3 {
			time.Sleep(hurry / 4)
			d.Save(i == 1, 3+i)
		}
		time.Sleep(time.Second)
		if err := d.end(); err != nil {
			t.Error(err)
		}
		last := d.done[len(d.done)-1]
		if want := 10*time.Millisecond + hurry; !slices.Equal(last.steps, []int{1, 2, 3, 4, 5}) || last.at-began != want {
			t.Errorf("%v after %v, want all after %v", last.steps, last.at-began, want)
		}
	})
}

// TestEnd: what waits is written at the end.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.Save(true, 1)
		if err := d.end(); err != nil || len(d.done) != 1 || len(d.done[0].steps) != 1 {
			t.Errorf("%v, %v", err, d.done)
		}
	})
}

// TestCommitTakesLittle: a commit has little more content than it may, however many messages
// wait, and none is left out.
func TestCommitTakesLittle(t *testing.T) {
	const n, size = 200, 120_000
	commits := make(chan *Request, n)
	for range n {
		commits <- &Request{Q: msg.CommitQ{Inline: make([]byte, size)}}
	}
	for taken := 0; taken < n; {
		mail := drain(nil, commits, 1024)
		if sum := inlineOf(mail); sum == 0 || sum >= commitMax+size {
			t.Fatalf("%d bytes in one commit", sum)
		}
		taken += len(mail)
	}
}
