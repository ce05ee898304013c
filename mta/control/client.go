package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// clientTime bounds one question of a client that changes something, and askTime
	// one that only asks: a meta1 that hangs is to be noticed.
	clientTime = requestTime + 10*time.Second
	askTime    = 20 * time.Second
	// answerMax bounds an answer: a page of entries, each with a long reason.
	answerMax = 64 << 20
)

// ErrNotRunning says that no meta1 serves the control socket.
var ErrNotRunning = errors.New("meta1 does not run")

// Client asks a running meta1.
type Client struct {
	path string
	http http.Client
}

// NewClient makes a client of the control socket at path. Close it after use.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: http.Client{Timeout: clientTime, Transport: &http.Transport{DialContext: dial}}}
}

// Close ends the connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for a snapshot.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.ask(ctx, http.MethodGet, "/status", nil, &s)
}

// Health asks whether all is well; the error only says that the question failed.
func (c *Client) Health(ctx context.Context) (h Health, err error) {
	return h, c.ask(ctx, http.MethodGet, "/healthz", nil, &h, http.StatusServiceUnavailable)
}

// Reload makes meta1 read its maps and log levels anew.
func (c *Client) Reload(ctx context.Context) (r ReloadReport, err error) {
	return r, c.ask(ctx, http.MethodPost, "/reload", nil, &r, http.StatusUnprocessableEntity)
}

// Queue calls f for each recipient in the queue, in order, until it returns an error.
func (c *Client) Queue(ctx context.Context, f func(Entry) error) error {
	after := ""
	for {
		var p Page
		q := url.Values{"after": {after}, "max": {strconv.Itoa(PageMax)}}
		if err := c.ask(ctx, http.MethodGet, "/queue?"+q.Encode(), nil, &p); err != nil {
			return err
		}
		for _, e := range p.Entries {
			if err := f(e); err != nil {
				return err
			}
		}
		if !p.More || len(p.Entries) == 0 {
			return nil
		}
		after = p.Entries[len(p.Entries)-1].RcptID
	}
}

// Operate does something to recipients in the queue.
func (c *Client) Operate(ctx context.Context, o Operation) (done Operated, err error) {
	return done, c.ask(ctx, http.MethodPost, "/queue", o, &done)
}

// Hosts asks for the hosts to which mail goes, or only for those that are closed.
func (c *Client) Hosts(ctx context.Context, closed bool) (h Hosts, err error) {
	return h, c.ask(ctx, http.MethodGet, "/hosts?closed="+strconv.FormatBool(closed), nil, &h)
}

// Fsck calls f for each thing that a check of the databases of the queue finds, and
// returns how many records and files were examined.
func (c *Client) Fsck(ctx context.Context, content bool, f func(Finding)) (examined uint64, err error) {
	q := FsckQuestion{Content: content}
	for {
		var a FsckAnswer
		if err := c.ask(ctx, http.MethodPost, "/fsck", q, &a); err != nil {
			return examined, err
		}
		for _, one := range a.Findings {
			f(one)
		}
		examined, q.Cursor = a.Examined, a.Cursor
		if a.Err != "" {
			return examined, fmt.Errorf("asking meta1 at %s: %s", c.path, a.Err)
		}
		if q.Cursor == "" {
			return examined, nil
		}
	}
}

// ask sends a request, with a body if that is not nil, and reads its answer into v. also are statuses besides 200
// whose body is an answer and not an error.
func (c *Client) ask(ctx context.Context, method, path string, body, v any, also ...int) error {
	if method == http.MethodGet {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askTime)
		defer cancel()
	}
	text := io.Reader(http.NoBody)
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		text = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://meta1"+path, text)
	if err != nil {
		return err
	}
	r, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer r.Body.Close()
	answer := io.LimitReader(r.Body, answerMax)
	ok := r.StatusCode == http.StatusOK
	for _, s := range also {
		ok = ok || r.StatusCode == s
	}
	if !ok {
		var e apiError
		if json.NewDecoder(answer).Decode(&e) != nil || e.Error == "" {
			e.Error = r.Status
		}
		return fmt.Errorf("asking meta1 at %s: %s", c.path, e.Error)
	}
	if err := json.NewDecoder(answer).Decode(v); err != nil {
		return fmt.Errorf("reading the answer of meta1 at %s: %w", c.path, err)
	}
	return nil
}

// unreachable explains why nobody answers.
func (c *Client) unreachable(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" {
		return fmt.Errorf("asking meta1 at %s: %w", c.path, err)
	}
	if errors.Is(err, context.DeadlineExceeded) || op.Timeout() {
		return fmt.Errorf("asking meta1 at %s: %w", c.path, op.Err)
	}
	return fmt.Errorf("%w: control socket %s: %w", ErrNotRunning, c.path, op.Err)
}
