package milter

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// exchange sends a command with its macros and waits for the verdict, if the filter wants the
// one and gives the other.
func (p *peer) exchange(ctx context.Context, k *command) (Verdict, error) {
	c := p.c
	if c.protocol&k.unwanted != 0 {
		return Verdict{}, nil
	}
	if len(k.data) > dataMax {
		return Verdict{}, fmt.Errorf("the command has %d bytes", len(k.data))
	}
	c.addMacros(k)
	c.out = appendPacket(c.out, k.kind, k.data)
	if c.protocol&k.unreplied != 0 {
		return Verdict{}, nil
	}
	began := time.Now()
	v, err := c.await(ctx, p.cfg.Timeouts.Command)
	p.observe(began)
	return v, err
}

func (f *Filter) observe(began time.Time) {
	if f.deps.Metrics.Seconds != nil {
		f.deps.Metrics.Seconds.Observe(time.Since(began).Seconds())
	}
}

// addMacros adds the macros of a command that have values.
func (c *conn) addMacros(k *command) {
	if int(k.stage) >= MacroStages || k.macros == nil {
		return
	}
	names := c.macros[k.stage]
	if names == nil {
		if names = c.filter.cfg.Macros[k.stage]; names == nil {
			names = usual[k.stage]
		}
	}
	data := []byte{k.kind}
	for _, name := range names {
		value := macro(name, k.macros)
		if value == "" || len(data)+len(name)+len(value)+2 > dataMax {
			continue
		}
		data = appendString(appendString(data, name), value)
	}
	if len(data) > 1 {
		c.out = appendPacket(c.out, cmdMacros, data)
	}
}

// macro looks a macro up. Filters ask for names of several letters with and without braces.
func macro(name string, macros Macros) string {
	if len(name) > 1 && !strings.HasPrefix(name, "{") {
		name = "{" + name + "}"
	}
	if len(name) == 3 && name[0] == '{' {
		name = name[1:2]
	}
	return macros(name)
}

// await writes what is collected and reads a verdict. A filter that says that it goes on has
// more time, up to the limit of progress.
func (c *conn) await(ctx context.Context, d time.Duration) (Verdict, error) {
	limit := time.Now().Add(max(d, c.filter.cfg.Timeouts.Progress))
	if err := c.send(ctx, d); err != nil {
		return Verdict{}, err
	}
	for {
		p, err := c.read(ctx, earlier(time.Now().Add(d), limit))
		if err != nil {
			return Verdict{}, err
		}
		if p.kind == repProgress {
			continue
		}
		v, ok, err := p.verdict()
		if !ok {
			return Verdict{}, fmt.Errorf("the filter answers %q", p.kind)
		}
		return v, err
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
