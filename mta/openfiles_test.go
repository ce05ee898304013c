package mta

import (
	"strings"
	"testing"

	"meta1/mta/store"
	"meta1/server"
)

// files is a configuration with the numbers that need open files.
func files(deliveries int, sessions ...int) *Config {
	c := new(Config)
	c.Queue.SMTPC.DeliveriesAtOnce = deliveries
	for i, n := range sessions {
		s := &ServerSection{Of: Common{Section: "smtps" + strings.Repeat("x", i)}, Server: server.Config{ThreadsMax: n}}
		s.Server.MilterPresent = i == 1
		s.Server.Milters = make([]server.Milter, i)
		c.Servers = append(c.Servers, s)
	}
	return c
}

// TestFitOpenFiles: whatever the limit is, the numbers fit into it or the start is refused.
func TestFitOpenFiles(t *testing.T) {
	for _, sessions := range [][]int{{1000}, {1000, 50}, {0}, {5}} {
		started := false
		for limit := uint64(16); limit < 100_000; limit += limit/7 + 1 {
			c := files(1000, sessions...)
			wanted := uint64(0)
			lowered, err := fitOpenFiles(c, func(w uint64) uint64 { wanted = w; return limit })
			if err != nil {
				if started {
					t.Errorf("%v with %d files is refused, though fewer were enough: %v", sessions, limit, err)
				}
				if !strings.Contains(err.Error(), "ulimit") || len(lowered) > 0 {
					t.Errorf("refused with %v, %v", err, lowered)
				}
				continue
			}
			started = true
			if limit >= wanted {
				if len(lowered) > 0 || c.Queue.SMTPC.DeliveriesAtOnce != 1000 {
					t.Errorf("%v with %d files: lowered %v without need", sessions, limit, lowered)
				}
				continue
			}
			need := fixedFiles(c) + c.Queue.SMTPC.DeliveriesAtOnce*filesOfDelivery
			for _, s := range c.Servers {
				need += s.Server.ThreadsMax * sessionFiles(s)
				if s.Server.ThreadsMax < 5 {
					t.Errorf("%v with %d files: %s may have %d sessions", sessions, limit, s.Of.Section, s.Server.ThreadsMax)
				}
			}
			// Numbers are not lowered below the fewest, for which there is room.
			if room := fewest * (filesOfDelivery + len(c.Servers)*(filesOfSession+1)); uint64(need) > limit+uint64(room) {
				t.Errorf("%v with %d files: %d may be open", sessions, limit, need)
			}
			if len(lowered) == 0 || !strings.Contains(strings.Join(lowered, " "), "deliveries_max is") {
				t.Errorf("%v with %d files: it is not said what was lowered: %v", sessions, limit, lowered)
			}
		}
		if !started {
			t.Errorf("%v never starts", sessions)
		}
	}
}

// TestOpenStores: the queue has one store, and greylisting one of its own if it is used.
func TestOpenStores(t *testing.T) {
	c := files(1000)
	if got, want := fixedFiles(c), filesOfAll+store.Descriptors; got != want {
		t.Errorf("%d files, want %d", got, want)
	}
	c.Resolver.Greylist.Present = true
	if got, want := fixedFiles(c), filesOfAll+2*store.Descriptors; got != want {
		t.Errorf("%d files with greylisting, want %d", got, want)
	}
}
