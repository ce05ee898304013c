package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"meta1/client/tlsrpt"
	"meta1/mta/explain"
	"meta1/mta/supervise"
	"meta1/server/authn/dmarcrpt"
)

const (
	// clientTime bounds one question of a client that changes something, and askTime
	// one that only asks: a meta1 that hangs is to be noticed.
	clientTime = requestTime + 10*time.Second
	askTime    = 20 * time.Second
	// answerMax bounds an answer: a page of entries, each with a long reason.
	answerMax = 64 << 20
)

// ErrNotRunning says that no meta1 serves the control socket, ErrForbidden that we may not
// use it.
var (
	ErrNotRunning = errors.New("meta1 does not run")
	ErrForbidden  = errors.New("no permission to ask meta1")
)

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
	return &Client{path: path, http: http.Client{Timeout: clientTime, Transport: &http.Transport{DialContext: dial, ReadBufferSize: chunk}}}
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

// Stop makes meta1 end. It returns when the end has begun.
func (c *Client) Stop(ctx context.Context) error {
	return c.ask(ctx, http.MethodPost, "/stop", nil, &struct{}{})
}

// Reload makes meta1 take its configuration, maps, certificates and keys anew, all of them or none.
func (c *Client) Reload(ctx context.Context) (r ReloadReport, err error) {
	return r, c.ask(ctx, http.MethodPost, "/reload", nil, &r, http.StatusUnprocessableEntity)
}

// CheckReload asks what Reload would do. Nothing changes.
func (c *Client) CheckReload(ctx context.Context) (r ReloadReport, err error) {
	return r, c.ask(ctx, http.MethodPost, "/reload/check", nil, &r, http.StatusUnprocessableEntity)
}

// Queue calls f for each recipient in the queue, in order, until it returns an error.
func (c *Client) Queue(ctx context.Context, f func(Entry) error) error {
	return c.QueueBehind(ctx, "", f)
}

// firstPage is how many recipients are asked for at first, so that the first is there at once.
const firstPage = 200

