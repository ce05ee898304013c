package resolver

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// accessMap is the access map (README 3.9.3): keys are a tag and an address, values
// say what to do.
type accessMap struct {
	m    maps.Map
	name string
}

// loadAccess opens the access map; nil without an error means there is none.
func (r *Resolver) loadAccess() (*accessMap, error) {
	var err error
	a := &accessMap{}
	switch c := r.cfg.Access; {
	case c.Name != "":
		a.name = c.Name
		a.m, err = r.openMap(c.Name)
	case c.Present:
		a.name = r.path(c.File)
		a.m, err = r.openFile(c.File)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("access_map: %w", err)
	}
	return a, nil
}

// word is the kind of a right hand side of the access map.
type word uint8

const (
	wordNone word = iota // no entry
	wordCont
	wordOK
	wordRelay
	wordDiscard
	wordError // error: and reject, with a reply
	wordOther // something else; only some tags have it
)

// right is a right hand side of the access map.
type right struct {
	word  word
	quick bool
	reply smtp.Reply // of wordError
	text  string     // of wordOther
}

// parseRight reads a right hand side. A malformed error: entry is an error.
func parseRight(value string) (right, error) {
	rest, quick := cutFold(value, "quick:")
	rest = strings.Trim(rest, " \t")
	r := right{quick: quick}
	switch {
	case strings.EqualFold(rest, "cont"):
		r.word = wordCont
	case strings.EqualFold(rest, "ok"):
		r.word = wordOK
	case strings.EqualFold(rest, "relay"):
		r.word = wordRelay
	case strings.EqualFold(rest, "discard"):
		r.word = wordDiscard
	case strings.EqualFold(rest, "reject"):
		r.word, r.reply = wordError, smtp.NewReply(550, "5.7.0", "Rejected.")
	default:
		text, isError := cutFold(rest, "error:")
		if !isError {
			r.word, r.text = wordOther, rest
			return r, nil
		}
		var err error
		r.word = wordError
		r.reply, err = parseErrorReply(text)
		return r, err
	}
	return r, nil
}

// parseErrorReply reads "XYZ A.B.C text". The enhanced code may be left out; if it is
// there its class must be that of the reply code.
func parseErrorReply(text string) (smtp.Reply, error) {
	text = strings.Trim(text, " \t")
	digits, rest, _ := strings.Cut(text, " ")
	code, err := strconv.Atoi(digits)
	if err != nil || len(digits) != 3 || code < 400 || code > 599 {
		return smtp.Reply{}, fmt.Errorf("reply code %q is not from 400 to 599", digits)
	}
	rest = strings.TrimLeft(rest, " \t")
	enhanced, rest, ok := smtp.ParseEnhancedCode(rest)
	if ok && int(enhanced[0]) != code/100 {
		return smtp.Reply{}, fmt.Errorf("enhanced code %s does not fit to reply code %d", enhanced, code)
	}
	return smtp.Reply{Code: code, Enhanced: enhanced, Lines: []string{rest}}, nil
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return s, false
}

// found is what a lookup in the access map gave.
type found struct {
	right
	step msg.Step
}

// keys looks tag and each key up until one is found.
func (m *accessMap) keys(ctx context.Context, tag, full string, keys iter.Seq[string]) found {
	key, value, res := maps.Find(ctx, m.m, tag, keys)
	return m.found(tag, full, key, value, res)
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
		f.word, f.reply = wordError, smtp.NewReply(451, "4.3.0", "access map lookup failed")
		f.step.Effect = res.String() + " " + value
	case res == maps.OK:
		var err error
		f.step.Key, f.step.Value = tag+key, value
		if f.right, err = parseRight(value); err != nil {
			f.word, f.reply = wordError, smtp.NewReply(451, "4.3.5", "access map entry cannot be read")
			f.step.Effect = err.Error()
		}
	}
	return f
}
