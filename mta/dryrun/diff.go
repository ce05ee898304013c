package dryrun

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"meta1/mta/explain"
	"meta1/mta/supervise"
	"meta1/mta/whatif"
)

// diffAtOnce is how many dialogues are tried at once with each configuration: most of them wait
// for name servers.
const diffAtOnce = 16

// Changed is an envelope of which two configurations make something different.
type Changed struct {
	Envelope *whatif.Envelope `json:"envelope"`
	Changes  []whatif.Change  `json:"changes"`
	// Failed says why it could not be tried with one of them; then Changes is empty.
	Failed string `json:"failed,omitempty"`
}

// Diff tries envelopes with two configuration files, as Explain does, and calls emit for each of
// which they make something different, one at a time, in the order of envelopes.
func Diff(ctx context.Context, before, after, version string, envelopes []*whatif.Envelope, emit func(*Changed) error) error {
	return withFile(ctx, before, version, func(ctx context.Context, o *explainer) error {
		return withFile(ctx, after, version, func(ctx context.Context, n *explainer) error {
			return diffAll(ctx, o, n, envelopes, emit)
		})
	})
}

func diffAll(ctx context.Context, o, n *explainer, envelopes []*whatif.Envelope, emit func(*Changed) error) error {
	g := supervise.NewGroup(ctx)
	var next struct {
		sync.Mutex
		take int              // the next envelope to try
		done map[int]*Changed // tried, not yet emitted; nil for no difference
		out  int              // the next envelope to emit
	}
	next.done = map[int]*Changed{}
	for range diffAtOnce {
		g.Go(func(ctx context.Context) error {
			for ctx.Err() == nil {
				next.Lock()
				i := next.take
				next.take++
				next.Unlock()
				if i >= len(envelopes) {
					return nil
				}
				changed := diffOne(ctx, o, n, envelopes[i])
				next.Lock()
				next.done[i] = changed
				for {
					c, tried := next.done[next.out]
					if !tried {
						break
					}
					delete(next.done, next.out)
					next.out++
					if c == nil || ctx.Err() != nil {
						continue
					}
					if err := emit(c); err != nil {
						next.Unlock()
						return err
					}
				}
				next.Unlock()
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// diffOne tries one envelope; nil if nothing differs.
func diffOne(ctx context.Context, o, n *explainer, env *whatif.Envelope) *Changed {
	before, err := o.envelope(ctx, env)
	if err != nil {
		return &Changed{Envelope: env, Failed: fmt.Sprintf("%s: %v", o.result.File, err)}
	}
	after, err := n.envelope(ctx, env)
	if err != nil {
		return &Changed{Envelope: env, Failed: fmt.Sprintf("%s: %v", n.result.File, err)}
	}
	if len(whatif.Compare(before, after)) == 0 {
		return nil
	}
	o.addOrigins(before, before.Server)
	n.addOrigins(after, after.Server)
	return &Changed{Envelope: env, Changes: whatif.Compare(before, after)}
}

// envelope tries an envelope. Its section smtps is the one that it names, or has its id, else the first.
func (e *explainer) envelope(ctx context.Context, env *whatif.Envelope) (*explain.Report, error) {
	q := env.Question
	if q.Server == "" {
		for _, s := range e.conf.Servers {
			if s.Server.ID == env.ServerID {
				q.Server = s.Of.Section
			}
		}
	}
	s, err := e.section(q.Server)
	if err != nil {
		return nil, err
	}
	if q.TLS != nil && e.tls(s.Of.Section) == nil {
		q.TLS = nil // certificate or key cannot be read here; both are tried without
	}
	if q.Auth != "" && !s.Server.AuthPresent {
		q.Auth = ""
	}
	if env.Size > 0 && !strings.Contains(q.FromParams, "SIZE=") {
		q.FromParams = strings.TrimSpace(fmt.Sprintf("%s SIZE=%d", q.FromParams, env.Size))
	}
	return e.try(ctx, &q)
}
