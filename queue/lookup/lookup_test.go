package lookup

import (
	"fmt"
	"testing"
)

func all(int) bool { return true }

// begin begins all lookups that may be in progress.
func begin(q *Queue[int]) (list []*Batch[int]) {
	for b := q.Next(all); b != nil; b = q.Next(all) {
		list = append(list, b)
	}
	return list
}

func add(q *Queue[int], domain, sender string, n int) {
	p := q.Add(domain, sender)
	for i := range n {
		p.Add(i)
	}
}

// TestHangingDomains: a sender with very many domains whose lookups hang takes a quarter of
// those in progress, and so do three of them; a fourth sender waits for none of them.
func TestHangingDomains(t *testing.T) {
	q := New[int]()
	for s := range 3 {
		for d := range 1000 {
			add(&q, fmt.Sprintf("d%d.s%d.test", d, s), fmt.Sprint(s), 1)
		}
	}
	if n := len(begin(&q)); n != 3*mostSender {
		t.Fatalf("%d lookups of three senders", n)
	}
	add(&q, "other.test", "other", 1)
	if list := begin(&q); len(list) != 1 || list[0].Domain != "other.test" {
		t.Errorf("the other sender: %v", list)
	}
}

// TestDomain: one lookup finds out whether a domain answers, then there are several; of a large
// message no more than a part is in one batch while others wait.
func TestDomain(t *testing.T) {
	q := New[int]()
	add(&q, "d.test", "a", 100_000)
	add(&q, "d.test", "b", 1)
	list := begin(&q)
	if len(list) != 1 || len(list[0].Rcpts) != batchMax {
		t.Fatalf("%d lookups", len(list))
	}
	q.Done(list[0], true)
	if list = begin(&q); len(list) != 1 {
		t.Fatalf("%d lookups after one that hung", len(list))
	}
	q.Done(list[0], false)
	if n := len(begin(&q)); n != mostDomain {
		t.Errorf("%d lookups of a domain that answers, want %d", n, mostDomain)
	}
}

// TestTurns: messages take turns within a batch, and what is not wanted any more is left out.
func TestTurns(t *testing.T) {
	q := New[int]()
	add(&q, "d.test", "a", 60)
	add(&q, "d.test", "b", 10)
	b := q.Next(func(i int) bool { return i < 30 })
	if want := 30 + 10; len(b.Rcpts) != want || b.Rcpts[groupMax] != 0 {
		t.Errorf("%v", b.Rcpts)
	}
	q.Done(b, false)
	if b := q.Next(all); b != nil || len(q.domains)+len(q.senders) != 0 {
		t.Errorf("%v is left, %d domains, %d senders", b, len(q.domains), len(q.senders))
	}
}
