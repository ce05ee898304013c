package supervise_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/supervise"
)

// TestTreePause stops some units first, then all, and starts them again. What fails meanwhile waits.
func TestTreePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		cause := map[string]error{}
		noting := func(u *supervise.Unit) {
			inner := u.New
			u.New = func() (func(context.Context) error, error) {
				run, err := inner()
				return func(ctx context.Context) error {
					defer func() { cause[u.Name] = context.Cause(ctx) }()
					return run(ctx)
				}, err
			}
		}
		tree, stop := b.run(b.unit("smar"), b.unit("smtpc", noting), b.unit("qmgr"), b.unit("smtps", noting))
		b.expect("0s smar up", "0s smtpc up", "0s qmgr up", "0s smtps up")
		if err := tree.Pause(t.Context(), false, "smtpc"); err != nil {
			t.Fatal(err)
		}
		b.expect("0s smtpc stopping", "0s smtpc down")
		b.end["qmgr"] <- errors.New("broken")
		time.Sleep(time.Minute)
		b.expect("0s qmgr down (hard: broken)")
		if err := tree.Pause(t.Context(), true, "smtpc"); err != nil {
			t.Fatal(err)
		}
		b.expect("1m0s smtps stopping", "1m0s smtps down", "1m0s smar stopping", "1m0s smar down")
		time.Sleep(time.Minute)
		if err := tree.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.expect("2m0s smar up", "2m0s smtpc up", "2m0s qmgr up", "2m0s smtps up")
		if !errors.Is(cause["smtps"], supervise.ErrPaused) || !errors.Is(cause["smtpc"], supervise.ErrPaused) {
			t.Errorf("causes %v", cause)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		b.expect("2m0s smtps stopping", "2m0s smtps down", "2m0s qmgr stopping", "2m0s qmgr down",
			"2m0s smtpc stopping", "2m0s smtpc down", "2m0s smar stopping", "2m0s smar down")
		if errors.Is(cause["smtps"], supervise.ErrPaused) {
			t.Error("the end of all is no pause")
		}
		if err := tree.Pause(t.Context(), true); !errors.Is(err, supervise.ErrEnded) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestTreePauseEnds: neither a unit that does not stop nor the end of all leaves the asker waiting.
func TestTreePauseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		deaf := func(u *supervise.Unit) {
			u.New = func() (func(context.Context) error, error) {
				return func(ctx context.Context) error {
					<-ctx.Done()
					time.Sleep(time.Minute)
					return nil
				}, nil
			}
		}
		tree, stop := b.run(b.unit("smar"), b.unit("smtps", deaf))
		b.expect("0s smar up", "0s smtps up")
		brief, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tree.Pause(brief, true); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if err := tree.Pause(t.Context(), true); !errors.Is(err, supervise.ErrEnded) {
			t.Errorf("a unit that does not stop: %v", err)
		}
		if err := stop(); err == nil || err.Error() != "smtps did not stop within 10s" {
			t.Errorf("error %v", err)
		}
		time.Sleep(time.Hour) // the unit ends
	})
}
