// Package console serves the web console: a page, its style and its program, which are in the binary
// and ask the control API beside them. The page holds no data, so whoever names the right host may have
// it; the API asks for a token or a certificate.
package console

import (
	"embed"
	"net/http"
)

//go:embed page
var page embed.FS

// policy lets the page load, and ask, only what comes from its own place: no script of others, none in
// the page itself, no frame around it, no form that leads away.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// files are what is served, by path.
func files() map[string]struct{ name, kind string } {
	return map[string]struct{ name, kind string }{
		"/{$}":         {"page/index.html", "text/html; charset=utf-8"},
		"/console.css": {"page/console.css", "text/css; charset=utf-8"},
		"/console.js":  {"page/console.js", "text/javascript; charset=utf-8"},
		"/story.js":    {"page/story.js", "text/javascript; charset=utf-8"},
		"/icon.svg":    {"page/icon.svg", "image/svg+xml"},
	}
}

// Handler serves the page to whom foreign gives no reason against it, and everything else by api.
func Handler(api http.Handler, foreign func(r *http.Request) string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", api)
	for path, f := range files() {
		content, err := page.ReadFile(f.name)
		if err != nil {
			panic(err) // a file that is not in the binary: no test would pass
		}
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if reason := foreign(r); reason != "" {
				http.Error(w, reason, http.StatusForbidden)
				return
			}
			h := w.Header()
			h.Set("Content-Type", f.kind)
			h.Set("Content-Security-Policy", policy)
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
			h.Set("Cross-Origin-Resource-Policy", "same-origin")
			h.Set("Cache-Control", "no-cache")
			_, _ = w.Write(content) // the client has gone otherwise
		})
	}
	return mux
}
