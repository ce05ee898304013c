package dmarcrpt

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/authn/dmarc"
)

const (
	// base64Line is how many bytes one line of base64 holds (RFC 2045 section 6.8: 76
	// characters).
	base64Line = 57
	// placesMax bounds the addresses that one report is mailed to.
	placesMax = 5
)

// errUnwanted says that nobody wants the report any more, or nobody may get it.
var errUnwanted = errors.New("nobody is to get the report")

// deliver mails a report to wherever the domain wants it now. It is delivered if one place has
// taken it.
func (r *Reports) deliver(ctx context.Context, rep *Report) error {
	name := rep.Policy.Domain
	rua, err := r.wanted(ctx, name)
	if err != nil {
		return err
	}
	packed, err := rep.packed()
	if err != nil {
		return err
	}
	var all []error
	taken, temporary := false, false
	for i := range rua {
		err := r.mail(ctx, rep, packed, &rua[i])
		if err == nil {
			taken = true
			continue
		}
		all = append(all, fmt.Errorf("%s: %w", clip(rua[i].Text), err))
		temporary = temporary || !errors.Is(err, errUnwanted)
	}
	switch {
	case taken:
		return nil
	case len(all) == 0:
		return fmt.Errorf("%w: the domain asks for none", errUnwanted)
	case !temporary:
		return fmt.Errorf("%w: %w", errUnwanted, errors.Join(all...))
	}
	for _, e := range all { // not even errUnwanted of one place must end what is worth another try
		err = errors.Join(err, errors.New(e.Error()))
	}
	return err
}

// wanted are the places that may get a report about a domain.
func (r *Reports) wanted(ctx context.Context, name string) (list []dmarc.URI, err error) {
	t := r.deps.Lookup(ctx, "_dmarc."+name)
	if t.Err != nil {
		return nil, fmt.Errorf("no answer about the DMARC record: %w", t.Err)
	}
	var records []*dmarc.Record
	for _, text := range t.Texts {
		if rec, ok := dmarc.ParseRecord(text); ok {
			records = append(records, rec)
		}
	}
	if len(records) != 1 {
		return nil, fmt.Errorf("%w: the domain has no DMARC record any more", errUnwanted)
	}
	var own string
	var refused error
	for _, uri := range records[0].RUA {
		if len(list) >= placesMax {
			break
		}
		if uri.To.IsNull() {
			continue // reports go by mail only
		}
		host := uri.To.LowerDomain()
		if own == "" {
			if own, _, err = dmarc.Organization(ctx, name, r.deps.Lookup); err != nil {
				return nil, fmt.Errorf("no answer about the organization of %s: %w", name, err)
			}
		}
		other, _, err := dmarc.Organization(ctx, host, r.deps.Lookup)
		if err != nil {
			return nil, fmt.Errorf("no answer about the organization of %s: %w", host, err)
		}
		if own == other {
			list = append(list, uri)
			continue
		}
		places, err := r.external(ctx, name, host, &uri)
		switch {
		case errors.Is(err, errUnwanted):
			refused = errors.Join(refused, err)
		case err != nil:
			return nil, err
		}
		list = append(list, places...)
	}
	if len(list) == 0 && refused != nil {
		return nil, refused
	}
	return list[:min(len(list), placesMax)], nil
}

// external asks a domain of another organization whether it wants reports about name (RFC 9990
// section 4). It may have them sent to other addresses of its own.
func (r *Reports) external(ctx context.Context, name, host string, uri *dmarc.URI) ([]dmarc.URI, error) {
	ask := name + "._report._dmarc." + host
	if len(ask) > 253 {
		return nil, fmt.Errorf("%w: %s is too long a name to ask for", errUnwanted, ask)
	}
	t := r.deps.Lookup(ctx, ask)
	if t.Err != nil {
		return nil, fmt.Errorf("no answer whether %s wants reports: %w", host, t.Err)
	}
	agreed := false
	var instead []dmarc.URI
	for _, text := range t.Texts {
		if rua, ok := dmarc.Report(text); ok {
			agreed = true
			instead = append(instead, rua...)
		}
	}
	if !agreed {
		return nil, fmt.Errorf("%w: %s has no DMARC record, so %s does not want reports about others", errUnwanted, ask, host)
	}
	if len(instead) == 0 {
		return []dmarc.URI{*uri}, nil
	}
	// One that leads elsewhere spoils all, so that nobody is sent on.
	if slices.ContainsFunc(instead, func(u dmarc.URI) bool { return !u.To.IsNull() && u.To.LowerDomain() != host }) {
		return nil, fmt.Errorf("%w: %s has reports sent on to another domain", errUnwanted, ask)
	}
	return slices.DeleteFunc(instead, func(u dmarc.URI) bool { return u.To.IsNull() }), nil
}

