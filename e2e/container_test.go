package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// docker runs the docker command for at most five minutes.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := dockerTry(args...)
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func dockerTry(args ...string) (string, error) {
	cmd := exec.Command("timeout", append([]string{"300", "docker"}, args...)...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// container is a running container of our image.
type container struct {
	t             *testing.T
	name          string
	ip, gateway   string // of the container, and of the host as it sees it
	image, volume string
	conf          string // folder mounted over /etc/meta1, or ""
}

// up creates and starts the container, and waits until it greets.
func (c *container) up() {
	c.t.Helper()
	args := []string{"run", "-d", "--name", c.name, "--hostname", "mx.container.test", "-v", c.volume + ":/var/spool/meta1", "--health-interval", "1s"}
	if c.conf != "" {
		args = append(args, "-v", c.conf+":/etc/meta1:ro")
	}
	docker(c.t, append(args, c.image)...)
	c.ip = docker(c.t, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", c.name)
	c.gateway = docker(c.t, "inspect", "-f", "{{.NetworkSettings.Gateway}}", c.name)
	must(c.t, func() error {
		k, err := dial(c.ip + ":25")
		if err == nil {
			k.close()
			return nil
		}
		if state := docker(c.t, "inspect", "-f", "{{.State.Status}}", c.name); state != "running" {
			c.t.Fatalf("the container is %s:\n%s", state, docker(c.t, "logs", c.name))
		}
		return err
	})
}

// down stops the container in order, and removes it. The volume stays.
func (c *container) down() {
	c.t.Helper()
	docker(c.t, "stop", "-t", "30", c.name)
	if code := docker(c.t, "inspect", "-f", "{{.State.ExitCode}}", c.name); code != "0" {
		c.t.Errorf("the container ended with %s:\n%s", code, docker(c.t, "logs", "--tail", "20", c.name))
	}
	docker(c.t, "rm", c.name)
}

func (c *container) healthy() {
	c.t.Helper()
	if out, err := dockerTry("exec", c.name, "/meta1", "healthcheck", "-f", "/etc/meta1/meta1.conf"); err != nil {
		c.t.Errorf("healthcheck: %v: %s", err, out)
	}
}

// TestContainer builds the image, looks at it, and runs it: mail goes through it,
// metrics come out of it, and mail that is queued survives when the container is
// removed and made again on the same volume.
func TestContainer(t *testing.T) {
	t.Parallel()
	if out, err := dockerTry("version"); err != nil {
		t.Skipf("no Docker engine answers, so the container is not tested: %s", out)
	}
	tag := fmt.Sprintf("meta1-e2e:%d", os.Getpid())
	build := exec.Command("timeout", "600", "../scripts/image.sh", tag, "e2e")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("image.sh: %v\n%s", err, out)
	}
	c := &container{t: t, name: strings.ReplaceAll(tag, ":", "-"), image: tag, volume: strings.ReplaceAll(tag, ":", "-spool-")}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := dockerTry("logs", "--tail", "30", c.name)
			t.Logf("the container's log:\n%s", out)
		}
		_, _ = dockerTry("rm", "-f", c.name)
		_, _ = dockerTry("volume", "rm", "-f", c.volume)
		_, _ = dockerTry("rmi", "-f", tag)
	})
	checkImage(t, tag)
	t.Run("as shipped", func(t *testing.T) { testContainerDefault(t, c) })
	t.Run("with a configuration", func(t *testing.T) { testContainerMail(t, c) })
	t.Run("a drain to another", func(t *testing.T) { testContainerDrain(t, c) })
}

// TestDockerfile builds the image as somebody without Go does, where the Go image is
// already there: it is too large to be downloaded for a test.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	const base = "golang:1.26-bookworm"
	if out, err := dockerTry("image", "inspect", base); err != nil {
		t.Skipf("there is no image %s, so the first stage of the Dockerfile is not tested: %.200s", base, out)
	}
	tag := fmt.Sprintf("meta1-e2e-dockerfile:%d", os.Getpid())
	t.Cleanup(func() {
		_, _ = dockerTry("rmi", "-f", tag)
		_, _ = dockerTry("image", "prune", "-f", "--filter", "label=stage=meta1-build")
	})
	// The modules come with the files, so that the build needs no network.
	script := `cd .. && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$1" && cd "$1" && go mod vendor &&
		docker build -q --network none -t "$2" .`
	build := exec.Command("timeout", "900", "sh", "-c", script, "sh", testDir(t), tag)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	checkImage(t, tag)
}

// checkImage looks at what the image declares and holds.
func checkImage(t *testing.T, tag string) {
	t.Helper()
	var image []struct {
		Config struct {
			User         string
			ExposedPorts map[string]struct{}
			Volumes      map[string]struct{}
			Healthcheck  struct{ Test []string }
			Entrypoint   []string
			Cmd          []string
		}
	}
	if err := json.Unmarshal([]byte(docker(t, "inspect", tag)), &image); err != nil {
		t.Fatal(err)
	}
	c := image[0].Config
	if c.User == "" || strings.HasPrefix(c.User, "0") || strings.HasPrefix(c.User, "root") {
		t.Errorf("it runs as %q", c.User)
	}
	if _, ok := c.Volumes["/var/spool/meta1"]; !ok {
		t.Errorf("volumes: %v", c.Volumes)
	}
	for _, p := range []string{"25/tcp", "9025/tcp"} {
		if _, ok := c.ExposedPorts[p]; !ok {
			t.Errorf("%s is not exposed", p)
		}
	}
	if len(c.Healthcheck.Test) < 3 || c.Healthcheck.Test[0] != "CMD" || c.Healthcheck.Test[1] != "/meta1" {
		t.Errorf("health check: %q", c.Healthcheck.Test)
	}
	if got := strings.Join(append(c.Entrypoint, c.Cmd...), " "); got != "/meta1 serve -f /etc/meta1/meta1.conf" {
		t.Errorf("it starts %q", got)
	}
	for _, shell := range []string{"/bin/sh", "/bin/bash", "/bin/busybox", "/usr/bin/sh"} {
		if out, err := dockerTry("run", "--rm", "--entrypoint", shell, tag, "-c", "true"); err == nil {
			t.Errorf("it holds %s: %s", shell, out)
		}
	}
}

