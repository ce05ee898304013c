package crashfs

import (
	"fmt"
	"iter"
	"math/rand/v2"
)

// Kind is the kind of a change.
type Kind string

// The kinds of changes.
const (
	Create Kind = "create" // also of a directory, and of a second name
	Remove Kind = "remove"
	Rename Kind = "rename" // within a directory; to another one it is Create and Remove
	Write  Kind = "write"
)

// Change is a change that is not durable.
type Change struct {
	Kind Kind
	Path string // when it was made
	To   string // the new path, of a rename
	Page int    // of a write: which page of 4096 bytes, from 0 on
}

// String is the change in words.
func (c Change) String() string {
	switch c.Kind {
	case Rename:
		return fmt.Sprintf("rename %s to %s", c.Path, c.To)
	case Write:
		return fmt.Sprintf("write %s page %d", c.Path, c.Page)
	}
	return string(c.Kind) + " " + c.Path
}

// Chooser says for each change that is not durable, in the order in which they were
// made, whether it survives. What it leaves out does not.
type Chooser func(pending []Change) (survives []bool)

// Nothing survives that was not synced.
func Nothing([]Change) []bool { return nil }

// Everything survives, as if it had been synced.
func Everything(pending []Change) []bool {
	return choose(pending, func(int, Change) bool { return true })
}

// Random lets each change survive by itself with a chance of percent in a hundred.
func Random(rnd *rand.Rand, percent int) Chooser {
	return func(pending []Change) []bool {
		return choose(pending, func(int, Change) bool { return rnd.IntN(100) < percent })
	}
}

// Ordered keeps the changes of names up to a random one, as a journaling file system
// does, and each page that was written or not.
func Ordered(rnd *rand.Rand) Chooser {
	return func(pending []Change) []bool {
		until := rnd.IntN(len(pending) + 1)
		return choose(pending, func(i int, c Change) bool {
			if c.Kind == Write {
				return rnd.IntN(2) == 0
			}
			return i < until
		})
	}
}

func choose(pending []Change, f func(i int, c Change) bool) []bool {
	survives := make([]bool, len(pending))
	for i, c := range pending {
		survives[i] = f(i, c)
	}
	return survives
}

// States goes through what a power cut at this moment can leave, with a name for each
// state: through all of it if that is at most most states. Otherwise it yields as many
// that are chosen for their likelihood to show a fault: nothing and everything survives,
// all but one change, one change alone, and random ones.
func (d *Disk) States(most int, rnd *rand.Rand) iter.Seq2[string, *Disk] {
	return func(yield func(string, *Disk) bool) {
		n := len(d.Pending())
		if n < 31 && 1<<n <= most {
			for mask := range 1 << n {
				bits := func(p []Change) []bool { return choose(p, func(i int, _ Change) bool { return mask>>i&1 == 1 }) }
				if !yield(fmt.Sprintf("%0*b of %d", n, mask, n), d.Crash(bits)) {
					return
				}
			}
			return
		}
		for i := range most {
			name, chooser := someState(i, n, rnd)
			if !yield(name, d.Crash(chooser)) {
				return
			}
		}
	}
}

// someState is the i-th state of a disk with n changes that has too many.
func someState(i, n int, rnd *rand.Rand) (string, Chooser) {
	only := func(one int, survives bool) Chooser {
		return func(p []Change) []bool {
			return choose(p, func(i int, _ Change) bool { return (i == one) == survives })
		}
	}
	one := rnd.IntN(n)
	switch {
	case i == 0:
		return "nothing survives", Nothing
	case i == 1:
		return "everything survives", Everything
	case i%4 == 0:
		return fmt.Sprintf("change %d of %d is lost", one, n), only(one, false)
	case i%4 == 1:
		return fmt.Sprintf("only change %d of %d survives", one, n), only(one, true)
	case i%4 == 2:
		return fmt.Sprintf("in order, number %d", i), Ordered(rnd)
	}
	percent := 1 + rnd.IntN(99)
	return fmt.Sprintf("%d %%, number %d", percent, i), Random(rnd, percent)
}
