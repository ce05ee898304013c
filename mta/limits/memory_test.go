package limits

import (
	"io/fs"
	"maps"
	"math"
	"runtime/debug"
	"strings"
	"testing"
	"testing/fstest"
)

// rootFS is a root directory with these files.
func rootFS(files map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, text := range files {
		root[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

// TestCgroupMemory: the least limit counts of the group of the process and of its parents, as
// far as they can be seen, in both versions.
func TestCgroupMemory(t *testing.T) {
	const (
		v2 = "24 20 0:21 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
		v1 = "24 20 0:21 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n37 31 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	)
	for name, c := range map[string]struct {
		group, mounts string
		files         map[string]string
		want          int64
	}{
		"not Linux": {},
		"version 2": {"0::/a/b\n", v2, map[string]string{"/sys/fs/cgroup/a/b/memory.max": "1000\n"}, 1000},
		"its parent has less": {
			"0::/a/b\n", v2, map[string]string{"/sys/fs/cgroup/a/b/memory.max": "1000\n", "/sys/fs/cgroup/a/memory.max": "900\n"}, 900,
		},
		"its parent has more": {
			"0::/a/b\n", v2, map[string]string{"/sys/fs/cgroup/a/b/memory.max": "1000\n", "/sys/fs/cgroup/a/memory.max": "2000\n"}, 1000,
		},
		"memory.high": {
			"0::/a\n", v2, map[string]string{"/sys/fs/cgroup/a/memory.max": "1000\n", "/sys/fs/cgroup/a/memory.high": "800\n"}, 800,
		},
		"another group's": {"0::/a\n", v2, map[string]string{"/sys/fs/cgroup/ab/memory.max": "1000\n"}, 0},
		"none":            {"0::/a\n", v2, map[string]string{"/sys/fs/cgroup/a/memory.max": "max\n"}, 0},
		"own namespace":   {"0::/\n", v2, map[string]string{"/sys/fs/cgroup/memory.max": "1000\n"}, 1000},
		"container with the host's path": {
			"0::/docker/1\n", "24 20 0:21 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n",
			map[string]string{"/sys/fs/cgroup/memory.max": "1000\n"},
			1000,
		},
		"group outside of the mount": {"0::/../x\n", v2, map[string]string{"/sys/fs/cgroup/memory.max": "1000\n"}, 1000},
		"version 1": {
			"9:name=systemd:/\n4:memory:/a/b\n1:cpu:/z\n0::/\n", v1,
			map[string]string{"/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "1000\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
			1000,
		},
		"version 1, with its parent": {
			"4:cpu,memory:/a/b\n", v1,
			map[string]string{"/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712\n", "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "700\n"},
			700,
		},
		"version 1 without": {"4:memory:/\n0::/\n", v1, map[string]string{"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		"version 1, container with the host's path": {
			"4:memory:/docker/1\n", "35 31 0:32 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			map[string]string{"/sys/fs/cgroup/memory/memory.limit_in_bytes": "600\n"},
			600,
		},
		"broken": {"x\n0::\n4:memory\n", "x\n- -\n" + v2, map[string]string{"/sys/fs/cgroup/memory.max": "a lot\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{}
			if c.group != "" {
				files = map[string]string{"/proc/self/cgroup": c.group, "/proc/self/mountinfo": c.mounts}
			}
			maps.Copy(files, c.files)
			if got := cgroupMemory(rootFS(files)); got != c.want {
				t.Errorf("%d bytes, want %d", got, c.want)
			}
		})
	}
}

// TestMemory: the runtime gets a part of what the control groups allow, unless the operator
// has said what it gets; the options follow from the less of both.
func TestMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	group := rootFS(map[string]string{
		"/proc/self/cgroup": "0::/\n", "/proc/self/mountinfo": "24 20 0:21 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/memory.max": "800000000",
	})
	for _, c := range []struct {
		root               fs.FS
		env                string
		own, limit, result int64
	}{
		{rootFS(nil), "", math.MaxInt64, math.MaxInt64, 0},
		{rootFS(nil), "off", math.MaxInt64, math.MaxInt64, 0},
		{rootFS(nil), "500000000", 500_000_000, 500_000_000, 500_000_000},
		{group, "", math.MaxInt64, 700_000_000, 700_000_000},
		{group, "off", math.MaxInt64, math.MaxInt64, 700_000_000},
		{group, "500000000", 500_000_000, 500_000_000, 500_000_000},
		{group, "900000000", 900_000_000, 900_000_000, 700_000_000},
	} {
		debug.SetMemoryLimit(c.own) // as the runtime does at its start
		got := Memory(c.root, c.env)
		if now := debug.SetMemoryLimit(-1); got != c.result || now != c.limit {
			t.Errorf("GOMEMLIMIT=%s: the options follow from %d, want %d; the runtime has %d, want %d", c.env, got, c.result, now, c.limit)
		}
	}
}
