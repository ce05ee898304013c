package dmarcrpt

import (
	"cmp"
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meta1/server/authn/dmarc"
)

// Bounds of what is kept.
const (
	domainsMax    = 10_000  // of one day
	rowsMax       = 2_000   // of one domain with all details; as many again without
	rowsTotalMax  = 200_000 // of one day
	signaturesMax = 10      // of one row
	problemsMax   = 10      // of one domain
	textMax       = 250     // bytes of one text
	keepFor       = 48 * time.Hour
)

// Message is a message for which DMARC was evaluated.
type Message struct {
	Client netip.Addr
	// Result is the evaluation for one domain of From:.
	Result *dmarc.Result
	// Disposition is what was done with the message because of it: dmarc.None, Quarantine or
	// Reject.
	Disposition dmarc.Policy
	// Override and Comment say why that is not what the policy asks for: one of the words of RFC
	// 9990 section 3.1.6, such as local_policy. "": it is, or t=y explains it.
	Override, Comment string
	// EnvelopeFrom is the domain of the sender, "" for the empty one.
	EnvelopeFrom string
	SPF          dmarc.Identifier
	DKIM         []Signature // in the order of Result.DKIM
}

// Signature is a DKIM signature and what became of it.
type Signature struct {
	Domain   string `json:"d"`
	Selector string `json:"s"`
	Result   string `json:"r"` // a word of RFC 8601 section 2.7.1
}

// day is what was counted on one day; it is what lies on disk.
type day struct {
	Version int                `json:"version"`
	Start   time.Time          `json:"start"` // UTC
	End     time.Time          `json:"end"`   // when it was closed, or will be
	Domains map[string]*domain `json:"domains"`
	rows    int
}

// domain is one policy domain of a day, and what became of its report.
type domain struct {
	Policy   published `json:"policy"` // as it was seen last
	Problems []string  `json:"problems,omitempty"`
	// Rows counts messages by what they have in common: a row as JSON text.
	Rows  map[string]uint64 `json:"rows"`
	Sent  bool              `json:"sent,omitempty"`
	Tries int               `json:"tries,omitempty"`
	Next  time.Time         `json:"next,omitzero"` // when it is tried
	Why   string            `json:"why,omitempty"` // the last try failed
}

// published is a policy record as a report shows it.
type published struct {
	P, SP, NP string
	FO        string
	DKIM, SPF string // r or s
	Testing   bool
}

// row is what messages of one row of a report have in common.
type row struct {
	IP          netip.Addr  `json:"ip"`
	Disposition string      `json:"disp"`
	DKIM        bool        `json:"dkim,omitempty"` // aligned and passed
	SPF         bool        `json:"spf,omitempty"`
	Override    string      `json:"over,omitempty"`
	Comment     string      `json:"note,omitempty"`
	From        string      `json:"from"`
	Envelope    string      `json:"mail,omitempty"`
	SPFDomain   string      `json:"spfd,omitempty"`
	SPFResult   string      `json:"spfr,omitempty"`
	Signatures  []Signature `json:"sigs,omitempty"`
}

// Count counts a message. One for whose domain no policy applies, or nobody wants reports, is
// not.
func (r *Reports) Count(m *Message) {
	res := m.Result
	if res.Record == nil || !slices.ContainsFunc(res.Record.RUA, func(u dmarc.URI) bool { return !u.To.IsNull() }) || !isDomain(res.Domain) {
		r.stats.messages[unwanted].Inc()
		return
	}
	full := m.row()
	key := full.key()
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.roll(now)
	d := r.today.Domains[res.Domain]
	if d == nil {
		if len(r.today.Domains) >= domainsMax {
			r.stats.messages[dropped].Inc()
			return
		}
		d = &domain{Rows: map[string]uint64{}}
		r.today.Domains[res.Domain] = d
	}
	d.Policy = publish(res.Record)
	for _, p := range res.Problems {
		if len(d.Problems) < problemsMax && !slices.Contains(d.Problems, p) {
			d.Problems = append(d.Problems, p)
		}
	}
	if d.Rows[key] == 0 && len(d.Rows) >= rowsMax { // whoever sends signatures of ever new names must not hide the others
		full.Signatures, full.Envelope, full.Comment, full.SPFDomain, full.SPFResult = nil, "", "", "", ""
		key = full.key()
	}
	if d.Rows[key] == 0 {
		if len(d.Rows) >= 2*rowsMax || r.today.rows >= rowsTotalMax {
			r.stats.messages[dropped].Inc()
			return
		}
		r.today.rows++
	}
	d.Rows[key]++
	r.dirty[r.today] = true
	r.stats.messages[counted].Inc()
}

