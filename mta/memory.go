package mta

import (
	"bufio"
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
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
func (c *Config) fitMemory(limit int64) (lowered []string) {
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

// limitMemory has the Go runtime keep to seven eighths of the memory that the control groups of
// the process allow it, unless the operator has told it what to keep to by goMemLimit
// (GOMEMLIMIT). It returns the limit of the runtime, 0 if there is none.
func limitMemory(root fs.FS, goMemLimit string) int64 {
	limit := cgroupMemory(root) / 8 * 7
	if goMemLimit == "" && limit > 0 {
		debug.SetMemoryLimit(limit)
	}
	if own := debug.SetMemoryLimit(-1); goMemLimit != "" && own < noLimit && (limit == 0 || own < limit) {
		return own
	}
	return limit
}

// noLimit: a limit of so much is none. Version 1 of control groups tells none by the largest
// multiple of a page, and the Go runtime by the largest int64.
const noLimit = 1 << 60

// cgroupMemory is the least memory in bytes that the control groups allow in which the process
// is, of version 1 or 2; 0 if there is no limit. root is the root of the file system.
func cgroupMemory(root fs.FS) (least int64) {
	groups := cgroups(root)
	for _, m := range cgroupMounts(root) {
		dir := path.Join(m.dir, strings.TrimPrefix(groups[m.version], m.root))
		for ; strings.HasPrefix(dir+"/", m.dir+"/"); dir = path.Dir(dir) {
			for _, name := range m.files {
				if n := readLimit(root, path.Join(dir, name)); n > 0 && (least == 0 || n < least) {
					least = n
				}
			}
		}
	}
	return least
}

// readLimit reads a file with a number of bytes; 0 if there is none.
func readLimit(root fs.FS, name string) int64 {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n >= noLimit { // "max"
		return 0
	}
	return n
}

// cgroups are the control groups of the process that may limit its memory, by version
// (cgroups(7), /proc/pid/cgroup).
func cgroups(root fs.FS) map[int]string {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil // not Linux
	}
	groups := map[int]string{}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(f) < 3:
		case f[0] == "0" && f[1] == "":
			groups[2] = path.Clean(f[2])
		case has(f[1], "memory"):
			groups[1] = path.Clean(f[2])
		}
	}
	return groups
}

// cgroupMount is where control groups that limit memory are mounted.
type cgroupMount struct {
	version int
	root    string // the group at dir
	dir     string // without the slash at its beginning
	files   []string
}

// cgroupMounts reads /proc/self/mountinfo (proc(5)).
func cgroupMounts(root fs.FS) (all []cgroupMount) {
	f, err := root.Open("proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mount, kind, _ := strings.Cut(lines.Text(), " - ")
		m, k := strings.Fields(mount), strings.Fields(kind)
		if len(m) < 5 || len(k) < 3 {
			continue
		}
		at := cgroupMount{root: strings.TrimSuffix(m[3], "/"), dir: strings.TrimPrefix(m[4], "/")}
		switch {
		case k[0] == "cgroup2":
			at.version, at.files = 2, []string{"memory.max", "memory.high"}
		case k[0] == "cgroup" && has(k[2], "memory"):
			at.version, at.files = 1, []string{"memory.limit_in_bytes"}
		default:
			continue
		}
		all = append(all, at)
	}
	return all
}

// has reports whether a list with commas has a word.
func has(list, word string) bool { return strings.Contains(","+list+",", ","+word+",") }
