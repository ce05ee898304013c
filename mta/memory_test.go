package mta

import (
	"strings"
	"testing"

	"meta1/server"
)

// roomy is a configuration with the defaults that take memory.
func roomy() *Config {
	c := new(Config)
	q := &c.Queue
	q.ContentMemory, q.AQEntriesMax, q.SMTPC.DeliveriesAtOnce, q.IBDB.ContentMax, q.DEFEDB.CacheSize = 128<<20, 20_000, 1000, 128<<10, 8<<20
	c.Resolver.DNS.CacheSize = 32 << 20
	c.Servers = []*ServerSection{{Of: Common{Section: "smtps"}, Server: server.Config{ThreadsMax: 1000}}}
	return c
}

// TestFitMemory: the less memory there is the lower are the options, never below the least,
// and what they take together fits. With plenty nothing is changed.
func TestFitMemory(t *testing.T) {
	last := roomy()
	for limit := int64(1 << 30); limit > 64<<20; limit -= 8 << 20 {
		c := roomy()
		c.Resolver.Greylist.Present = limit%(16<<20) == 0
		lowered := fitMemory(c, limit)
		said, q := strings.Join(lowered, "\n"), &c.Queue
		if q.ContentMemory < fewestContent || q.SMTPC.DeliveriesAtOnce < fewest || q.DEFEDB.CacheSize < storeCache {
			t.Fatalf("%d MB: too low: %+v", limit>>20, q)
		}
		if (q.ContentMemory < 128<<20) != strings.Contains(said, "content_memory_max is") || (q.SMTPC.DeliveriesAtOnce < 1000) != strings.Contains(said, "deliveries_max is") {
			t.Errorf("%d MB: what was lowered is not what is said: %s", limit>>20, said)
		}
		if c.Resolver.Greylist.Present {
			continue
		}
		if q.ContentMemory > last.Queue.ContentMemory || q.SMTPC.DeliveriesAtOnce > last.Queue.SMTPC.DeliveriesAtOnce {
			t.Errorf("%d MB: more than with more memory", limit>>20)
		}
		log := q.IBDB.Size
		if log == 0 {
			log = storeLog
		}
		sum := memoryOfAll + c.Resolver.DNS.CacheSize + 20_000*memoryOfEntry + 1000*memoryOfSession + storeCache + storeTables*log + q.ContentMemory +
			int64(q.SMTPC.DeliveriesAtOnce)*(memoryOfDelivery+128<<10)
		if sum > limit/4*3 && !strings.Contains(said, "too few for this configuration") {
			t.Errorf("%d MB: %d MB may be taken", limit>>20, sum>>20)
		}
		last = c
	}
	for _, limit := range []int64{0, 1 << 30} {
		c := roomy()
		if lowered := fitMemory(c, limit); len(lowered) > 0 || c.Queue.ContentMemory != 128<<20 {
			t.Errorf("%d bytes: lowered %v without need", limit, lowered)
		}
	}
}
