package dmarcrpt

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Report is a report as RFC 9990 section 3.1.1 has it: its fields are the elements, in the order
// that stands there.
type Report struct {
	XMLName  xml.Name        `xml:"urn:ietf:params:xml:ns:dmarc-2.0 feedback" json:"-"`
	Version  string          `xml:"version" json:"version"`
	Metadata Metadata        `xml:"report_metadata" json:"report_metadata"`
	Policy   PolicyPublished `xml:"policy_published" json:"policy_published"`
	Records  []Record        `xml:"record" json:"records"`
}

// Metadata says who reports about which time.
type Metadata struct {
	Organization string   `xml:"org_name" json:"org_name"`
	Email        string   `xml:"email" json:"email"`
	Contact      string   `xml:"extra_contact_info,omitempty" json:"extra_contact_info,omitempty"`
	ID           string   `xml:"report_id" json:"report_id"`
	Begin        int64    `xml:"date_range>begin" json:"begin"` // seconds since 1970
	End          int64    `xml:"date_range>end" json:"end"`     // the last second that counts
	Errors       []string `xml:"error,omitempty" json:"error,omitempty"`
	Generator    string   `xml:"generator" json:"generator"`
}

// PolicyPublished is the record of the domain.
type PolicyPublished struct {
	Domain    string `xml:"domain" json:"domain"`
	Discovery string `xml:"discovery_method" json:"discovery_method"`
	P         string `xml:"p" json:"p"`
	SP        string `xml:"sp,omitempty" json:"sp,omitempty"`
	NP        string `xml:"np,omitempty" json:"np,omitempty"`
	FO        string `xml:"fo" json:"fo"`
	DKIM      string `xml:"adkim" json:"adkim"`
	SPF       string `xml:"aspf" json:"aspf"`
	Testing   string `xml:"testing" json:"testing"`
}

// Record counts messages that have everything in it in common.
type Record struct {
	Source      netip.Addr   `xml:"row>source_ip" json:"source_ip"`
	Count       uint64       `xml:"row>count" json:"count"`
	Disposition string       `xml:"row>policy_evaluated>disposition" json:"disposition"`
	DKIM        string       `xml:"row>policy_evaluated>dkim" json:"dkim"`
	SPF         string       `xml:"row>policy_evaluated>spf" json:"spf"`
	Reasons     []Reason     `xml:"row>policy_evaluated>reason" json:"reasons,omitempty"`
	From        string       `xml:"identifiers>header_from" json:"header_from"`
	Envelope    string       `xml:"identifiers>envelope_from" json:"envelope_from"`
	AuthDKIM    []DKIMResult `xml:"auth_results>dkim" json:"auth_dkim,omitempty"`
	AuthSPF     *SPFResult   `xml:"auth_results>spf" json:"auth_spf,omitempty"`
}

// Reason says why a policy was not applied.
type Reason struct {
	Type    string `xml:"type" json:"type"`
	Comment string `xml:"comment,omitempty" json:"comment,omitempty"`
}

// DKIMResult is the result of one signature.
type DKIMResult struct {
	Domain   string `xml:"domain" json:"domain"`
	Selector string `xml:"selector" json:"selector"`
	Result   string `xml:"result" json:"result"`
}

// SPFResult is the result of SPF.
type SPFResult struct {
	Domain string `xml:"domain" json:"domain"`
	Scope  string `xml:"scope,omitempty" json:"scope,omitempty"`
	Result string `xml:"result" json:"result"`
}

// report is the report on a domain. r.mu is held.
func (r *Reports) report(name string, d *day, one *domain) *Report {
	end := d.End
	if end.IsZero() {
		end = d.Start.Truncate(24 * time.Hour).Add(24 * time.Hour)
	}
	rep := &Report{
		Version: "1.0",
		Metadata: Metadata{
			Organization: r.who.Load().organization, Email: r.who.Load().sender.Addr(), Contact: r.who.Load().contact, ID: r.reportID(name, d),
			Begin: d.Start.Unix(), End: max(end.Unix()-1, d.Start.Unix()), Errors: slices.Clone(one.Problems), Generator: r.generator,
		},
		Policy: PolicyPublished{
			Domain: name, Discovery: "treewalk", P: one.Policy.P, SP: one.Policy.SP, NP: one.Policy.NP, FO: one.Policy.FO,
			DKIM: one.Policy.DKIM, SPF: one.Policy.SPF, Testing: map[bool]string{true: "y", false: "n"}[one.Policy.Testing],
		},
	}
	for _, key := range slices.Sorted(maps.Keys(one.Rows)) {
		var w row
		if err := json.Unmarshal([]byte(key), &w); err != nil {
			continue // readDay has looked at those from disk
		}
		rep.Records = append(rep.Records, w.record(one.Rows[key]))
	}
	return rep
}

// record is a row in a report.
func (w *row) record(n uint64) Record {
	verdict := map[bool]string{true: "pass", false: "fail"}
	rec := Record{
		Source: w.IP, Count: n, Disposition: w.Disposition, DKIM: verdict[w.DKIM], SPF: verdict[w.SPF], From: w.From, Envelope: w.Envelope,
	}
	if w.Override != "" {
		rec.Reasons = []Reason{{w.Override, w.Comment}}
	}
	for _, s := range w.Signatures {
		rec.AuthDKIM = append(rec.AuthDKIM, DKIMResult(s))
	}
	if w.SPFDomain != "" {
		rec.AuthSPF = &SPFResult{Domain: w.SPFDomain, Result: w.SPFResult}
		if w.SPFDomain == w.Envelope {
			rec.AuthSPF.Scope = "mfrom" // of an empty sender it is the name in HELO, for which there is no word
		}
	}
	return rec
}

// reportID names the report on a domain and a day; a second try has the same. It has letters and
// digits only, so that it can be the unique-id of the file name, too (RFC 9990 section 3.1.4).
func (r *Reports) reportID(name string, d *day) string {
	sum := sha256.Sum256([]byte(r.host + " " + name + " " + d.Start.UTC().Format(time.RFC3339)))
	return d.Start.UTC().Format("20060102") + hex.EncodeToString(sum[:10])
}

// spread is when in the morning a report is sent: between one and six o'clock, so that not all
// come at once to those who get many.
func spread(of string) time.Duration {
	sum := sha256.Sum256([]byte(of))
	return time.Hour + time.Duration(binary.BigEndian.Uint32(sum[:])%(5*3600))*time.Second
}

// XML is the report as text.
func (rep *Report) XML() ([]byte, error) {
	text, err := xml.MarshalIndent(rep, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(append([]byte(xml.Header), text...), '\n'), nil
}

// packed is the report in the form in which it travels.
func (rep *Report) packed() ([]byte, error) {
	text, err := rep.XML()
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

// fileName is the name of RFC 9990 section 3.5.2.
func (rep *Report) fileName(submitter string) string {
	return fmt.Sprintf("%s!%s!%d!%d!%s.xml.gz", submitter, rep.Policy.Domain, rep.Metadata.Begin, rep.Metadata.End, rep.Metadata.ID)
}