// row is the row under which a message is counted.
func (m *Message) row() row {
	res := m.Result
	w := row{
		IP: m.Client.Unmap().WithZone(""), Disposition: m.Disposition.String(), DKIM: res.DKIMPass(), SPF: res.SPF, Override: m.Override, Comment: clip(m.Comment),
		From: clip(res.From), Envelope: clip(m.EnvelopeFrom), SPFDomain: clip(m.SPF.Domain), SPFResult: spfWord(m.SPF.Result),
	}
	switch {
	case res.Value == dmarc.ValuePass && res.Published > dmarc.None && m.Disposition <= dmarc.None:
		w.Disposition = "pass"
	case w.Disposition == "":
		w.Disposition = dmarc.None.String()
	}
	switch { // RFC 9990 section 3.1.6: what differs must be explained
	case w.Override != "":
	case res.Value == dmarc.ValueTempError:
		w.Override, w.Comment = "other", "temporary error"
	case res.Stepped() && m.Disposition == res.Policy:
		w.Override = "policy_test_mode"
	case res.Value == dmarc.ValueFail && m.Disposition != res.Published:
		w.Override = "local_policy"
	}
	order := make([]int, 0, len(m.DKIM))
	for i := range m.DKIM {
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(m.rank(a), m.rank(b)) })
	for _, i := range order[:min(len(order), signaturesMax)] {
		s := m.DKIM[i]
		w.Signatures = append(w.Signatures, Signature{clip(s.Domain), clip(s.Selector), dkimWord(s.Result)})
	}
	return w
}

// rank orders signatures as RFC 9990 section 3.1.3 wants them: the smaller, the sooner.
func (m *Message) rank(i int) int {
	switch s := &m.DKIM[i]; {
	case s.Result != "pass":
		return 3
	case strings.EqualFold(s.Domain, m.Result.From):
		return 0
	case i < len(m.Result.DKIM) && m.Result.DKIM[i]:
		return 1
	}
	return 2
}

func dkimWord(s string) string {
	return word(s, "none", "pass", "fail", "policy", "neutral", "temperror", "permerror")
}

func spfWord(s string) string {
	return word(s, "none", "pass", "fail", "softfail", "policy", "neutral", "temperror", "permerror")
}

// word is s if it is one of the words, which a report may have, else the first.
func word(s string, words ...string) string {
	if slices.Contains(words, s) {
		return s
	}
	return words[0]
}

func (w *row) key() string {
	b, err := json.Marshal(w)
	if err != nil {
		return "{}" // it has nothing that cannot be marshalled
	}
	return string(b)
}

// publish is a record as a report shows it: with the defaults of what it does not have.
func publish(r *dmarc.Record) published {
	p := published{P: r.P.String(), SP: r.SP.String(), NP: r.NP.String(), FO: r.FO, DKIM: "r", SPF: "r", Testing: r.Testing}
	if r.P == dmarc.Unset {
		p.P = dmarc.None.String()
	}
	if r.StrictDKIM {
		p.DKIM = "s"
	}
	if r.StrictSPF {
		p.SPF = "s"
	}
	return p
}

// roll begins a new day if the last one is over. A day without messages leaves nothing. r.mu is
// held.
func (r *Reports) roll(now time.Time) {
	start := now.UTC().Truncate(24 * time.Hour)
	if !start.After(r.today.Start) {
		return
	}
	r.end(r.today, r.today.Start.Truncate(24*time.Hour).Add(24*time.Hour))
	r.today = newDay(start)
}

// end ends a day at a time: its reports are due in the morning. r.mu is held.
func (r *Reports) end(d *day, end time.Time) {
	if len(d.Domains) == 0 {
		return
	}
	d.End = end
	for name, one := range d.Domains {
		if one.Next.IsZero() {
			one.Next = end.Add(spread(r.host + " " + name))
		}
	}
	r.past = append(r.past, d)
	r.dirty[d] = true
	r.log.LogAttrs(r.ctx(), slog.LevelInfo, "reports about DMARC are due", slog.Time("start", d.Start), slog.Int("domains", len(d.Domains)))
}

func newDay(start time.Time) *day {
	return &day{Version: version, Start: start, Domains: map[string]*domain{}}
}

// clip bounds a text, and takes out what XML cannot hold.
func clip(s string) string {
	if len(s) > textMax {
		s = s[:textMax]
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == 0xfffd || c == 0xfffe || c == 0xffff {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
}

// isDomain tells a domain name of A-labels.
func isDomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
