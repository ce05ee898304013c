package defedb

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

func route() *Route {
	return &Route{Asked: at(5), Expires: at(9), Secure: true, Hops: []msg.Hop{
		{Addr: netip.MustParseAddrPort("192.0.2.1:25"), Host: "mx.d.test"},
		{Addr: netip.MustParseAddrPort("[2001:db8::1%eth0]:26")},
		{Protocol: msg.ProtoLMTP, Socket: "/run/lmtp"},
	}}
}

func waiting(t *testing.T, db *DB, dest string, p *Place, limit int) (got []string) {
	t.Helper()
	err := db.Waiting(dest, p, func(st State) bool {
		got = append(got, fmt.Sprintf("%d.%d", st.TA.Counter, st.Index))
		return len(got) < limit
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func waitedForAll(t *testing.T, db *DB) (all []string) {
	t.Helper()
	if err := db.WaitedFor(func(d string) bool { all = append(all, d); return true }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWaitingForADestination(t *testing.T) {
	db := open(t, pvfs.NewCrashableMem())
	defer db.Close()
	put := func(ta uint64, index int, dest string, waits bool, old time.Time) {
		st := state(ta, index, at(int64(1000-ta)))
		st.Dest, st.Waits = dest, waits
		commit(t, db, func(b *Batch) error { return b.Put(&st, old) })
	}
	put(3, 0, "mx:a", true, time.Time{})
	put(1, 7, "mx:a", true, time.Time{})
	put(1, 2, "mx:a", true, time.Time{})
	put(2, 0, "mx:a", false, time.Time{})
	put(2, 1, "mx:b", true, time.Time{})
	put(4, 0, "mx:a0", true, time.Time{})
	var p Place
	if got := waiting(t, db, "mx:a", &p, 2); !reflect.DeepEqual(got, []string{"1.2", "1.7"}) {
		t.Errorf("first two: %v", got)
	}
	if got := waiting(t, db, "mx:a", &p, 9); !reflect.DeepEqual(got, []string{"3.0"}) {
		t.Errorf("the rest: %v", got)
	}
	if got := waitedForAll(t, db); !reflect.DeepEqual(got, []string{"mx:a", "mx:b", "mx:a0"}) {
		t.Errorf("destinations %q", got)
	}
	put(3, 0, "mx:b", true, at(997)) // another destination
	put(1, 7, "mx:a", false, at(999))
	commit(t, db, func(b *Batch) error { return b.End(smtp.ID{Counter: 1}, 2, at(999)) })
	if got := waiting(t, db, "mx:a", new(Place), 9); got != nil {
		t.Errorf("still waiting: %v", got)
	}
	if got := waitedForAll(t, db); !reflect.DeepEqual(got, []string{"mx:b", "mx:a0"}) {
		t.Errorf("destinations %q", got)
	}
}

func TestRoutesAreStoredUntilTheyExpire(t *testing.T) {
	db := open(t, pvfs.NewCrashableMem())
	defer db.Close()
	st := state(1, 0, at(10))
	st.Route = route()
	long := state(1, 1, at(10))
	long.Route = &Route{Hops: make([]msg.Hop, RouteHopsMax+1)}
	wide := state(1, 2, at(10))
	wide.Route = &Route{Hops: []msg.Hop{{Host: strings.Repeat("x", nameMax+1)}}}
	commit(t, db, func(b *Batch) error {
		for _, s := range []*State{&st, &long, &wide} {
			if err := b.Put(s, time.Time{}); err != nil {
				return err
			}
		}
		return nil
	})
	got := due(t, db, at(10), new(Cursor))
	if len(got) != 3 || !reflect.DeepEqual(got[0], st) || got[1].Route != nil || got[2].Route != nil {
		t.Errorf("read %+v", got)
	}
	for now, want := range map[int64]bool{4: false, 5: true, 8: true, 9: false} {
		if got[0].Route.Holds(at(now)) != want {
			t.Errorf("at %d the route holds: %v", now, !want)
		}
	}
	if (*Route)(nil).Holds(at(6)) {
		t.Error("no route holds")
	}
}

func FuzzWaitedFor(f *testing.F) {
	f.Add(waitKey("mx:d.test", smtp.ID{Counter: 1}, 2))
	f.Fuzz(func(t *testing.T, k []byte) {
		if dest, err := waitedFor(k); err == nil && string(waitPrefix(dest)[1:]) != string(k[1:len(k)-rcptLen]) {
			t.Errorf("%q out of %x", dest, k)
		}
	})
}
