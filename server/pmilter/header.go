package pmilter

import (
	wire "meta1/pmilter"
)

// Header makes the modifications of a header. received is our own field, which has position 0,
// and fields are those of the message, from position 1; line makes a field of a text. Positions
// are those before any modification. It returns what stands from the top to our field, and
// what stands below. Modifications of a position that is not there have no effect, but for
// HeaderInsert.
func Header[F any](received string, fields []F, list []wire.Change, line func(string) F) (top string, out []F, changed bool) {
	type slot struct {
		before  []string // in their order
		text    string   // replaced by
		set     bool
		removed bool
	}
	slots := map[int]*slot{}
	at := func(pos int) *slot {
		if slots[pos] == nil {
			slots[pos] = &slot{}
		}
		return slots[pos]
	}
	var above string
	var behind []string
	for i := range list {
		ch := &list[i]
		if ch.Type != wire.FrameHeader {
			continue
		}
		pos := int(min(ch.Pos, 1<<30))
		there := pos <= len(fields)
		switch {
		case ch.Mod == wire.HeaderPrepend: // each above those before it
			above = ch.Header + above
		case ch.Mod == wire.HeaderInsert && there:
			at(pos).before = append(at(pos).before, ch.Header)
		case ch.Mod == wire.HeaderAppend, ch.Mod == wire.HeaderInsert:
			behind = append(behind, ch.Header)
		case !there:
			continue
		case ch.Mod == wire.HeaderReplace:
			at(pos).text, at(pos).set, at(pos).removed = ch.Header, true, false
		case ch.Mod == wire.HeaderRemove:
			at(pos).set, at(pos).removed = false, true
		}
		changed = true
	}
	if !changed {
		return received, fields, false
	}
	top = above
	own := at(0)
	for _, text := range own.before {
		top += text
	}
	switch {
	case own.set:
		top += own.text
	case !own.removed:
		top += received
	}
	for i := range fields {
		s := slots[i+1]
		if s == nil {
			out = append(out, fields[i])
			continue
		}
		for _, text := range s.before {
			out = append(out, line(text))
		}
		switch {
		case s.set:
			out = append(out, line(s.text))
		case !s.removed:
			out = append(out, fields[i])
		}
	}
	for _, text := range behind {
		out = append(out, line(text))
	}
	return top, out, true
}
