package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Report is a report as RFC 8460 section 4.4 has it.
type Report struct {
	Organization string    `json:"organization-name"`
	DateRange    DateRange `json:"date-range"`
	Contact      string    `json:"contact-info"`
	ID           string    `json:"report-id"`
	Policies     []Policy  `json:"policies"`
}

// DateRange is the time of a report, in UTC.
type DateRange struct {
	Start time.Time `json:"start-datetime"`
	End   time.Time `json:"end-datetime"` // the last second that counts
}

// Policy is what happened under one policy.
type Policy struct {
	Policy   PolicyDetails    `json:"policy"`
	Summary  Summary          `json:"summary"`
	Failures []FailureDetails `json:"failure-details,omitempty"`
}

// PolicyDetails say which policy was applied.
type PolicyDetails struct {
	Type    string   `json:"policy-type"`
	Strings []string `json:"policy-string,omitempty"`
	Domain  string   `json:"policy-domain"`
	MXHosts []string `json:"mx-host,omitempty"`
}

// Summary counts sessions.
type Summary struct {
	Good uint64 `json:"total-successful-session-count"`
	Bad  uint64 `json:"total-failure-session-count"`
}

// FailureDetails are sessions that failed in one way.
type FailureDetails struct {
	Result      string `json:"result-type"`
	Local       string `json:"sending-mta-ip,omitempty"`
	MX          string `json:"receiving-mx-hostname,omitempty"`
	Helo        string `json:"receiving-mx-helo,omitempty"`
	Remote      string `json:"receiving-ip,omitempty"`
	Count       uint64 `json:"failed-session-count"`
	Information string `json:"additional-information,omitempty"`
	Reason      string `json:"failure-reason-code,omitempty"`
}

// report is the report on a domain. r.mu is held.
func (r *Reports) report(name string, d *day, one *domain) *Report {
	end := d.End
	if end.IsZero() {
		end = d.Start.Truncate(24 * time.Hour).Add(24 * time.Hour)
	}
	by := r.terms.Load()
	rep := &Report{
		Organization: by.organization, Contact: by.contact, ID: r.reportID(name, d),
		DateRange: DateRange{d.Start.UTC(), end.UTC().Truncate(time.Second).Add(-time.Second)},
		Policies:  []Policy{},
	}
	if rep.DateRange.End.Before(rep.DateRange.Start) {
		rep.DateRange.End = rep.DateRange.Start
	}
	for _, p := range one.Policies {
		out := Policy{
			Policy:  PolicyDetails{Type: p.Type, Strings: p.Strings, Domain: p.Domain, MXHosts: p.Hosts},
			Summary: Summary{p.Good, p.Bad},
		}
		for _, f := range p.Failures {
			one := FailureDetails{Result: f.Result, MX: f.MX, Helo: f.Helo, Count: f.N, Reason: f.Reason}
			if f.Local.IsValid() {
				one.Local = f.Local.String()
			}
			if f.Remote.IsValid() {
				one.Remote = f.Remote.String()
			}
			out.Failures = append(out.Failures, one)
		}
		rep.Policies = append(rep.Policies, out)
	}
	return rep
}

// reportID names the report on a domain and a day; a second try has the same.
func (r *Reports) reportID(name string, d *day) string {
	sum := sha256.Sum256([]byte(r.host + " " + name + " " + d.Start.UTC().Format(time.RFC3339)))
	return d.Start.UTC().Format("20060102") + "." + hex.EncodeToString(sum[:8]) + "@" + r.host
}

// spread is when in the morning a report is sent: between one and six o'clock, so that not all
// come at once to those who get many.
func spread(of string) time.Duration {
	sum := sha256.Sum256([]byte(of))
	return time.Hour + time.Duration(binary.BigEndian.Uint32(sum[:])%(5*3600))*time.Second
}

// packed is the report in the form in which it travels.
func (rep *Report) packed() ([]byte, error) {
	text, err := json.Marshal(rep)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err = z.Write(text); err == nil {
		err = z.Close()
	}
	return b.Bytes(), err
}

// fileName is the name of RFC 8460 section 5.1.
func (rep *Report) fileName(submitter, name string) string {
	id := rep.ID
	if i := bytes.IndexByte([]byte(id), '@'); i >= 0 {
		id = id[:i]
	}
	return fmt.Sprintf("%s!%s!%d!%d!%s.json.gz", submitter, name, rep.DateRange.Start.Unix(), rep.DateRange.End.Unix(), id)
}
