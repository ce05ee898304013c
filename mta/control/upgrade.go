package control

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"meta1/mta/access"
)

// UpgradeQuestion asks for a new process to take the place of this one.
type UpgradeQuestion struct {
	// OrReload: if the binary at its path is the one that runs, reload instead.
	OrReload bool `json:"or_reload,omitempty"`
	// Limit is how long the new process may take to prepare itself, and again to serve when it has the spool, in
	// nanoseconds: from 1 s to 2 minutes; 0 is a minute.
	Limit time.Duration `json:"limit,omitempty"`
}

// Process is a process of meta1.
type Process struct {
	Version string `json:"version,omitempty"`
	PID     int    `json:"pid,omitempty"`
}

// UpgradeReport says what came of it.
type UpgradeReport struct {
	// Done: the new process serves, and the old one ends. Otherwise the old one goes on.
	Done bool    `json:"done"`
	Old  Process `json:"old"`
	New  Process `json:"new,omitzero"` // as far as it came
	// PauseMS is how long connections waited to be accepted, in milliseconds.
	PauseMS int64         `json:"pause_ms"`
	Reload  *ReloadReport `json:"reload,omitempty"` // what was done instead
	Error   string        `json:"error,omitempty"`  // why it is not done
}

// OK reports whether all went well.
func (r *UpgradeReport) OK() bool {
	return r.Error == "" && (r.Reload == nil || len(r.Reload.Errors) == 0)
}

// upgradeRoute is the operation.
func upgradeRoute() route {
	return route{
		method: "POST", path: "/upgrade", id: "upgrade", level: access.Change, body: reflect.TypeFor[UpgradeQuestion](), answer: reflect.TypeFor[UpgradeReport](),
		also:    []int{http.StatusUnprocessableEntity},
		summary: "Have a new process of the binary on disk take over, without a refused connection; with status 422 if the old one goes on.",
		handle: func(b Backend, r *http.Request) (int, any) {
			var q UpgradeQuestion
			if err := decode(r, &q); err != nil {
				return http.StatusBadRequest, apiError{Error: err.Error()}
			}
			report := b.Upgrade(r.Context(), q)
			return pick(report.OK(), http.StatusUnprocessableEntity), report
		},
	}
}

// Upgrade has a new process take over. It returns when that serves, or it is certain that the old one goes on.
func (c *Client) Upgrade(ctx context.Context, q UpgradeQuestion) (r UpgradeReport, err error) {
	return r, c.ask(ctx, http.MethodPost, "/upgrade", q, &r, http.StatusUnprocessableEntity)
}
