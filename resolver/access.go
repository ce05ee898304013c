package resolver

import (
	"context"
	"iter"
	"strings"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/resolver/access"
)

// accessMap is the access map (README 3.9.3): keys are a tag and an address, values
// say what to do.
type accessMap struct {
	m    maps.Map
	name string
}

// found is what a lookup in the access map gave.
type found struct {
	access.RHS
	step msg.Step
}

// keys looks tag and each key up until one is found.
func (m *accessMap) keys(ctx context.Context, tag, full string, keys iter.Seq[string]) found {
	key, value, res := maps.Find(ctx, m.m, tag, keys)
	return m.found(tag, full, key, value, res)
}

// exact looks tag and key up as they are.
func (m *accessMap) exact(ctx context.Context, tag, key string) found {
	value, res := m.m.Lookup(ctx, tag+key)
	return m.found(tag, key, key, value, res)
}

// address looks an address up with all steps, or those of steps.
func (m *accessMap) address(ctx context.Context, tag string, a maps.Address, steps maps.Steps) found {
	key, _, value, res := maps.FindAddress(ctx, m.m, tag, a, steps)
	return m.found(tag, a.String(), key, value, res)
}

// found turns a result into a right hand side. What cannot be looked up or read is a
// temporary error: an access rule must not be skipped because its map is broken.
func (m *accessMap) found(tag, full, key, value string, res maps.Result) found {
	f := found{step: msg.Step{Check: strings.TrimSuffix(tag, ":"), Map: m.name, Key: tag + full}}
	switch {
	case res.Failed():
		f.Word, f.Reply = access.Error, smtp.NewReply(451, "4.3.0", "access map lookup failed")
		f.step.Effect = res.String() + " " + value
	case res == maps.OK:
		var err error
		f.step.Key, f.step.Value = tag+key, value
		if f.RHS, err = access.Parse(value); err != nil {
			f.Word, f.Reply = access.Error, smtp.NewReply(451, "4.3.5", "access map entry cannot be read")
			f.step.Effect = err.Error()
		}
	}
	return f
}
