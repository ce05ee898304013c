package dmarc

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// walkLabels is how many labels are left of a longer name after the first query of a tree walk,
// so that there are at most eight (RFC 9989 section 4.10, step 4).
const walkLabels = 7

// TXT is what DNS says of the TXT records of a name.
type TXT struct {
	// Texts are the records, each with its strings joined.
	Texts []string
	// NoDomain: the name does not exist (NXDOMAIN).
	NoDomain bool
	// Err: DNS gives no answer, now or ever.
	Err error
}

// Lookup asks DNS for the TXT records of a name in A-labels without a dot at its end. It must
// obey ctx. It is called again for a name that was asked for another message, so it should have a
// cache.
type Lookup func(ctx context.Context, name string) TXT

// found is a record, and the domain for which it stands.
type found struct {
	domain string
	record *Record
}

// walker asks for the records of one message. It asks for none twice.
type walker struct {
	ctx    context.Context
	lookup Lookup
	known  map[string]answer
	// queries are the names that were asked for, in their order.
	queries []string
	// problems are such as several records at one name.
	problems []string
}

// answer is what is known of one domain: its record, nil for none.
type answer struct {
	record *Record
	err    error
}

var errLongName = errors.New("the name is too long")

// ask looks a name up.
func (w *walker) ask(name string) TXT {
	if len(name) > 253 {
		return TXT{Err: errLongName}
	}
	w.queries = append(w.queries, name)
	return w.lookup(w.ctx, name)
}

// record is the record of a domain, nil if it has none. Of several records none counts (RFC 9989
// section 4.10, step 2).
func (w *walker) record(domain string) (*Record, error) {
	if a, ok := w.known[domain]; ok {
		return a.record, a.err
	}
	a := answer{}
	t := w.ask("_dmarc." + domain)
	switch {
	case errors.Is(t.Err, errLongName): // such a record cannot exist
	case t.Err != nil:
		a.err = fmt.Errorf("_dmarc.%s: %w", domain, t.Err)
	default:
		n := 0
		for _, text := range t.Texts {
			if r, ok := ParseRecord(text); ok {
				a.record = r
				n++
			}
		}
		if n > 1 {
			a.record = nil
			w.problems = append(w.problems, fmt.Sprintf("_dmarc.%s has %d DMARC records", domain, n))
		}
	}
	w.known[domain] = a
	return a.record, a.err
}

// walk is the tree walk from a domain: the records found, that of the longest name first. On an
// error it says what was found before.
func (w *walker) walk(domain string) (list []found, err error) {
	for start, at := true, domain; at != ""; start = false {
		r, err := w.record(at)
		if err != nil {
			return list, err
		}
		if r != nil {
			list = append(list, found{at, r})
			if r.PSD != PSDUnknown {
				break
			}
		}
		at = parent(at, start)
	}
	return list, nil
}

// parent is the next name of a walk, "" after the last.
func parent(domain string, start bool) string {
	_, rest, _ := strings.Cut(domain, ".")
	if start {
		for strings.Count(rest, ".") >= walkLabels {
			_, rest, _ = strings.Cut(rest, ".")
		}
	}
	return rest
}

// organization is the organizational domain of the domain at which a walk started (RFC 9989
// section 4.10.2), and the public suffix above it if one has said that it is one.
func organization(start string, list []found) (domain string, psd *found) {
	for i := range list {
		f := &list[i]
		switch {
		case f.record.PSD == PSDNo:
			return f.domain, nil
		case f.record.PSD == PSDYes && f.domain != start:
			return below(start, f.domain), f
		}
	}
	if len(list) > 0 {
		return list[len(list)-1].domain, nil
	}
	return start, nil
}

// below is the name with one label more than suffix on the way to domain.
func below(domain, suffix string) string {
	rest := strings.TrimSuffix(domain, "."+suffix)
	return rest[strings.LastIndexByte(rest, '.')+1:] + "." + suffix
}

// isBelow reports that domain is a subdomain of suffix.
func isBelow(domain, suffix string) bool { return strings.HasSuffix(domain, "."+suffix) }

// policyRecord finds the record that applies to an author domain: its own, that of its
// organizational domain, or that of the public suffix (RFC 9989 section 4.10.1).
func (w *walker) policyRecord(author string) (f *found, err error) {
	own, err := w.record(author)
	if err != nil {
		return nil, err
	}
	if own != nil {
		return &found{author, own}, nil
	}
	list, err := w.walk(author)
	if err != nil {
		return nil, err
	}
	org, psd := organization(author, list)
	for i := range list {
		if list[i].domain == org {
			return &list[i], nil
		}
	}
	return psd, nil
}

// exists reports whether a domain does: DNS says of no other that there is no such name (RFC
// 9989 appendix A.4).
func (w *walker) exists(domain string) (bool, error) {
	t := w.ask(domain)
	if t.Err != nil {
		return true, fmt.Errorf("%s: %w", domain, t.Err)
	}
	return !t.NoDomain, nil
}
