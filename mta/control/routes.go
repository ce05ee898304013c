package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strconv"

	"meta1/client/tlsrpt"
	"meta1/confparse"
	"meta1/mta/access"
	"meta1/mta/explain"
	"meta1/mta/openapi"
	"meta1/server/authn/dmarcrpt"
)

// route is one operation of the API: what serves it and what describes it.
type route struct {
	method, path, id, summary string
	level                     access.Level
	params                    []openapi.Param
	body, answer              reflect.Type // nil: none
	also                      []int        // statuses besides 200 with which the answer comes
	handle                    func(b Backend, r *http.Request) (status int, v any)
	// long, in the place of handle, serves what has no other limit of time than the patience of the asker.
	long func(b Backend, r *http.Request, w *longAnswer)
}

// routes are all operations. What serves and what is documented comes from here alone.
func routes() []route {
	return []route{
		{
			method: "GET", path: "/status", id: "status", level: access.Read, answer: reflect.TypeFor[Status](),
			summary: "A snapshot: modules, sockets, and what each module tells of itself.",
			handle:  asks(func(b Backend, r *http.Request) (Status, error) { return b.Status(r.Context()), nil }),
		},
		{
			method: "GET", path: "/healthz", id: "health", level: access.Read, answer: reflect.TypeFor[Health](), also: []int{http.StatusServiceUnavailable},
			summary: "Whether meta1 works; with status 503 if not.",
			handle: func(b Backend, r *http.Request) (int, any) {
				h := b.Health(r.Context())
				return pick(h.OK, http.StatusServiceUnavailable), h
			},
		},
		{
			method: "GET", path: "/whoami", id: "whoAmI", level: access.Read, answer: reflect.TypeFor[WhoAmI](),
			summary: "What the asker may do, and as whom the log has it.",
			handle:  asks(func(_ Backend, r *http.Request) (WhoAmI, error) { return whoAsks(r), nil }),
		},
		{
			method: "GET", path: "/stats", id: "stats", level: access.Read, answer: reflect.TypeFor[Stats](),
			summary: "What was done since the start, what goes on now, and rates of the last minutes.",
			handle:  asks(func(b Backend, r *http.Request) (Stats, error) { return b.Stats(r.Context()) }),
		},
		{
			method: "GET", path: "/queue", id: "queue", level: access.Read, answer: reflect.TypeFor[Page](),
			summary: "Recipients in the queue, in their order, a page at a time.",
			params: []openapi.Param{
				{Name: "after", Type: "string", Doc: "The rcpt_id of the last entry of the page before."},
				{Name: "max", Type: "integer", Doc: "At most so many entries; 10000 is the most."},
			},
			handle: queue,
		},
		{
			method: "GET", path: "/queue/summary", id: "queueSummary", level: access.Read, answer: reflect.TypeFor[Summary](),
			summary: "Recipients in the queue counted by destination and age, and by reason.",
			params: []openapi.Param{
				{Name: "max", Type: "integer", Doc: "At most so many destinations and reasons, those with the most recipients; 500 unless given, and 10000 is the most."},
				{Name: "fresh", Type: "boolean", Doc: "Count now. What is answered may be some seconds old otherwise, with a long queue ten times as long as it takes to count."},
			},
			handle: summary,
		},
		{
			method: "POST", path: "/queue", id: "operate", level: access.Change, body: reflect.TypeFor[Operation](), answer: reflect.TypeFor[Operated](),
			summary: "Hold, release, flush, requeue, remove or expire recipients.",
			handle:  takes(http.StatusBadRequest, Backend.Operate),
		},
		{
			method: "GET", path: "/messages/{id}", id: "message", level: access.Read, answer: reflect.TypeFor[Message](),
			summary: "One message: its recipients in the queue, why each waits, the hosts that keep it, and what the log of the server has of it.",
			params:  []openapi.Param{{Name: "id", Type: "string", Doc: "The ss_ta of the message, or the rcpt_id of a recipient."}},
			handle: func(b Backend, r *http.Request) (int, any) {
				m, err := b.Message(r.Context(), r.PathValue("id"))
				switch {
				case errors.Is(err, ErrNoMessage):
					return http.StatusNotFound, apiError{Error: err.Error()}
				case err != nil:
					return http.StatusServiceUnavailable, apiError{Error: err.Error()}
				}
				return http.StatusOK, m
			},
		},
		{
			method: "GET", path: "/hosts", id: "hosts", level: access.Read, answer: reflect.TypeFor[Hosts](),
			summary: "The hosts and providers to which mail goes.",
			params:  []openapi.Param{{Name: "closed", Type: "boolean", Doc: "Only those that are not tried now."}},
			handle: asks(func(b Backend, r *http.Request) (Hosts, error) {
				return b.Hosts(r.Context(), r.FormValue("closed") == "true")
			}),
		},
		{
			method: "GET", path: "/connections", id: "connections", level: access.Read, answer: reflect.TypeFor[Connections](),
			summary: "Sessions of clients and connections to hosts, the oldest first.",
			handle:  asks(func(b Backend, r *http.Request) (Connections, error) { return b.Connections(r.Context()) }),
		},
		{
			method: "POST", path: "/connections/close", id: "closeConnection", level: access.Change, body: reflect.TypeFor[CloseConnection](), answer: reflect.TypeFor[Closed](),
			summary: "Close one connection at once. What was not acknowledged will be sent again.",
			handle:  takes(http.StatusServiceUnavailable, Backend.CloseConnection),
		},
		{
			method: "GET", path: "/throttle", id: "throttles", level: access.Read, answer: reflect.TypeFor[[]Throttle](),
			summary: "The limits that were set while meta1 runs.",
			handle:  asks(func(b Backend, r *http.Request) ([]Throttle, error) { return b.Throttles(r.Context()), nil }),
		},
		{
			method: "POST", path: "/throttle", id: "throttle", level: access.Change, body: reflect.TypeFor[ThrottleQuestion](), answer: reflect.TypeFor[[]Throttle](),
			summary: "Set a limit for a while, or clear one or all; the answer is all that are set then.",
			handle:  takes(http.StatusBadRequest, Backend.Throttle),
		},
		{
			method: "GET", path: "/drain", id: "drainState", level: access.Read, answer: reflect.TypeFor[Drain](),
			summary: "Where a drain stands.",
			handle:  asks(func(b Backend, r *http.Request) (Drain, error) { return b.DrainState(r.Context()), nil }),
		},
		{
			method: "POST", path: "/drain", id: "drain", level: access.Change, body: reflect.TypeFor[DrainQuestion](), answer: reflect.TypeFor[Drain](),
			summary: "Refuse new mail with 421, deliver what can be delivered, then end or wait; or cancel that.",
			handle:  takes(http.StatusBadRequest, Backend.Drain),
		},
		{
			method: "GET", path: "/config", id: "config", level: access.Read, answer: reflect.TypeFor[[]confparse.Shown](),
			summary: "The configuration in effect with the origin of each value; passwords and keys are ***.",
			params:  []openapi.Param{{Name: "defaults", Type: "boolean", Doc: "What no file sets, too."}},
			handle: asks(func(b Backend, r *http.Request) ([]confparse.Shown, error) {
				return b.Config(r.Context(), r.FormValue("defaults") == "true"), nil
			}),
		},
		{
			method: "POST", path: "/explain", id: "explain", level: access.Read, body: reflect.TypeFor[explain.Question](), answer: reflect.TypeFor[explain.Report](),
			summary: "What would become of mail, and why.",
			handle:  takes(http.StatusBadRequest, Backend.Explain),
		},
		{
			method: "GET", path: "/tlsreports", id: "tlsReports", level: access.Read, answer: reflect.TypeFor[[]tlsrpt.Entry](),
			summary: "Reports about TLS that are collected or wait to be sent.",
			params:  []openapi.Param{{Name: "domain", Type: "string", Doc: "Only those on this domain."}},
			handle: asks(func(b Backend, r *http.Request) ([]tlsrpt.Entry, error) {
				return b.TLSReports(r.Context(), r.FormValue("domain"))
			}),
		},
		{
			method: "POST", path: "/tlsreports", id: "sendTLSReports", level: access.Change, body: reflect.TypeFor[SendReports](), answer: reflect.TypeFor[ReportsSent](),
			summary: "Send reports about TLS now.",
			handle:  takes(http.StatusServiceUnavailable, Backend.SendTLSReports),
		},
		{
			method: "GET", path: "/dmarcreports", id: "dmarcReports", level: access.Read, answer: reflect.TypeFor[[]dmarcrpt.Entry](),
			summary: "Reports about DMARC that are collected or wait to be sent.",
			params:  []openapi.Param{{Name: "domain", Type: "string", Doc: "Only those on this domain."}},
			handle: asks(func(b Backend, r *http.Request) ([]dmarcrpt.Entry, error) {
				return b.DMARCReports(r.Context(), r.FormValue("domain"))
			}),
		},
		{
			method: "POST", path: "/dmarcreports", id: "sendDMARCReports", level: access.Change, body: reflect.TypeFor[SendReports](), answer: reflect.TypeFor[ReportsSent](),
			summary: "Send reports about DMARC now.",
			handle:  takes(http.StatusServiceUnavailable, Backend.SendDMARCReports),
		},
		{
			method: "POST", path: "/fsck", id: "fsck", level: access.Change, body: reflect.TypeFor[FsckQuestion](), answer: reflect.TypeFor[FsckAnswer](),
			summary: "Check a part of the databases of the queue. It changes nothing, and keeps the disk busy.",
			handle:  takes(http.StatusServiceUnavailable, Backend.Fsck),
		},
		{
			method: "POST", path: "/backup", id: "backup", level: access.Change, body: reflect.TypeFor[BackupQuestion](), answer: reflect.TypeFor[BackupReport](),
			summary: "Make a copy of the queue as it is at one moment, in a new directory. All mail goes on meanwhile. It takes as long as it writes something, and is given up when the asker goes. " +
				"With progress the answer is application/x-ndjson: each second a line with progress, at last one with report or error.",
			long: backup,
		},
		{
			method: "POST", path: "/reload", id: "reload", level: access.Change, answer: reflect.TypeFor[ReloadReport](), also: []int{http.StatusUnprocessableEntity},
			summary: "Apply configuration, maps, certificates and keys as they are now, all or none; with status 422 if something is wrong with them.",
			handle:  reload(false),
		},
		{
			method: "POST", path: "/reload/check", id: "checkReload", level: access.Change, answer: reflect.TypeFor[ReloadReport](), also: []int{http.StatusUnprocessableEntity},
			summary: "Say what a reload would do. Nothing changes.",
			handle:  reload(true),
		},
		upgradeRoute(),
		{
			method: "POST", path: "/stop", id: "stop", level: access.Change, answer: reflect.TypeFor[struct{}](),
			summary: "Begin the end of meta1, as the signal TERM does. The answer does not wait for it.",
			handle: asks(func(b Backend, r *http.Request) (struct{}, error) {
				b.Stop(r.Context())
				return struct{}{}, nil
			}),
		},
		{
			method: "GET", path: "/openapi.json", id: "openapi", level: access.Read,
			summary: "This document.",
			handle:  asks(func(Backend, *http.Request) (json.RawMessage, error) { return Description() }),
		},
	}
}

