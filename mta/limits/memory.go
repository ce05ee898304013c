package limits

import (
	"bufio"
	"io/fs"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// Memory has the Go runtime keep to seven eighths of the memory that the control groups of
// the process allow it, unless the operator has told it what to keep to by goMemLimit
// (GOMEMLIMIT). It returns the limit of the runtime in bytes, 0 if there is none. root is the root of the file system.
func Memory(root fs.FS, goMemLimit string) int64 {
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