// testContainerDefault runs the image as it is: healthy, and no open relay.
func testContainerDefault(t *testing.T, c *container) {
	c.t = t
	c.up()
	c.healthy()
	must(t, func() error {
		if s := docker(t, "inspect", "-f", "{{.State.Health.Status}}", c.name); s != "healthy" {
			return fmt.Errorf("the engine finds it %s", s)
		}
		return nil
	})
	stranger := testMessage(1, 500, "somebody@elsewhere.test")
	stranger.from = "" // needs no route
	if err := sendOne(c.ip+":25", stranger); err == nil || !strings.Contains(err.Error(), "RCPT: 5") {
		t.Errorf("relaying for a stranger: %v", err)
	}
	c.down()
	docker(t, "volume", "rm", c.volume)
}

// testContainerMail sends mail through the container into a sink outside of it.
func testContainerMail(t *testing.T, c *container) {
	const n = 200
	c.t = t
	s := newSink(t, freeAddrOn(t, c.gateway))
	c.conf = testDir(t)
	shipped, err := os.ReadFile("../container/meta1.conf")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, c.conf+"/meta1.conf", strings.Replace(string(shipped), "qmgr {", "qmgr { retry_delay_min = 1s; retry_delay_max = 2s;", 1))
	writeFile(t, c.conf+"/mt", toPort(t, ".", s.addr))
	writeFile(t, c.conf+"/access", "cltaddr:"+c.gateway+" relay\n")
	make := func(id int) message { return testMessage(id, 100*id, fmt.Sprintf("u%d@sink.test", id)) }

	c.up()
	sendAll(t, c.ip+":25", 10, n, make)
	s.waitFor(n)
	scrape(t, net.JoinHostPort(c.ip, "9025"))

	s.close() // the next hop goes away: the rest is queued
	sendAll(t, c.ip+":25", 10, n, func(id int) message { return make(n + id) })
	c.down()
	c.up()
	s.open()
	s.waitFor(2 * n)
	c.healthy()
	if out := docker(t, "exec", c.name, "/meta1", "mailq", "-f", "/etc/meta1/meta1.conf"); !strings.Contains(out, "queue is empty") {
		t.Errorf("mailq: %s", out)
	}
	checkArrivals(t, s, 2*n, make)
	c.down()
}

// testContainerDrain has one container hand its queue over to another, and go.
func testContainerDrain(t *testing.T, c *container) {
	const n = 50
	s := newSink(t, freeAddrOn(t, c.gateway))
	make := func(id int) message { return testMessage(id, 100*id, fmt.Sprintf("u%d@sink.test", id)) }
	node := func(name, mailertable string) *container {
		k := &container{t: t, name: c.name + "-" + name, image: c.image, volume: c.volume + "-" + name, conf: testDir(t)}
		t.Cleanup(func() {
			_, _ = dockerTry("rm", "-f", k.name)
			_, _ = dockerTry("volume", "rm", "-f", k.volume)
		})
		writeFile(t, k.conf+"/meta1.conf", "hostname = \""+name+".container.test\";\n"+readFile(t, "../container/meta1.conf"))
		writeFile(t, k.conf+"/mt", mailertable)
		prefix, _, _ := strings.Cut(c.gateway, ".")
		writeFile(t, k.conf+"/access", "cltaddr:"+prefix+". relay\n")
		k.up()
		return k
	}
	goes := node("goes", toPort(t, ".", freeAddrOn(t, c.gateway))) // nobody is there
	stays := node("stays", toPort(t, ".", s.addr))
	sendAll(t, goes.ip+":25", 5, n, make)
	if out, err := dockerTry("exec", goes.name, "/meta1", "ctl", "drain", "--keep", "--wait", "--to", "["+stays.ip+"]"); err != nil || !strings.Contains(out, "drained: 0 recipients wait") {
		t.Errorf("%v: %s\n%s", err, out, docker(t, "logs", "--tail", "30", goes.name))
	}
	s.waitFor(n)
	if _, err := dockerTry("exec", goes.name, "/meta1", "healthcheck", "-f", "/etc/meta1/meta1.conf"); err == nil {
		t.Error("a container that drains is healthy")
	}
	goes.down()
	stays.healthy()
	seen := map[int]int{}
	for _, a := range s.arrivals() { // with a Received: line of each
		id := testID(a.data)
		if seen[id]++; seen[id] > 1 || !bytes.HasSuffix(a.data, make(id).data) {
			t.Errorf("message %d came %d times, or is not what was sent", id, seen[id])
		}
	}
	stays.down()
}
