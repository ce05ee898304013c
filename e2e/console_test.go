package e2e

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// browser is a headless Chromium with one page, steered by its DevTools over a pipe.
type browser struct {
	t       *testing.T
	in      io.Writer
	out     *bufio.Reader
	session string
	n       int
	faults  []string // what its console tells of errors
}

// newBrowser starts one. The test is left out where there is no Chromium: it is too large for what CI installs.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium: apt-get install chromium has this test run")
	}
	toR, toW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromR, fromW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
		"--disable-background-networking", "--remote-debugging-pipe", "--user-data-dir="+testDir(t), "about:blank")
	cmd.ExtraFiles = []*os.File{toR, fromW}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	toR.Close()
	fromW.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		toW.Close()
		fromR.Close()
	})
	b := &browser{t: t, in: toW, out: bufio.NewReader(fromR)}
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

// call calls a method of DevTools and waits for its result.
func (b *browser) call(method string, params map[string]any, result any) {
	b.t.Helper()
	b.n++
	q := map[string]any{"id": b.n, "method": method}
	if params != nil {
		q["params"] = params
	}
	if b.session != "" {
		q["sessionId"] = b.session
	}
	text, err := json.Marshal(q)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.in.Write(append(text, 0)); err != nil {
		b.t.Fatal(err)
	}
	for {
		line, err := b.out.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: the browser says no more: %v", method, err)
		}
		var a struct {
			ID     int
			Method string
			Result json.RawMessage
			Params json.RawMessage
			Error  json.RawMessage
		}
		if err := json.Unmarshal(line[:len(line)-1], &a); err != nil {
			b.t.Fatal(err)
		}
		if a.Method == "Runtime.exceptionThrown" || a.Method == "Log.entryAdded" && strings.Contains(string(a.Params), `"level":"error"`) {
			b.faults = append(b.faults, string(a.Params))
		}
		if a.ID != b.n {
			continue
		}
		if a.Error != nil {
			b.t.Fatalf("%s: %s", method, a.Error)
		}
		if result != nil {
			if err := json.Unmarshal(a.Result, result); err != nil {
				b.t.Fatal(err)
			}
		}
		return
	}
}

// eval evaluates an expression of JavaScript, as a text.
func (b *browser) eval(js string) string {
	b.t.Helper()
	var a struct {
		Result struct{ Value any }
	}
	b.call("Runtime.evaluate", map[string]any{"expression": "String(" + js + ")", "returnByValue": true}, &a)
	return fmt.Sprint(a.Result.Value)
}

// until waits until an expression is true.
func (b *browser) until(js string) {
	b.t.Helper()
	must(b.t, func() error {
		if got := b.eval(js); got != "true" {
			return fmt.Errorf("%s is %s; the page: %.600s", js, got, b.eval("document.body.innerText"))
		}
		return nil
	})
}

// press presses a key.
func (b *browser) press(key string) {
	b.t.Helper()
	code := map[string]int{"Enter": 13, "Tab": 9}[key]
	p := map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code}
	if key == "Enter" {
		p["text"] = "\r"
	}
	b.call("Input.dispatchKeyEvent", p, nil)
	p["type"] = "keyUp"
	delete(p, "text")
	b.call("Input.dispatchKeyEvent", p, nil)
}

