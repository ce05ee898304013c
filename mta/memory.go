package mta

import (
	"cmp"
	"fmt"
)

// What is in memory at most, in bytes, beside content that was not sent yet.
const (
	// memoryOfAll: the program, its maps and logs, the monitor.
	memoryOfAll = 24 << 20
	// memoryOfEntry: a recipient in the active queue, with its message and its destination.
	memoryOfEntry = 2 << 10
	// memoryOfSession: its buffers and goroutine.
	memoryOfSession = 24 << 10
	// memoryOfDelivery: its buffers and goroutine, beside the content that it sends.
	memoryOfDelivery = 24 << 10
	// readOfDelivery is how much it reads at once of content in a file.
	readOfDelivery = 64 << 10
	// storeCache and storeLog are what a store takes without options, and the least cache;
	// tables of the size of a log are in memory in up to storeTables places.
	storeCache  = 8 << 20
	storeLog    = 8 << 20
	storeLogMin = 1 << 20
	storeTables = 3
	// fewestDNS is what the cache of the resolver is not lowered below.
	fewestDNS = 2 << 20
	// fewestContent is what content_memory_max is not lowered below.
	fewestContent = 1 << 20
)

// fitMemory lowers what scales to what fits into limit bytes, the limit of the Go runtime,
// and says what it has lowered: the logs and cache of the store, the cache of the resolver,
// content_memory_max and deliveries_max. A quarter is left to garbage. 0 is no limit.
func fitMemory(c *Config, limit int64) (lowered []string) {
	if limit <= 0 {
		return nil
	}
	lower := func(name string, v *int64, to int64) {
		if to < *v {
			lowered = append(lowered, fmt.Sprintf("%s is %d KB instead of %d KB: the Go runtime may have %d MB", name, to>>10, *v>>10, limit>>20))
			*v = to
		}
	}
	q := &c.Queue
	log := max(q.IBDB.Size, q.DEFEDB.CheckpointKB)
	if most := max(limit/32, storeLogMin); cmp.Or(log, storeLog) > most {
		log = most
		lower("qmgr DEFEDB KBytes_written_for_checkpointing", &q.DEFEDB.CheckpointKB, most)
		q.IBDB.Size = most
		lowered = append(lowered, fmt.Sprintf("qmgr IBDB size is %d KB: the Go runtime may have %d MB", most>>10, limit>>20))
	}
	lower("qmgr DEFEDB cache_size", &q.DEFEDB.CacheSize, max(limit/8, storeCache))
	lower("smar DNS cache_size", &c.Resolver.DNS.CacheSize, max(limit/16, fewestDNS))

	fixed := memoryOfAll + c.Resolver.DNS.CacheSize + int64(q.AQEntriesMax)*memoryOfEntry + max(q.DEFEDB.CacheSize, storeCache) + storeTables*cmp.Or(log, storeLog)
	for _, s := range c.Servers {
		fixed += int64(cmp.Or(s.Server.ThreadsMax, unlimited)) * memoryOfSession
	}
	if c.Resolver.Greylist.Present {
		fixed += storeCache + storeTables*storeLog
	}
	delivery := memoryOfDelivery + max(q.IBDB.ContentMax, readOfDelivery)
	room, wanted := limit/4*3-fixed, q.ContentMemory+int64(q.SMTPC.DeliveriesAtOnce)*delivery
	if room >= wanted {
		return lowered
	}
	share := max(float64(room)/float64(wanted), 0)
	lower("qmgr content_memory_max", &q.ContentMemory, max(int64(float64(q.ContentMemory)*share), fewestContent))
	if n := max(int(float64(q.SMTPC.DeliveriesAtOnce)*share), fewest); n < q.SMTPC.DeliveriesAtOnce {
		lowered = append(lowered, fmt.Sprintf("qmgr deliveries_max is %d instead of %d: the Go runtime may have %d MB", n, q.SMTPC.DeliveriesAtOnce, limit>>20))
		q.SMTPC.DeliveriesAtOnce = n
	}
	if least := fewestContent + fewest*delivery; room < least {
		lowered = append(lowered, fmt.Sprintf("%d MB for the Go runtime are too few for this configuration, which needs %d MB: lower threads_max or AQ_entries_max", limit>>20, (fixed+least)/3*4>>20))
	}
	return lowered
}