func pick(ok bool, otherwise int) int {
	if ok {
		return http.StatusOK
	}
	return otherwise
}

// asks serves a question without a body.
func asks[A any](f func(b Backend, r *http.Request) (A, error)) func(Backend, *http.Request) (int, any) {
	return func(b Backend, r *http.Request) (int, any) {
		a, err := f(b, r)
		if err != nil {
			return http.StatusServiceUnavailable, apiError{Error: err.Error()}
		}
		return http.StatusOK, a
	}
}

// takes serves a question with a body. failed is the status of an error of f.
func takes[Q, A any](failed int, f func(b Backend, ctx context.Context, q Q) (A, error)) func(Backend, *http.Request) (int, any) {
	return func(b Backend, r *http.Request) (int, any) {
		var q Q
		if err := decode(r, &q); err != nil {
			return http.StatusBadRequest, apiError{Error: err.Error()}
		}
		a, err := f(b, r.Context(), q)
		if err != nil {
			return failed, apiError{Error: err.Error()}
		}
		return http.StatusOK, a
	}
}

func reload(check bool) func(b Backend, r *http.Request) (int, any) {
	return func(b Backend, r *http.Request) (int, any) {
		report := b.Reload(r.Context(), check)
		return pick(len(report.Errors) == 0, http.StatusUnprocessableEntity), report
	}
}

// most is how much a question wants, at most so much.
func most(r *http.Request, limit int) (int, error) {
	s := r.FormValue("max")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, errors.New("max is not a positive number")
	}
	return min(n, limit), nil
}

func summary(b Backend, r *http.Request) (int, any) {
	n, err := most(r, GroupsMax)
	if err != nil {
		return http.StatusBadRequest, apiError{Error: err.Error()}
	}
	s, err := b.Summary(r.Context(), SummaryQuestion{Max: n, Fresh: r.FormValue("fresh") == "true"})
	if err != nil {
		return http.StatusServiceUnavailable, apiError{Error: err.Error()}
	}
	return http.StatusOK, s
}

func queue(b Backend, r *http.Request) (int, any) {
	n, err := most(r, PageMax)
	if err != nil {
		return http.StatusBadRequest, apiError{Error: err.Error()}
	}
	page, err := b.Queue(r.Context(), r.FormValue("after"), cmp.Or(n, PageMax))
	if err != nil {
		return http.StatusServiceUnavailable, apiError{Error: err.Error()}
	}
	return http.StatusOK, page
}
