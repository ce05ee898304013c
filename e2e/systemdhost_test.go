package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// systemdHost is a Debian whose first process is systemd, in namespaces and a control group of its own. What it writes
// is in memory and gone with it.
type systemdHost struct {
	t     *testing.T
	outer *exec.Cmd // keeps its files, and boots it again when it has ended
	init  int       // its systemd, as this host counts processes
	log   string    // what is printed when it boots
}

// bootScript boots the Debian in $2 again and again; what it writes goes to a file system in memory at $1. $3 is
// copied to /debs there, and the control group $4 is its own.
const bootScript = `set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cp -r "$3" "$1/root/debs"
echo mx.systemd.test >"$1/root/etc/hostname"
echo '127.0.0.1 localhost mx.systemd.test' >"$1/root/etc/hosts"
echo 'nameserver 127.0.0.1' >"$1/root/etc/resolv.conf"
while sleep 0.2; do # a loop without an end: whoever started this ends it
	sh -c 'echo $$ >"$1/cgroup.procs"; exec unshare --mount --net --pid --ipc --uts --cgroup --fork --kill-child sh -c "$2" sh "$3"' sh "$4" "$5" "$1/root" || true
done
`

// bootInside prepares what a kernel and an initrd prepare, and becomes systemd.
const bootInside = `set -eu
cd "$1"
ip link set lo up
mount --bind . . && cd "$1"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for d in null zero full random urandom tty; do touch dev/$d; mount --bind /dev/$d dev/$d; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
mkdir -p run/old
pivot_root . run/old
exec env -i container=meta1-test PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c 'umount -l /run/old; rmdir /run/old; exec /sbin/init' </dev/null >/dev/null 2>&1
`

// bootSystemd boots the Debian that scripts/systemd-root.sh makes, with files of a directory as /debs.
func bootSystemd(t *testing.T, files string) *systemdHost {
	t.Helper()
	root := filepath.Join(cacheDir(), "debian12-systemd")
	if out, err := output(exec.Command("../scripts/systemd-root.sh", root)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	group := filepath.Join(cgroup2(t), fmt.Sprintf("meta1-e2e-systemd.%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := testDir(t)
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := os.Mkdir(dir+"/scratch", 0o755); err != nil {
		t.Fatal(err)
	}
	h := &systemdHost{t: t, log: log.Name(), outer: exec.Command("unshare", "--mount", "sh", "-c", bootScript, "sh", dir+"/scratch", root, files, group, bootInside)}
	t.Cleanup(func() {
		if h.outer.Process != nil {
			_ = h.outer.Process.Kill()
			_ = h.outer.Wait()
		}
		_ = os.WriteFile(group+"/cgroup.kill", []byte("1"), 0o644)
		must(t, func() error {
			out, err := output(exec.Command("find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"))
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			return err
		})
	})
	h.outer.Stdout, h.outer.Stderr = log, log
	if err := h.outer.Start(); err != nil {
		t.Fatal(err)
	}
	h.up()
	return h
}

// cacheDir holds what tests have downloaded.
func cacheDir() string {
	if dir := os.Getenv("META1_TEST_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/meta1-test"
}

// cgroup2 is where the control groups of version 2 are mounted.
func cgroup2(t *testing.T) string {
	t.Helper()
	for line := range strings.Lines(readFile(t, "/proc/mounts")) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	t.Fatal("no control groups of version 2 are mounted on this host")
	return ""
}

// up waits until systemd has started what is to be started, and finds its first process.
func (h *systemdHost) up() {
	h.t.Helper()
	must(h.t, func() error {
		h.init = child(child(h.outer.Process.Pid)) // of unshare, which boots it
		if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", h.init)); h.init == 0 || string(name) != "systemd\n" {
			return fmt.Errorf("it does not boot: %s", readFile(h.t, h.log))
		}
		out, err := h.try("systemctl is-system-running --wait")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// child is the first child of a process, 0 if there is none.
func child(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	first := 0
	_, _ = fmt.Sscan(string(b), &first)
	return first
}

// powerCut ends all of its processes at once, and waits until it has booted again.
func (h *systemdHost) powerCut() {
	h.t.Helper()
	if err := syscall.Kill(h.init, syscall.SIGKILL); err != nil {
		h.t.Fatal(err)
	}
	must(h.t, func() error {
		if lives(h.init) {
			return fmt.Errorf("process %d lives", h.init)
		}
		return nil
	})
	h.up()
}

// try runs a script as root there.
func (h *systemdHost) try(script string) (string, error) {
	return output(exec.Command("nsenter", "-t", fmt.Sprint(h.init), "--all", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/root", "SYSTEMD_PAGER=", "bash", "-ec", script))
}

// run runs a script that must succeed, and returns what it prints.
func (h *systemdHost) run(script string) string {
	h.t.Helper()
	out, err := h.try(script)
	if err != nil {
		h.t.Fatalf("%s\n%v:\n%s\n%s", script, err, out, h.journal())
	}
	return strings.TrimSpace(out)
}

// eventually runs a script again and again until it succeeds.
func (h *systemdHost) eventually(script string) {
	h.t.Helper()
	err := within(func() error {
		out, err := h.try(script)
		if err != nil {
			err = fmt.Errorf("%s\n%w: %s", script, err, out)
		}
		return err
	})
	if err != nil {
		h.t.Fatalf("%v\n%s", err, h.journal())
	}
}

// journal is the end of what systemd and meta1 have logged.
func (h *systemdHost) journal() string {
	out, _ := h.try("journalctl -u 'meta1*' -n 40 --no-pager; meta1 mailq")
	return out
}

// property is one of the unit meta1.
func (h *systemdHost) property(name string) string {
	h.t.Helper()
	return h.run("systemctl show meta1 -P " + name)
}
