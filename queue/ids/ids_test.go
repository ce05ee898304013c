package ids

import (
	"errors"
	"testing"

	"meta1/mta/smtp"
)

// disk keeps what is reserved; full says that it can keep no more.
type disk struct {
	next uint64
	full error
}

func (d *disk) ReserveIDs(n uint64) (uint64, error) {
	if d.full != nil {
		return 0, d.full
	}
	first := d.next
	d.next += n
	return first, nil
}

// TestIDs: ids ascend, over restarts, too; an instance knows its own; and without room none is given twice.
func TestIDs(t *testing.T) {
	d := &disk{next: 7}
	g, err := New(d)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := g.Take(3)
	b, _ := g.Take(0)
	if a != (smtp.ID{Counter: 7, Process: 3}) || b.Counter != 8 || g.First() != 7 {
		t.Errorf("ids %v, %v, the first %d", a, b, g.First())
	}
	if !g.Granted(a) || !g.Granted(b) || g.Granted(smtp.ID{Counter: 6}) || g.Granted(smtp.ID{Counter: 9}) {
		t.Error("it does not know its own")
	}
	if err := g.Extend(); err != nil || d.next != 7+block {
		t.Errorf("a block too many: %v, %d", err, d.next)
	}
	later, err := New(d)
	if err != nil {
		t.Fatal(err)
	}
	if c, _ := later.Take(0); later.Granted(b) || c.Counter < b.Counter || g.Granted(c) {
		t.Errorf("after a restart %v follows %v", c, b)
	}

	g.next.Store(g.bound.Load() - 1) // the last one
	d.full = errors.New("no room")
	if err := g.Extend(); !errors.Is(err, d.full) {
		t.Errorf("extended without room: %v", err)
	}
	if _, err := g.Take(0); err != nil {
		t.Error(err)
	}
	if id, err := g.Take(0); !errors.Is(err, errNone) {
		t.Errorf("%v was not reserved: %v", id, err)
	}
	if _, err := New(d); !errors.Is(err, d.full) {
		t.Errorf("opened without room: %v", err)
	}
	d.full = nil
	if err := g.Extend(); err != nil || d.next != 7+3*block {
		t.Errorf("not extended: %v, %d", err, d.next)
	}
}
