package console

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func get(t *testing.T, path, foreign string) *httptest.ResponseRecorder {
	t.Helper()
	api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	w := httptest.NewRecorder()
	Handler(api, func(*http.Request) string { return foreign }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// TestHandler: the page and what it names are served with a strict policy, everything else is the API's.
func TestHandler(t *testing.T) {
	index := get(t, "/", "")
	named := regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(index.Body.String(), -1)
	if len(named) < 4 {
		t.Fatalf("the page names %v", named)
	}
	for _, n := range append(named, []string{"", ""}) {
		w := get(t, "/"+n[1], "")
		h := w.Header()
		if w.Code != http.StatusOK || w.Body.Len() == 0 || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%q: %d %v", n[1], w.Code, h)
		}
		if w := get(t, "/"+n[1], "a stranger"); w.Code != http.StatusForbidden {
			t.Errorf("%q for a stranger: %d", n[1], w.Code)
		}
	}
	for _, path := range []string{"/status", "/page/index.html", "/messages/x", "/index.html"} {
		if w := get(t, path, ""); w.Code != http.StatusTeapot {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Error(policy)
	}
}

// TestNoMarkup: nothing of others is loaded, and nothing is ever parsed as HTML or as a program.
func TestNoMarkup(t *testing.T) {
	for path, f := range files() {
		content, err := page.ReadFile(f.name)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(content), "http://www.w3.org/2000/svg", "")
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "http://", "https://", " style=\"", "onclick=", "javascript:"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s has %s", path, bad)
			}
		}
		if strings.Contains(f.kind, "html") && regexp.MustCompile(`<script(?:>| [^>]*>[^<])`).MatchString(text) {
			t.Errorf("%s has a program in it", path)
		}
	}
}
