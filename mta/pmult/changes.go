package pmult

import (
	"meta1/pmilter"
	"meta1/server/milter"
)

// headerMod is one modification of the header, as the server takes it.
type headerMod struct {
	mod    pmilter.HeaderMod
	pos    uint
	header string
}

// headerChanges are the modifications that make a header of another one. Positions are those
// of the original's fields, from 1. fit is false if they are beyond what the server takes:
// then the message has to be replaced.
//
// Fields that no filter has made keep their order. So each of them is found in what is left of
// the original; what stands between two is removed, and new fields are inserted.
func headerChanges(from, to []milter.Header) (list []headerMod, fit bool) {
	at, bytes := 0, 0
	var made []milter.Header // fields since the last one that was found
	flush := func(till int) {
		for i := range made {
			m := headerMod{mod: pmilter.HeaderInsert, pos: uint(till + 1), header: string(milter.AppendHeader(nil, made[i:i+1]))}
			if till == len(from) {
				m.mod, m.pos = pmilter.HeaderAppend, 0
			}
			list = append(list, m)
			bytes += len(m.header)
			fit = fit && len(m.header) <= pmilter.TextMax
		}
		made = made[:0]
		for ; at < till; at++ {
			list = append(list, headerMod{mod: pmilter.HeaderRemove, pos: uint(at + 1)})
		}
	}
	fit = true
	for i := range to {
		raw := to[i].Raw()
		if raw == "" {
			made = append(made, to[i])
			continue
		}
		till := at
		for till < len(from) && from[till].Raw() != raw {
			till++
		}
		flush(till)
		at++
	}
	flush(len(from))
	return list, fit && len(list) <= pmilter.ChangesMax/2 && bytes <= pmilter.ChangeBytesMax/2
}
