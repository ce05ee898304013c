package api

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"meta1/mta/control"
	"meta1/mta/msg"
)

// Connections lists sessions of clients and connections to hosts, the oldest first.
func (a *API) Connections(ctx context.Context) (control.Connections, error) {
	all := control.Connections{Connections: []control.Connection{}}
	for unit, m := range a.deps.Modules(ctx, msg.StatusQ{Connections: control.ConnectionsMax}) {
		direction := "in"
		if !strings.HasPrefix(unit, "smtps") {
			direction = "out"
		}
		all.More = all.More || len(m.Connections) == control.ConnectionsMax
		for i := range m.Connections {
			c := &m.Connections[i]
			all.Connections = append(all.Connections, control.Connection{
				ID: c.ID, Direction: direction, Section: unit, Peer: c.Peer, Name: c.Name, User: c.User, TLS: c.TLS, State: c.State,
				Since: c.Since, Begun: c.Begun, Messages: c.Messages,
			})
		}
	}
	slices.SortFunc(all.Connections, func(a, b control.Connection) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), a.Begun.Compare(b.Begun), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// CloseConnection closes one at once.
func (a *API) CloseConnection(ctx context.Context, q control.CloseConnection) (control.Closed, error) {
	if q.ID == "" {
		return control.Closed{}, errors.New("no id of a connection is given")
	}
	done := control.Closed{}
	for _, m := range a.deps.Modules(ctx, msg.StatusQ{Close: q.ID}) {
		done.Closed = done.Closed || m.Closed
	}
	if done.Closed {
		a.deps.Log.LogAttrs(ctx, slog.LevelWarn, "connection closed by an operator", slog.String("id", q.ID))
	}
	return done, nil
}
