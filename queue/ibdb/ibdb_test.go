package ibdb

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/store"
	"meta1/queue/vfs"
)

func options(t *testing.T) store.Options {
	return store.Options{Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Log("fatal:", err) }}
}

func open(t *testing.T, f vfs.FS, dir string) *DB {
	t.Helper()
	db, err := Open(f, dir, options(t))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func env(n uint64, rcpts int) *msg.Envelope {
	e := &msg.Envelope{TA: smtp.ID{Counter: n}, Mail: msg.Mail{From: smtp.Path{Local: "s", Domain: "d.test"}}}
	for range rcpts {
		e.Rcpts = append(e.Rcpts, msg.Rcpt{To: smtp.Path{Local: "r", Domain: "d.test"}})
	}
	return e
}

func commit(t *testing.T, db *DB, fill func(*Batch) error) {
	t.Helper()
	b := db.NewBatch()
	if err := fill(b); err != nil {
		t.Fatal(err)
	}
	if err := db.Commit(b); err != nil {
		t.Fatal(err)
	}
}

func recovered(t *testing.T, db *DB) map[uint64]Recovered {
	t.Helper()
	all := map[uint64]Recovered{}
	if err := db.Recover(func(r Recovered) error { all[r.Envelope.TA.Counter] = r; return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestCommittedTransactionsSurviveACrash(t *testing.T) {
	mem := pvfs.NewCrashableMem()
	db := open(t, vfs.FromPebble(mem, nil), "ibdb")
	commit(t, db, func(b *Batch) error {
		return errors.Join(b.Accept(env(1, 1), []byte("one")), b.Accept(env(2, 3), []byte("two")),
			b.Accept(env(3, 1), nil), b.Accept(env(4, 2), []byte("four")))
	})
	commit(t, db, func(b *Batch) error {
		return errors.Join(b.Forget(smtp.ID{Counter: 1}, true, nil), b.End(smtp.ID{Counter: 2}, 2), b.End(smtp.ID{Counter: 2}, 0),
			b.Spilled(smtp.ID{Counter: 4}))
	})
	lost := db.NewBatch()
	if err := lost.Accept(env(9, 1), []byte("never committed")); err != nil {
		t.Fatal(err)
	}
	lost.Discard()
	db = open(t, vfs.FromPebble(mem.CrashClone(pvfs.CrashCloneCfg{}), nil), "ibdb")
	defer db.Close()
	all := recovered(t, db)
	if len(all) != 3 {
		t.Fatalf("recovered %v, want 2, 3 and 4", all)
	}
	if r := all[2]; len(r.Ended) != 2 || r.Ended[0] != 0 || r.Ended[1] != 2 || !r.Inline || r.Size != 3 {
		t.Errorf("transaction 2: %+v", r)
	}
	if all[3].Inline || all[4].Inline {
		t.Error("content that lies in a file is said to be inline")
	}
	if c, ok, err := db.Content(smtp.ID{Counter: 2}); err != nil || !ok || string(c) != "two" {
		t.Errorf("content %q, %v, %v", c, ok, err)
	}
	commit(t, db, func(b *Batch) error { return b.Forget(smtp.ID{Counter: 2}, true, []int{0, 2}) })
	if _, ok := recovered(t, db)[2]; ok {
		t.Error("a forgotten transaction came back")
	}
}

func TestIDsNeverRepeat(t *testing.T) {
	mem := pvfs.NewCrashableMem()
	var bound uint64
	for range 3 {
		db := open(t, vfs.FromPebble(mem, nil), "ibdb")
		first, err := db.ReserveIDs(1000)
		if err != nil || first < bound || first == 0 {
			t.Fatalf("first id %d below bound %d, %v", first, bound, err)
		}
		bound = first + 1000
		mem = mem.CrashClone(pvfs.CrashCloneCfg{})
	}
}

func TestOpenErrorsNameTheReason(t *testing.T) {
	dir := t.TempDir()
	db := open(t, vfs.Real(), dir)
	if _, err := Open(vfs.Real(), dir, options(t)); !errors.Is(err, store.ErrInUse) {
		t.Errorf("second open: %v, want ErrInUse", err)
	}
	commit(t, db, func(b *Batch) error { return b.Accept(env(1, 1), []byte("x")) })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	manifests, _ := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	for _, m := range manifests {
		if err := os.WriteFile(m, []byte("garbage, and more of it, to be longer than a header"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Open(vfs.Real(), dir, options(t))
	if !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), dir) {
		t.Errorf("damaged manifest: %v, want ErrDamaged with the directory", err)
	}
}

// TestContentAfterClose: a delivery may outlive the queue.
func TestContentAfterClose(t *testing.T) {
	db := open(t, vfs.Real(), t.TempDir())
	e := env(1, 1)
	commit(t, db, func(b *Batch) error { return b.Accept(e, []byte("x")) })
	if content, ok, err := db.Content(e.TA); string(content) != "x" || !ok || err != nil {
		t.Errorf("%q, %v, %v", content, ok, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := db.Content(e.TA); err == nil {
		t.Error("no error from a closed database")
	}
}