// show sets width and scheme.
func (b *browser) show(width int, scheme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// shoot keeps a screenshot if META1_SCREENSHOTS names a directory for them.
func (b *browser) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("META1_SCREENSHOTS")
	if dir == "" {
		return
	}
	var a struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &a)
	png, err := base64.StdEncoding.DecodeString(a.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/"+name+".png", png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// TestConsole uses the console as a person would: with a token of each level, by keyboard, in each view, wide
// and narrow, light and dark; and holds a message by it.
func TestConsole(t *testing.T) {
	t.Parallel()
	b := newBrowser(t)
	s := newSink(t, "")
	s.answer(func(verb, _ string) string {
		return map[string]string{"RCPT": "451 4.7.1 not now <img src=x onerror=alert(1)>"}[verb]
	})
	addr := freeAddr(t)
	m := run(t, settings{global: withAPI(t, addr, ""), mailertable: toPort(t, "a.test", s.addr) + toPort(t, "client.test", s.addr)})
	defer m.stop()
	if err := sendOne(m.smtp, testMessage(1, 100, "x@a.test")); err != nil {
		t.Fatal(err)
	}
	must(t, func() error { return m.queueShows(1, "4.7.1") })
	queued, err := m.queue()
	if err != nil {
		t.Fatal(err)
	}
	id := queued[0].QueueID

	b.show(1200, "light")
	b.call("Page.navigate", map[string]any{"url": "http://" + addr + "/"}, nil)
	enter := func(token string) {
		t.Helper()
		b.until(`!document.getElementById("login").hidden && document.activeElement.id === "token"`)
		b.call("Input.insertText", map[string]any{"text": token}, nil)
		b.press("Enter")
	}
	b.until(`document.activeElement && document.activeElement.id === "token"`)
	b.shoot("login")
	b.faults = nil // without a token the first question is refused, which the browser tells
	enter("wrong-0123456789-wrong")
	b.until(`document.getElementById("loginError").textContent.includes("wrong")`)
	enter(readToken)
	b.until(`document.body.dataset.view === "overview" && document.body.innerText.includes("4.7.1 not now")`)
	b.faults = nil

	for _, v := range []struct{ hash, want string }{
		{"overview", "Queue by destination"},
		{"queue", "x@a.test"},
		{"message/" + id, "waits because"},
		{"hosts", "127.0.0.1"},
		{"connections", "Connections"},
		{"explain", "What would become of mail"},
		{"config", "control/http/token_file"},
	} {
		name, _, _ := strings.Cut(v.hash, "/")
		b.eval(`location.hash = "#` + v.hash + `"`)
		b.until(`document.body.dataset.view === "` + name + `" && document.body.innerText.includes(` + fmt.Sprintf("%q", v.want) + `)`)
		for _, width := range []int{1200, 400} {
			for _, scheme := range []string{"light", "dark"} {
				b.show(width, scheme)
				if got := b.eval("document.documentElement.scrollWidth - window.innerWidth"); !strings.HasPrefix(got, "-") && got != "0" {
					t.Errorf("%s is %s pixels wider than its window of %d", name, got, width)
				}
				b.shoot(fmt.Sprintf("%s-%d-%s", name, width, scheme))
			}
		}
		b.show(1200, "light")
	}
	if n := b.eval(`document.querySelectorAll("img, iframe").length`); n != "0" {
		t.Error("what a host said became markup")
	}
	b.eval(`location.hash = "#message/` + id + `"`)
	b.until(`document.querySelectorAll("#view button[disabled]").length >= 5`) // a token that may only read

	b.eval(`document.getElementById("logout").click()`)
	enter(changeToken)
	b.until(`[...document.querySelectorAll("#view button")].some((b) => b.textContent === "hold" && !b.disabled)`)
	b.eval(`[...document.querySelectorAll("#view button")].find((b) => b.textContent === "hold").focus()`)
	held := func(want string) {
		t.Helper()
		must(t, func() error {
			q, err := m.queue()
			if err == nil && (len(q) != 1 || q[0].QueueName != want) {
				err = fmt.Errorf("the queue has %+v", q)
			}
			return err
		})
	}
	b.press("Enter")
	b.until(`document.getElementById("confirm").open && document.activeElement.id === "confirmNo"`)
	b.shoot("confirm")
	b.press("Enter") // Cancel
	b.until(`!document.getElementById("confirm").open`)
	must(t, func() error { // until it was not on its way
		b.eval(`(document.getElementById("state").textContent = "", [...document.querySelectorAll("#view button")].find((b) => b.textContent === "hold").focus())`)
		b.press("Enter")
		b.until(`document.getElementById("confirm").open`)
		b.press("Tab")
		b.until(`document.activeElement.id === "confirmYes"`)
		// A click, since DevTools sends one press as two events: the first closes the dialog, and the focus goes back to
		// the button behind it, which the second could press again.
		b.eval(`document.getElementById("confirmYes").click()`)
		b.until(`!document.getElementById("confirm").open && document.getElementById("state").textContent.startsWith("hold: ")`)
		if got := b.eval(`document.getElementById("state").textContent`); !strings.HasPrefix(got, "hold: 1 ") {
			return fmt.Errorf("the page says %s", got)
		}
		return nil
	})
	held("hold")
	b.eval(`location.hash = "#explain"`)
	b.until(`document.getElementById("e-to") !== null`)
	b.eval(`(document.getElementById("e-client").value = "127.0.0.1", document.getElementById("e-to").value = "x@a.test", document.querySelector("#view form button").click())`)
	b.until(`document.body.innerText.includes("Verdict:")`)
	b.shoot("explained")
	if len(b.faults) > 0 {
		t.Errorf("the browser tells of errors: %s", strings.Join(b.faults, "\n"))
	}
}