// message is the mail with a report (RFC 9990 section 3.5.2).
func (r *Reports) message(rep *Report, packed []byte, to smtp.Path, now time.Time) []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	boundary := "dmarc-" + rep.Metadata.ID
	line("From: <%s>", r.who.Load().sender.Addr())
	line("To: <%s>", to.Addr())
	line("Date: %s", now.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	line("Message-ID: <%s@%s>", rep.Metadata.ID, r.host)
	line("Subject: Report Domain: %s", rep.Policy.Domain)
	line(" Submitter: %s", r.who.Load().submitter)
	line(" Report-ID: <%s>", rep.Metadata.ID)
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/mixed; boundary=\"%s\"", boundary)
	line("")
	line("This is a report in MIME format.")
	line("")
	line("--%s", boundary)
	line("Content-Type: text/plain; charset=us-ascii")
	line("")
	line("This is an aggregate report about DMARC from %s", r.who.Load().submitter)
	line("on mail from %s,", rep.Policy.Domain)
	line("from %s to %s.", time.Unix(rep.Metadata.Begin, 0).UTC().Format(time.RFC3339), time.Unix(rep.Metadata.End, 0).UTC().Format(time.RFC3339))
	line("RFC 9990 tells what it is.")
	line("")
	line("--%s", boundary)
	line("Content-Type: application/gzip;")
	line(" name=\"%s\"", rep.fileName(r.who.Load().submitter))
	line("Content-Transfer-Encoding: base64")
	line("Content-Disposition: attachment;")
	line(" filename=\"%s\"", rep.fileName(r.who.Load().submitter))
	line("")
	for len(packed) > 0 {
		n := min(len(packed), base64Line)
		line("%s", base64.StdEncoding.EncodeToString(packed[:n]))
		packed = packed[n:]
	}
	line("--%s--", boundary)
	return b.Bytes()
}

// mail puts a report into our own queue. Nobody is told if it cannot be delivered (RFC 3461,
// NOTIFY=NEVER).
func (r *Reports) mail(ctx context.Context, rep *Report, packed []byte, uri *dmarc.URI) (err error) {
	content := r.message(rep, packed, uri.To, time.Now())
	if r.deps.Sign != nil {
		if content, err = r.deps.Sign(content); err != nil {
			return fmt.Errorf("signing the report: %w", err)
		}
	}
	size := int64(len(content))
	if uri.Max > 0 && size > uri.Max {
		return fmt.Errorf("%w: the report has %d bytes, more than are wanted there", errUnwanted, size)
	}
	ports := r.deps.Ports
	session, err := ports.Admit.Ask(ctx, msg.AdmitQ{Kind: msg.NewSession})
	if err := refused(session.Reply, err); err != nil {
		return err
	}
	defer func() {
		_, _ = ports.Admit.Ask(context.WithoutCancel(ctx), msg.AdmitQ{Kind: msg.EndSession, Session: session.ID})
	}() // it has no reply
	ta, err := ports.Admit.Ask(ctx, msg.AdmitQ{Kind: msg.NewTransaction, Session: session.ID, Size: size, Relay: true})
	if err := refused(ta.Reply, err); err != nil {
		return err
	}
	a, err := ports.Commit.Ask(ctx, msg.CommitQ{
		Envelope: &msg.Envelope{
			TA: ta.ID, Session: session.ID, Arrival: time.Now(), Client: msg.Client{IP: netip.Addr{}, Protocol: "LOCAL"},
			Mail:  msg.Mail{From: r.who.Load().sender, Size: size},
			Rcpts: []msg.Rcpt{{To: uri.To, Notify: "NEVER"}},
		},
		Inline: content, Size: size,
	})
	return refused(a.Reply, err)
}

// refused is why the queue does not take a report.
func refused(reply smtp.Reply, err error) error {
	if err == nil && !reply.IsZero() {
		err = errors.New(strings.TrimSpace(reply.String()))
	}
	if err != nil {
		return fmt.Errorf("the queue does not take the report: %w", err)
	}
	return nil
}