// QueueBehind is Queue for the recipients behind one of that id. While f is called for one page
// the next is on its way, so two pages are in memory.
func (c *Client) QueueBehind(ctx context.Context, after string, f func(Entry) error) error {
	type answer struct {
		page Page
		err  error
	}
	g := supervise.NewGroup(ctx)
	answers := make(chan answer) // not buffered: one page waits while another is worked on
	g.Go(func(ctx context.Context) error {
		defer close(answers)
		size := 0
		for n := firstPage; ; n = PageMax {
			var a answer
			a.page, size, a.err = c.page(ctx, after, n, size)
			select {
			case answers <- a:
			case <-ctx.Done():
				return nil
			}
			if a.err != nil || !a.page.More || len(a.page.Entries) == 0 {
				return nil
			}
			after = a.page.Entries[len(a.page.Entries)-1].RcptID
		}
	})
	var err error
	for a := range answers {
		if err = a.err; err != nil {
			break
		}
		for i := range a.page.Entries {
			if err = f(a.page.Entries[i]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	g.Stop()
	if end := g.Wait(); err == nil {
		err = end
	}
	if err == nil {
		err = context.Cause(ctx) // the listing may be cut off
	}
	return err
}

// page asks for a page of the queue behind a recipient, and tells its size in bytes. likely is the size of
// the page before.
func (c *Client) page(ctx context.Context, after string, n, likely int) (p Page, size int, err error) {
	var text strings.Builder
	text.Grow(likely + likely/32) // else it is copied again and again as it grows
	q := url.Values{"after": {after}, "max": {strconv.Itoa(n)}}
	if err := c.ask(ctx, http.MethodGet, "/queue?"+q.Encode(), nil, &text); err != nil {
		return p, 0, err
	}
	if p, err = readPage(text.String()); err != nil {
		return p, 0, fmt.Errorf("reading the answer of meta1 at %s: %w", c.path, err)
	}
	return p, text.Len(), nil
}

// Operate does something to recipients in the queue.
func (c *Client) Operate(ctx context.Context, o Operation) (done Operated, err error) {
	return done, c.ask(ctx, http.MethodPost, "/queue", o, &done)
}

// Hosts asks for the hosts to which mail goes, or only for those that are closed.
func (c *Client) Hosts(ctx context.Context, closed bool) (h Hosts, err error) {
	return h, c.ask(ctx, http.MethodGet, "/hosts?closed="+strconv.FormatBool(closed), nil, &h)
}

// Stats asks for counts and rates.
func (c *Client) Stats(ctx context.Context) (s Stats, err error) {
	return s, c.ask(ctx, http.MethodGet, "/stats", nil, &s)
}

// Summary asks for the queue, counted. A long one takes a while to count: ctx bounds it.
func (c *Client) Summary(ctx context.Context, q SummaryQuestion) (s Summary, err error) {
	v := url.Values{"fresh": {strconv.FormatBool(q.Fresh)}}
	if q.Max > 0 {
		v.Set("max", strconv.Itoa(q.Max))
	}
	return s, c.askFor(ctx, clientTime, http.MethodGet, "/queue/summary?"+v.Encode(), nil, &s)
}

// Connections asks for sessions of clients and connections to hosts.
func (c *Client) Connections(ctx context.Context) (all Connections, err error) {
	return all, c.ask(ctx, http.MethodGet, "/connections", nil, &all)
}

// CloseConnection closes one, and reports whether there was one.
func (c *Client) CloseConnection(ctx context.Context, id string) (bool, error) {
	var done Closed
	err := c.ask(ctx, http.MethodPost, "/connections/close", CloseConnection{ID: id}, &done)
	return done.Closed, err
}

// Throttles asks for the limits that were set.
func (c *Client) Throttles(ctx context.Context) (all []Throttle, err error) {
	return all, c.ask(ctx, http.MethodGet, "/throttle", nil, &all)
}

// Throttle sets or clears a limit.
func (c *Client) Throttle(ctx context.Context, q ThrottleQuestion) (all []Throttle, err error) {
	return all, c.ask(ctx, http.MethodPost, "/throttle", q, &all)
}

// DrainState asks where a drain stands.
func (c *Client) DrainState(ctx context.Context) (d Drain, err error) {
	return d, c.ask(ctx, http.MethodGet, "/drain", nil, &d)
}

// Drain begins or cancels a drain.
func (c *Client) Drain(ctx context.Context, q DrainQuestion) (d Drain, err error) {
	return d, c.ask(ctx, http.MethodPost, "/drain", q, &d)
}

// Explain asks what would become of mail, and why.
func (c *Client) Explain(ctx context.Context, q explain.Question) (r explain.Report, err error) {
	return r, c.ask(ctx, http.MethodPost, "/explain", q, &r)
}

// TLSReports asks for the reports about TLS that are collected or wait to be sent.
func (c *Client) TLSReports(ctx context.Context, domain string) (list []tlsrpt.Entry, err error) {
	return list, c.ask(ctx, http.MethodGet, "/tlsreports?"+url.Values{"domain": {domain}}.Encode(), nil, &list)
}

// SendTLSReports has reports sent at once.
func (c *Client) SendTLSReports(ctx context.Context, q SendReports) (done ReportsSent, err error) {
	return done, c.ask(ctx, http.MethodPost, "/tlsreports", q, &done)
}

// DMARCReports asks for the reports about DMARC that are collected or wait to be sent.
func (c *Client) DMARCReports(ctx context.Context, domain string) (list []dmarcrpt.Entry, err error) {
	return list, c.ask(ctx, http.MethodGet, "/dmarcreports?"+url.Values{"domain": {domain}}.Encode(), nil, &list)
}

// SendDMARCReports has reports sent at once.
func (c *Client) SendDMARCReports(ctx context.Context, q SendReports) (done ReportsSent, err error) {
	return done, c.ask(ctx, http.MethodPost, "/dmarcreports", q, &done)
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

// ask sends a request, with a body if that is not nil, and reads its answer into v: as text into a
// strings.Builder, else as JSON. also are statuses besides 200
// whose body is an answer and not an error.
func (c *Client) ask(ctx context.Context, method, path string, body, v any, also ...int) error {
	limit := clientTime
	if method == http.MethodGet {
		limit = askTime
	}
	return c.askFor(ctx, limit, method, path, body, v, also...)
}

// askFor is ask within a time.
func (c *Client) askFor(ctx context.Context, limit time.Duration, method, path string, body, v any, also ...int) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
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
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
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
		return c.refused(r)
	}
	if text, ok := v.(*strings.Builder); ok {
		_, err = io.Copy(text, answer)
	} else {
		err = json.NewDecoder(answer).Decode(v)
	}
	if err != nil {
		return fmt.Errorf("reading the answer of meta1 at %s: %w", c.path, err)
	}
	return nil
}

// refused is the error that an answer has.
func (c *Client) refused(r *http.Response) error {
	var e apiError
	if json.NewDecoder(io.LimitReader(r.Body, answerMax)).Decode(&e) != nil || e.Error == "" {
		e.Error = r.Status
	}
	if r.StatusCode == http.StatusForbidden {
		return fmt.Errorf("%w: %s", ErrForbidden, e.Error)
	}
	return fmt.Errorf("asking meta1 at %s: %s", c.path, e.Error)
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
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: control socket %s: %w: it is for root, the account that serves, and those whom section control names", ErrForbidden, c.path, syscall.EACCES)
	}
	return fmt.Errorf("%w: control socket %s: %w", ErrNotRunning, c.path, op.Err)
}
