package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"reflect"
	"sync"
	"time"

	"meta1/mta/access"
	"meta1/mta/openapi"
)

const (
	// PageMax is the most entries of one answer to /queue.
	PageMax = 10_000
	// requestTime bounds the work on one request. Operations on a long queue take a while.
	requestTime = 5 * time.Minute
)

// apiError is the body of an error.
type apiError struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if page, ok := v.(Page); ok {
		_ = page.writeJSON(w)
		return
	}
	_ = json.NewEncoder(w).Encode(v) // the client has gone otherwise
}

// bodyMax bounds the body of a request, in bytes.
const bodyMax = 64 << 10

// api serves the routes to those whom a door lets in.
type api struct {
	backend Backend
	door    access.Door
	log     *slog.Logger
	refusal refusals
}

// Handler serves the API to those whom the door lets in, as far as their level goes. Who changes
// something is logged, and who is refused, that at most once a second; log may be nil.
func Handler(b Backend, door access.Door, log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &api{backend: b, door: door, log: log}
	mux := http.NewServeMux()
	for _, r := range routes() {
		mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, q *http.Request) { a.serve(&r, w, q) })
	}
	return mux
}

// serve answers one request.
func (a *api) serve(r *route, w http.ResponseWriter, q *http.Request) {
	who := a.door(q)
	switch {
	case who.Refused != "":
		a.refuse(w, q, who, who.Status, who.Refused)
		return
	case who.Level < r.level:
		a.refuse(w, q, who, http.StatusForbidden, "this needs the level "+r.level.String()+", and you have "+who.Level.String())
		return
	}
	if q.Method != http.MethodGet && q.ContentLength != 0 {
		// A page of a stranger cannot send this type without asking first (CORS), which nobody answers.
		if t, _, err := mime.ParseMediaType(q.Header.Get("Content-Type")); err != nil || t != "application/json" {
			answer(w, http.StatusUnsupportedMediaType, apiError{Error: "the body must be application/json"})
			return
		}
	}
	if r.level == access.Change {
		a.log.LogAttrs(q.Context(), slog.LevelInfo, "control request", slog.String("by", who.Name), slog.String("request", r.method+" "+r.path))
	}
	q.Body = http.MaxBytesReader(w, q.Body, bodyMax)
	if r.long != nil {
		r.long(a.backend, q, &longAnswer{w: w})
		return
	}
	ctx, cancel := context.WithTimeout(q.Context(), requestTime)
	defer cancel()
	status, v := r.handle(a.backend, q.WithContext(context.WithValue(ctx, whoKey{}, who)))
	answer(w, status, v)
}

type whoKey struct{}

// whoAsks is the asker of a request that serve lets in.
func whoAsks(r *http.Request) WhoAmI {
	who, _ := r.Context().Value(whoKey{}).(access.Who)
	return WhoAmI{Level: who.Level.String(), Name: who.Name}
}

func (a *api) refuse(w http.ResponseWriter, q *http.Request, who access.Who, status int, reason string) {
	if n, ok := a.refusal.tell(time.Now()); ok {
		a.log.LogAttrs(q.Context(), slog.LevelWarn, "control request refused", slog.String("by", who.Name), slog.String("reason", reason), slog.Int("untold", n))
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="meta1"`)
	}
	answer(w, status, apiError{Error: reason})
}

// refusals bounds how often refusals are logged.
type refusals struct {
	mu     sync.Mutex // guards the fields below
	last   time.Time
	untold int
}

// tell reports whether one more is logged, and how many were not since the last.
func (r *refusals) tell(now time.Time) (untold int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.last) < time.Second {
		r.untold++
		return 0, false
	}
	untold, r.untold, r.last = r.untold, 0, now
	return untold, true
}

// decode reads a body. What is not understood is an error: a condition that is passed over would
// match too much.
func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("reading the question: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("reading the question: something follows it")
	}
	return nil
}

// Description is the OpenAPI document of the API, which docs/openapi.json is.
func Description() ([]byte, error) {
	d := openapi.API{
		Title: "meta1 control API", Version: "1", Error: reflect.TypeFor[apiError](),
		Description: "Ask and steer a running meta1: by the control socket, and over TCP with a token or a certificate (docs/control.md). " +
			"x-level says what an asker must be allowed to do: read, or change. Bodies are application/json of at most 64 KB.",
	}
	for _, r := range routes() {
		d.Operations = append(d.Operations, openapi.Operation{
			Method: r.method, Path: r.path, ID: r.id, Summary: r.summary, Level: r.level.String(),
			Params: r.params, Body: r.body, Answer: r.answer, Also: r.also,
		})
	}
	return openapi.Document(d)
}
