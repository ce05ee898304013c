package msg

import (
	"sync"
	"testing"
)

// TestMemory: no more is taken than there is, and all comes back, whoever gives it back.
func TestMemory(t *testing.T) {
	const most = 1000
	m := NewMemory(most)
	var held int64 // by QMGR, as much as it was ever told
	var mu sync.Mutex
	m.OnShort(func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		n = min(n, held)
		held -= n
		m.Give(n)
	})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			for j := range 500 {
				r := m.Reserve()
				for k := int64(1); r.Take(k * 7); k++ {
					if u := m.Used(); u > most {
						t.Errorf("%d of %d bytes are taken", u, most)
					}
				}
				if (i+j)%3 == 0 {
					mu.Lock()
					held += r.TakeOver()
					mu.Unlock()
				}
				r.Release()
				r.Release() // the second time there is nothing
			}
		})
	}
	all.Wait()
	if m.Used() != held {
		t.Errorf("%d bytes are taken, and %d are held", m.Used(), held)
	}
	if r := m.Reserve(); !r.Take(most) || held != 0 {
		t.Errorf("what is held does not make room: %d bytes of it are left", held)
	} else if r.Take(1) || m.Over() != 0 {
		t.Errorf("taken %d bytes too many", m.Over())
	}
}

// TestMemoryTakenOver: what QMGR has taken over is not given back by the server as well, and
// the other way round.
func TestMemoryTakenOver(t *testing.T) {
	m := NewMemory(100)
	r := m.Reserve()
	r.Take(60)
	r.Give(10)
	if n := r.TakeOver(); n != 50 {
		t.Errorf("took %d bytes over", n)
	}
	r.Release()
	if m.Used() != 50 {
		t.Errorf("%d bytes are taken", m.Used())
	}
	late := m.Reserve()
	late.Take(20)
	late.Release()
	if n := late.TakeOver(); n != 0 || m.Used() != 50 {
		t.Errorf("took %d bytes over that were given back", n)
	}
	if n := (*Reservation)(nil).TakeOver(); n != 0 {
		t.Errorf("nothing is %d bytes", n)
	}
}
