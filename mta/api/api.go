package api

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"meta1/mta/control"
	"meta1/mta/msg"
	"meta1/mta/story"
)

// Deps are what the answers are made of. All may be called by any goroutine.
type Deps struct {
	// List asks QMGR for a page of the queue.
	List func(ctx context.Context, q msg.ListQ) (msg.ListA, error)
	// Hosts is that of control.Backend.
	Hosts func(ctx context.Context, closed bool) (control.Hosts, error)
	// Modules asks all modules for snapshots, by unit: qmgr, smtpc, smar, smtps and so on.
	Modules func(ctx context.Context, q msg.StatusQ) map[string]msg.StatusA
	// Gate and Throttles are what the modules obey.
	Gate      *msg.Gate
	Throttles *msg.Throttles
	// Handover is where mail goes while a drain hands it over. CheckPeer says why it cannot go to a peer,
	// and Reroute has all that is not held tried anew; busy is how many could not be at that moment.
	Handover  *msg.Handover
	CheckPeer func(ctx context.Context, peer string) error
	Reroute   func(ctx context.Context) (busy int, err error)
	// Flush has deferred mail tried now, and Stop begins the end of meta1.
	Flush func(ctx context.Context) error
	Stop  func()
	Log   *slog.Logger
	// LogFiles are the files to which the modules log now; an error says why there are none.
	LogFiles func() ([]string, error)
	Now      func() time.Time
}

// API answers. Run keeps the rates.
type API struct {
	deps    Deps
	started time.Time

	mu      sync.Mutex // guards samples
	samples []sample   // the oldest first

	drain drain

	summing sync.Mutex      // held while the queue is counted; guards the fields below
	summary control.Summary // Time is when it was begun
	until   time.Time       // when it is counted anew
}

// New makes an API of a meta1 that was started then.
func New(d Deps, started time.Time) *API { return &API{deps: d, started: started} }

// messagePage is how many recipients are asked for at a time to find those of one message.
const messagePage = 1000

// Message tells of one message.
func (a *API) Message(ctx context.Context, id string) (control.Message, error) {
	ta, err := story.ParseID(id)
	if err != nil {
		return control.Message{}, errors.Join(control.ErrNoMessage, err)
	}
	return story.Tell(ctx, ta, story.Sources{
		Queue: func(ctx context.Context, behind string, f func(*control.Entry) bool) error {
			return a.list(ctx, behind, messagePage, func(e *msg.ListEntry) bool {
				q := entry(e)
				return f(&q)
			})
		},
		Hosts:    func(ctx context.Context) (control.Hosts, error) { return a.deps.Hosts(ctx, true) },
		Log:      a.readLog,
		LinesMax: storyMax,
	})
}
