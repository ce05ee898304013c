package tracing

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// answerMax bounds what is read of an answer.
	answerMax = 64 << 10
	// tokenMax bounds a token.
	tokenMax = 16 << 10
	// afterMax bounds for how long a collector may put us off.
	afterMax = 5 * time.Minute
)

// exporter posts batches to a collector.
type exporter struct {
	cfg    Config
	read   func(path string) ([]byte, error)
	agent  string
	client http.Client
	ill    atomic.Bool
}

// newExporter makes one. The error is that of the file with authorities.
func newExporter(cfg Config, deps Deps) (*exporter, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := deps.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("traces.CAcert_file: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("traces.CAcert_file: %s has no certificate in PEM format", cfg.CAFile)
		}
	}
	return &exporter{
		cfg: cfg, read: deps.ReadFile, agent: "meta1/" + deps.Version,
		client: http.Client{
			Timeout: cfg.Timeout,
			Transport: &http.Transport{
				DialContext:       (&net.Dialer{Timeout: cfg.Timeout}).DialContext,
				TLSClientConfig:   tlsConfig,
				ForceAttemptHTTP2: true, MaxConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: answerMax,
				DisableCompression: true, // an answer must not grow beyond what is read of it
			},
			// The token is for the endpoint that the configuration names.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// outcome is what became of one request.
type outcome struct {
	err      error         // nil: it was taken
	rejected int64         // spans that were refused of those that were taken
	again    bool          // the same request may have success later
	after    time.Duration // not before that
}

// post sends one request.
func (e *exporter) post(ctx context.Context, body []byte) outcome {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, e.cfg.Endpoint, bytes.NewReader(body))
	if err != nil {
		return outcome{err: err}
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("User-Agent", e.agent)
	if err := e.authorize(q); err != nil {
		return outcome{err: err, again: true} // who renews the token may be about to write it
	}
	r, err := e.client.Do(q)
	if err != nil {
		return outcome{err: err, again: true}
	}
	defer r.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(r.Body, answerMax))
	switch code := r.StatusCode; {
	case code == http.StatusTooManyRequests, code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return outcome{err: errors.New(r.Status), again: true, after: retryAfter(r.Header.Get("Retry-After"), time.Now())}
	case code/100 != 2:
		return outcome{err: errors.New(r.Status)}
	case err != nil:
		return outcome{} // it has the spans; a second time would double them
	}
	return outcome{rejected: rejected(answer)}
}

// authorize adds the token, which is read anew for each request.
func (e *exporter) authorize(q *http.Request) error {
	if e.cfg.TokenFile == "" {
		return nil
	}
	content, err := e.read(e.cfg.TokenFile)
	if err != nil {
		return fmt.Errorf("reading the token: %w", err)
	}
	token := strings.TrimSpace(string(content))
	if len(token) == 0 || len(token) > tokenMax || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%s holds no token: one word of printable ASCII", e.cfg.TokenFile)
	}
	if strings.EqualFold(e.cfg.TokenHeader, "Authorization") {
		token = "Bearer " + token
	}
	q.Header.Set(e.cfg.TokenHeader, token)
	return nil
}

// rejected is how many spans an answer says were refused. One that cannot be read says nothing.
func rejected(answer []byte) int64 {
	var a struct {
		PartialSuccess struct {
			RejectedSpans json.RawMessage `json:"rejectedSpans"` // a number, as a string or not
		} `json:"partialSuccess"`
	}
	if json.Unmarshal(answer, &a) != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.Trim(string(a.PartialSuccess.RejectedSpans), `"`), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// retryAfter reads Retry-After, seconds or a date.
func retryAfter(s string, now time.Time) time.Duration {
	d := time.Duration(0)
	if n, err := strconv.Atoi(s); err == nil {
		d = time.Duration(min(max(n, 0), int(afterMax/time.Second))) * time.Second
	} else if t, err := http.ParseTime(s); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), afterMax)
}

// failing notes a failure, and reports whether it is the first since a success.
func (e *exporter) failing() bool { return !e.ill.Swap(true) }

// healthy notes a success, and reports whether there were failures before.
func (e *exporter) healthy() bool { return e.ill.Swap(false) }
