//go:build linux

package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// kind is an MTA that can be started.
type kind struct {
	name  string
	start func(dir string, s *sink, g *group) (*running, error)
}

// running is an MTA that runs. It ends with its group.
type running struct {
	addr    string // takes mail here
	log     string
	metrics string       // address, of meta1 only
	list    func() error // shows the queue
	flush   func() error // tries everything in the queue at once
}

// ready waits for the greeting.
func (m *running) ready() error {
	var err error
	for range 1500 {
		var c net.Conn
		if c, err = net.Dial("tcp", m.addr); err == nil {
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, err = io.ReadFull(c, make([]byte, 3))
			_ = c.Close()
		}
		if err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("it does not greet: %w", err)
}

// lastWords is the end of its log.
func (m *running) lastWords() string {
	text, _ := os.ReadFile(m.log)
	return string(text[max(0, len(text)-2000):])
}

// profile leaves profiles in a directory, taken in the middle of a run.
func (m *running) profile(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	time.Sleep(time.Second)
	for name, page := range map[string]string{"cpu": "profile?seconds=4", "allocs": "allocs", "heap": "heap", "block": "block", "mutex": "mutex"} {
		if err := fetch("http://"+m.metrics+"/debug/pprof/"+page, filepath.Join(dir, name+".pprof")); err != nil {
			return err
		}
	}
	return nil
}

func fetch(url, file string) error {
	r, err := http.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = errors.New(r.Status)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return os.WriteFile(file, data, 0o644)
}

// freeAddr is an address on which nobody listens now.
func freeAddr() (addr, port string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer l.Close()
	_, port, err = net.SplitHostPort(l.Addr().String())
	return l.Addr().String(), port, err
}

// start starts a program in a group, with its output in a file.
func start(g *group, log string, cmd *exec.Cmd) error {
	f, err := os.Create(log)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := g.start(cmd); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

// finish runs a program to its end.
func finish(cmd *exec.Cmd) error {
	var words strings.Builder
	cmd.Stderr = &words
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%v: %w: %s", cmd.Args, err, words.String())
	}
	return nil
}

func writeFiles(dir string, files map[string]string) error {
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

//go:embed meta1.conf
var meta1Conf string

// startMeta1 gives a starter of meta1: every domain to the sink, hang.test to the host
// that hangs.
func startMeta1(binary string, profiles bool) func(string, *sink, *group) (*running, error) {
	return func(dir string, s *sink, g *group) (*running, error) {
		addr, port, err := freeAddr()
		if err != nil {
			return nil, err
		}
		metrics, metricsPort, err := freeAddr()
		if err != nil {
			return nil, err
		}
		tls, err := s.keys.section(dir)
		if err != nil {
			return nil, err
		}
		conf := strings.NewReplacer("@SPOOL@", dir+"/spool", "@PORT@", port, "@METRICS@", metricsPort,
			"@PPROF@", strconv.FormatBool(profiles), "# @TLS@", tls, "# @MILTER@", s.milter.section()).Replace(meta1Conf)
		_, sinkPort, _ := net.SplitHostPort(s.addr)
		_, hangPort, _ := net.SplitHostPort(s.hangingAddr)
		nobody, err := user.Lookup("nobody")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		if err := errors.Join(os.Mkdir(dir+"/spool", 0o700), os.Chown(dir+"/spool", uid, gid)); err != nil {
			return nil, err
		}
		err = writeFiles(dir, map[string]string{
			"meta1.conf": conf, "access": "cltaddr:127. relay\n",
			"mt": fmt.Sprintf("hang.test %s^esmtp:[127.0.0.2]\n. %s^esmtp:[127.0.0.1]\n", hangPort, sinkPort),
		})
		if err != nil {
			return nil, err
		}
		file := dir + "/meta1.conf"
		m := &running{
			addr: addr, metrics: metrics, log: dir + "/log",
			list:  func() error { return finish(exec.Command(binary, "mailq", "-f", file)) },
			flush: func() error { return finish(exec.Command(binary, "queue", "flush", "--all", "-f", file)) },
		}
		return m, start(g, m.log, exec.Command(binary, "serve", "-f", file))
	}
}

//go:embed main.cf
var postfixMain string

//go:embed master.cf
var postfixMaster string

// Accounts of any Debian that stand for Postfix's own, which must not be the same.
const (
	postfixOwner = "daemon"
	postfixGroup = "games"
)

// startPostfix gives a starter of the Postfix that is unpacked in peers, as Debian ships
// it but for where its files and its next hops are.
func startPostfix(peers string) func(string, *sink, *group) (*running, error) {
	return func(dir string, s *sink, g *group) (*running, error) {
		if _, err := os.Stat(peers + "/usr/lib/postfix/sbin/master"); err != nil {
			return nil, fmt.Errorf("there is no Postfix (make needs unpacks it): %w", err)
		}
		addr, _, err := freeAddr()
		if err != nil {
			return nil, err
		}
		conf := dir + "/conf"
		if err := os.Mkdir(conf, 0o755); err != nil {
			return nil, err
		}
		tls, err := s.keys.lines(dir)
		if err != nil {
			return nil, err
		}
		replace := strings.NewReplacer("@TLS@", tls, "@MILTER@", s.milter.lines(), "@DIR@", dir, "@PEERS@", peers, "@ADDR@", addr, "@OWNER@", postfixOwner, "@GROUP@", postfixGroup,
			"@SINK@", brackets(s.addr), "@HANG@", brackets(s.hangingAddr))
		if err := writeFiles(conf, map[string]string{"main.cf": replace.Replace(postfixMain), "master.cf": replace.Replace(postfixMaster)}); err != nil {
			return nil, err
		}
		if err := postfixDirs(dir); err != nil {
			return nil, err
		}
		program := func(name string, args ...string) *exec.Cmd {
			cmd := exec.Command(peers+"/usr/"+name, append([]string{"-c", conf}, args...)...)
			cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+peers+"/usr/lib/postfix")
			return cmd
		}
		m := &running{
			addr: addr, log: dir + "/maillog",
			list:  func() error { return finish(program("sbin/postqueue", "-p")) },
			flush: func() error { return finish(program("sbin/postqueue", "-f")) },
		}
		return m, start(g, dir+"/output", program("lib/postfix/sbin/master", "-d"))
	}
}

// brackets is an address as Postfix writes a next hop: [192.0.2.1]:25.
func brackets(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return "[" + host + "]:" + port
}

// postfixDirs makes the directories that "postfix set-permissions" would.
func postfixDirs(dir string) error {
	owner, err := user.Lookup(postfixOwner)
	if err != nil {
		return err
	}
	group, err := user.LookupGroup(postfixGroup)
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(group.Gid)
	if err := os.MkdirAll(dir+"/queue/pid", 0o755); err != nil {
		return err
	}
	for name, mode := range map[string]os.FileMode{
		"active": 0o700, "bounce": 0o700, "corrupt": 0o700, "defer": 0o700, "deferred": 0o700, "flush": 0o700, "hold": 0o700,
		"incoming": 0o700, "private": 0o700, "saved": 0o700, "trace": 0o700, "../data": 0o700, "public": 0o710, "maildrop": 0o730,
	} {
		d := filepath.Join(dir, "queue", name)
		if err := errors.Join(os.Mkdir(d, mode), os.Chmod(d, mode), os.Chown(d, uid, gid)); err != nil {
			return err
		}
	}
	return nil
}
