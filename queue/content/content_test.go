package content

import (
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestContentsBudget: content is given up oldest first when a server or newer content needs
// its memory, and what is given up, dropped or closed is counted no more.
func TestContentsBudget(t *testing.T) {
	memory := msg.NewMemory(1000)
	s := New(nil, nil, memory)
	var all []*Content
	held := func() (n int) {
		for _, b := range all {
			if b.Bytes() != nil {
				n++
			}
		}
		return n
	}
	accept := func(size int64, reserved *msg.Reservation) {
		all = append(all, s.Hold(smtp.ID{Counter: uint64(len(all))}, size, make([]byte, size), msg.Shape{}, reserved))
	}
	for range 9 {
		r := memory.Reserve()
		if !r.Take(100) {
			t.Fatal("there is no memory")
		}
		accept(100, r)
		r.Release() // as the server does when it has its answer
	}
	if memory.Used() != 900 || held() != 9 {
		t.Fatalf("%d bytes for %d contents", memory.Used(), held())
	}
	open := memory.Reserve()
	if !open.Take(300) || memory.Used() != 1000 || held() != 7 || all[1].Bytes() != nil || all[2].Bytes() == nil {
		t.Errorf("%d bytes, %d contents are held", memory.Used(), held())
	}
	accept(250, nil) // one of our own
	if memory.Used() != 950 || held() != 5 || all[9].Bytes() == nil {
		t.Errorf("%d bytes, %d contents are held", memory.Used(), held())
	}
	late := memory.Reserve()
	late.Take(50)
	late.Release() // the server has waited for too long
	accept(50, late)
	s.Drop(all[8].ta)
	s.Drop(all[0].ta) // it is given up already
	if memory.Used() != 900 || held() != 5 {
		t.Errorf("%d bytes, %d contents are held", memory.Used(), held())
	}

	// A restart of the queue: what it held is free, and what a session has is still taken.
	s.Close()
	s.Drop(all[9].ta)
	if memory.Used() != 300 {
		t.Errorf("%d bytes are taken after the end of the queue", memory.Used())
	}
	next := New(nil, nil, memory)
	if b := next.Hold(smtp.ID{Counter: 100}, 200, make([]byte, 200), msg.Shape{}, nil); b.Bytes() == nil {
		t.Error("there is room for the next queue's")
	}
	if open.Take(800) {
		t.Error("more is taken than there is")
	}
	open.Release()
	if memory.Used() > 200 {
		t.Errorf("%d bytes are taken", memory.Used())
	}
}
