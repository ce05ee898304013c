package console

import (
	"encoding/json"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tdewolff/parse/v2"
	"github.com/tdewolff/parse/v2/js"
)

// The tests of this file look at the page without a browser: e2e's TestConsole has one, where there is one.

func text(t *testing.T, name string) string {
	t.Helper()
	b, err := page.ReadFile("page/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// all are the submatches of a pattern.
func all(pattern, text string) (found []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

func programs(t *testing.T) string { return text(t, "story.js") + text(t, "console.js") }

// TestPrograms: what is served is JavaScript.
func TestPrograms(t *testing.T) {
	for _, name := range []string{"story.js", "console.js"} {
		if _, err := js.Parse(parse.NewInputString(text(t, name)), js.Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := js.Parse(parse.NewInputString("async function f( { }"), js.Options{}); err == nil {
		t.Error("the parser takes anything")
	}
}

// question is what the program asks of the API.
type question struct {
	path  string
	query []string
	body  bool
}

// questions are all calls of ask with a path that is written down.
func questions(program string) (list []question) {
	calls := regexp.MustCompile(`ask\("([^"]*)"(?: \+ encodeURIComponent\((?:[^()]|\([^()]*\))*\))?(,?)`)
	for _, m := range calls.FindAllStringSubmatch(program, -1) {
		path, query, _ := strings.Cut(m[1], "?")
		q := question{path: "/" + path, body: m[2] == ","}
		if strings.HasSuffix(path, "/") {
			q.path += "{id}"
		}
		for _, part := range strings.Split(query, "&") {
			if name, _, ok := strings.Cut(part, "="); ok {
				q.query = append(q.query, name)
			}
		}
		list = append(list, q)
	}
	return list
}

// TestQuestions: each operation that the program asks for is one of docs/openapi.json, with its parameters.
func TestQuestions(t *testing.T) {
	b, err := os.ReadFile("../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Name string }
			Body       *struct{} `json:"requestBody"`
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	program := programs(t)
	list := questions(program)
	if n := strings.Count(program, "ask(") - strings.Count(program, "function ask("); len(list) != n || n < 12 {
		t.Errorf("%d of %d questions are understood", len(list), n)
	}
	for _, q := range list {
		method := "get"
		if q.body {
			method = "post"
		}
		op, ok := doc.Paths[q.path][method]
		if !ok || q.body != (op.Body != nil) {
			t.Errorf("the page asks %s %s, which the API does not have", method, q.path)
		}
		for _, name := range q.query {
			if !slices.ContainsFunc(op.Parameters, func(p struct{ Name string }) bool { return p.Name == name }) {
				t.Errorf("the page asks %s with %s, which the API does not know", q.path, name)
			}
		}
	}
}

// TestIDs: each element that is named is there, once; labels, the skip link and the views lead somewhere.
func TestIDs(t *testing.T) {
	index, program := text(t, "index.html"), programs(t)
	ids := all(`\bid="([^"]+)"`, index)
	made := append(all(`\bid: "([^"]+)"`, program), all(`field\("([^"]+)"`, program)...)
	for i, id := range append(ids, made...) {
		if slices.Index(append(ids, made...), id) != i {
			t.Errorf("two elements are %s", id)
		}
	}
	for _, id := range append(all(`\$\("([^"]+)"\)`, program), append(all(`\b(?:value|v)\("([^"]+)"\)`, program), append(all(`\bfor: "([^"]+)"`, program), all(`(?:for|aria-labelledby)="([^"]+)"`, index)...)...)...) {
		if !slices.Contains(ids, id) && !slices.Contains(made, id) {
			t.Errorf("nothing is %s", id)
		}
	}
	views := all(`(?m)^  async (\w+)\(`, program)
	var linked []string
	for _, to := range all(`href="#([^"]+)"`, index) {
		if !slices.Contains(ids, to) {
			linked = append(linked, to)
		}
	}
	if slices.Sort(views); len(views) < 7 || !slices.Equal(views, slices.Sorted(slices.Values(linked))) {
		t.Errorf("the views are %v, and linked are %v", views, linked)
	}
	for _, id := range all(`href: "#(\w+)`, program) {
		if !slices.Contains(views, id) {
			t.Errorf("there is no view %s", id)
		}
	}
}

// TestKeyboard: what can be clicked is a button, what is filled in has a label, and the focus is seen.
func TestKeyboard(t *testing.T) {
	index, program, style := text(t, "index.html"), programs(t), text(t, "console.css")
	for _, m := range regexp.MustCompile(`(?s)el\("(\w+)", \{[^{}]*on: \{ (\w+):`).FindAllStringSubmatch(program, -1) {
		if ok := map[string]string{"button": "click", "form": "submit", "input": "input change"}; !strings.Contains(ok[m[1]], m[2]) {
			t.Errorf("%s of %s: not by the keyboard", m[2], m[1])
		}
	}
	if n := strings.Count(program, "click:"); n == 0 || n != len(regexp.MustCompile(`(?s)el\("button", \{[^{}]*on: \{ click:`).FindAllString(program, -1)) {
		t.Errorf("%d clicks, not all of them on a button", n)
	}
	labels := append(all(`<label for="([^"]+)"`, index), append(all(`el\("label", \{ for: "([^"]+)"`, program), all(`field\("([^"]+)"`, program)...)...)
	for _, id := range append(all(`<(?:input|select|textarea) id="([^"]+)"`, index), all(`el\("(?:input|select|textarea)", \{ id: "([^"]+)"`, program)...) {
		if !slices.Contains(labels, id) {
			t.Errorf("%s has no label", id)
		}
	}
	if n, m := strings.Count(index, "<input"), len(all(`<input id="([^"]+)"`, index)); n != m {
		t.Errorf("%d of %d inputs have no id", n-m, n)
	}
	for _, n := range append(all(`tabindex="([^"]+)"`, index), all(`tabindex: "([^"]+)"`, program)...) {
		if n != "0" && n != "-1" {
			t.Errorf("the order of the keyboard is changed: %s", n)
		}
	}
	for _, e := range []string{"a", "button", "input", "select", ".scroll"} {
		if !regexp.MustCompile(`(^|[\s,])` + regexp.QuoteMeta(e) + `:focus-visible`).MatchString(style) {
			t.Errorf("the focus is not seen on %s", e)
		}
	}
	if n := len(regexp.MustCompile(`outline:\s*(none|0)`).FindAllString(style, -1)); n > strings.Count(style, "main:focus { outline: none; }") {
		t.Error("the focus is hidden")
	}
	for _, want := range []string{`<html lang="`, `<meta name="viewport" content="width=device-width, initial-scale=1">`, `<title>`, `class="skip" href="#main"`, `role="status"`} {
		if !strings.Contains(index, want) {
			t.Errorf("the page has no %s", want)
		}
	}
}

// colour is a colour of the style, as light: red, green and blue from 0 to 1.
type colour [3]float64

func hexColour(t *testing.T, s string) (c colour) {
	t.Helper()
	if len(s) == 3 {
		s = string([]byte{s[0], s[0], s[1], s[1], s[2], s[2]})
	}
	for i := range c {
		n, err := strconv.ParseUint(s[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c[i] = float64(n) / 255
	}
	return c
}

// over is the colour with an opacity over another.
func (c colour) over(back colour, opacity float64) colour {
	for i := range c {
		c[i] = opacity*c[i] + (1-opacity)*back[i]
	}
	return c
}

// luminance and contrast are those of WCAG 2.
func (c colour) luminance() float64 {
	for i, v := range c {
		if v <= 0.04045 {
			c[i] = v / 12.92
		} else {
			c[i] = math.Pow((v+0.055)/1.055, 2.4)
		}
	}
	return 0.2126*c[0] + 0.7152*c[1] + 0.0722*c[2]
}

func contrast(a, b colour) float64 {
	x, y := a.luminance(), b.luminance()
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// TestContrast: text can be read, light and dark (WCAG 2, level AA: 4.5, and 3 for what shows the focus).
func TestContrast(t *testing.T) {
	style := text(t, "console.css")
	roots := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(style, -1)
	if len(roots) != 2 || !strings.Contains(style, "prefers-color-scheme: dark") {
		t.Fatal("not a light and a dark scheme")
	}
	for i, scheme := range []string{"light", "dark"} {
		c := map[string]colour{}
		for _, m := range regexp.MustCompile(`--(\w+): #([0-9a-f]+);`).FindAllStringSubmatch(roots[i][1], -1) {
			c[m[1]] = hexColour(t, m[2])
		}
		for _, name := range all(`var\(--(\w+)\)`, style) {
			if _, ok := c[name]; !ok {
				t.Errorf("%s: no colour %s", scheme, name)
			}
		}
		for _, back := range []string{"back", "card"} {
			for _, fore := range []string{"fore", "soft", "blue", "red", "green"} {
				if got := contrast(c[fore], c[back]); got < 4.5 {
					t.Errorf("%s: %s on %s has a contrast of %.2f", scheme, fore, back, got)
				}
			}
		}
		heat := regexp.MustCompile(`--heat: (\d+), (\d+), (\d+);`).FindStringSubmatch(roots[i][1])
		if heat == nil {
			t.Fatal("no heat")
		}
		var h colour
		for j := range h {
			n, _ := strconv.Atoi(heat[j+1])
			h[j] = float64(n) / 255
		}
		if got := contrast(c["fore"], h.over(c["back"], 0.48)); got < 4.5 { // ages() goes no further
			t.Errorf("%s: a full cell has a contrast of %.2f", scheme, got)
		}
	}
	if got := contrast(colour{}, colour{1, 1, 1}); math.Abs(got-21) > 0.01 {
		t.Errorf("black on white is %v", got)
	}
}
