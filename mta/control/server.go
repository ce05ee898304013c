package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/netutil"

	"meta1/mta/supervise"
)

const (
	// PageMax is the most entries of one answer to /queue.
	PageMax = 10_000
	// connectionsMax bounds the connections that are open at once.
	connectionsMax = 64
	// requestTime bounds the work on one request. Operations on a long queue take a while.
	requestTime = 5 * time.Minute
	// writeTime bounds an answer: a profile may take a while.
	writeTime = 10 * time.Minute
)

// Handler serves the API.
func Handler(b Backend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, b.Status(r.Context()))
	})
	mux.HandleFunc("GET /queue", func(w http.ResponseWriter, r *http.Request) { queue(b, w, r) })
	mux.HandleFunc("POST /queue", func(w http.ResponseWriter, r *http.Request) { operate(b, w, r) })
	mux.HandleFunc("GET /hosts", func(w http.ResponseWriter, r *http.Request) {
		hosts, err := b.Hosts(r.Context(), r.FormValue("closed") == "true")
		if err != nil {
			answer(w, http.StatusServiceUnavailable, apiError{Error: err.Error()})
			return
		}
		answer(w, http.StatusOK, hosts)
	})
	mux.HandleFunc("POST /fsck", func(w http.ResponseWriter, r *http.Request) { fsck(b, w, r) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		h := b.Health(r.Context())
		status := http.StatusOK
		if !h.OK {
			status = http.StatusServiceUnavailable
		}
		answer(w, status, h)
	})
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		report := b.Reload(r.Context())
		status := http.StatusOK
		if len(report.Errors) > 0 {
			status = http.StatusUnprocessableEntity
		}
		answer(w, status, report)
	})
	return limit(mux)
}

func queue(b Backend, w http.ResponseWriter, r *http.Request) {
	n := PageMax
	if s := r.FormValue("max"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 {
			answer(w, http.StatusBadRequest, apiError{Error: "max is not a positive number"})
			return
		}
	}
	page, err := b.Queue(r.Context(), r.FormValue("after"), min(n, PageMax))
	if err != nil {
		answer(w, http.StatusServiceUnavailable, apiError{Error: err.Error()})
		return
	}
	answer(w, http.StatusOK, page)
}

func operate(b Backend, w http.ResponseWriter, r *http.Request) {
	var o Operation
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields() // a criterion that is not understood must not match all
	if err := d.Decode(&o); err != nil {
		answer(w, http.StatusBadRequest, apiError{Error: "reading the operation: " + err.Error()})
		return
	}
	done, err := b.Operate(r.Context(), o)
	if err != nil {
		answer(w, http.StatusBadRequest, apiError{Error: err.Error()})
		return
	}
	answer(w, http.StatusOK, done)
}

func fsck(b Backend, w http.ResponseWriter, r *http.Request) {
	var q FsckQuestion
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		answer(w, http.StatusBadRequest, apiError{Error: "reading the question: " + err.Error()})
		return
	}
	a, err := b.Fsck(r.Context(), q)
	if err != nil {
		answer(w, http.StatusServiceUnavailable, apiError{Error: err.Error()})
		return
	}
	answer(w, http.StatusOK, a)
}

// apiError is the body of an error.
type apiError struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client has gone otherwise
}

// limit bounds the time and the size of requests.
func limit(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTime)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Serve serves a handler on a listener until ctx ends, and closes it. It bounds the
// connections, their idle time and the time for a request's header; further
// connections wait. It suits the HTTP server for metrics as well.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: writeTime, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	g := supervise.NewGroup(context.WithoutCancel(ctx))
	g.Go(func(context.Context) error {
		if err := s.Serve(netutil.LimitListener(l, connectionsMax)); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving HTTP on %s: %w", l.Addr(), err)
		}
		return nil
	})
	select {
	case <-ctx.Done():
	case <-g.Context().Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if s.Shutdown(stop) != nil {
		_ = s.Close()
	}
	return g.Wait()
}
