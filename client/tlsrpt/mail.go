package tlsrpt

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// base64Line is how many bytes one line of base64 holds (RFC 2045 section 6.8: 76 characters).
const base64Line = 57

// mailbox is the address of a mailto URI. Header fields that the URI wants set are not: the
// report has its own.
func mailbox(uri string) (smtp.Path, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return smtp.Path{}, err
	}
	text, err := url.PathUnescape(u.Opaque)
	if err != nil {
		return smtp.Path{}, err
	}
	p, err := smtp.ParseMailbox(text, smtp.ASCII)
	if err == nil && p.Domain == "" {
		err = errors.New("the address has no domain")
	}
	return p, err
}

// message is the mail with a report (RFC 8460 section 5.3). TLS-Required asks those behind the
// next hop, too, not to keep it back (RFC 8689 section 5).
func (t *terms) message(name string, rep *Report, packed []byte, to smtp.Path, now time.Time) []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	boundary := "tlsrpt-" + strings.ReplaceAll(rep.ID[:strings.IndexByte(rep.ID, '@')], ".", "-")
	line("From: <%s>", t.sender.Addr())
	line("To: <%s>", to.Addr())
	line("Date: %s", now.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	line("Message-ID: <%s>", rep.ID)
	line("Subject: Report Domain: %s", name)
	line(" Submitter: %s", t.submitter)
	line(" Report-ID: <%s>", rep.ID)
	line("TLS-Report-Domain: %s", name)
	line("TLS-Report-Submitter: %s", t.submitter)
	line("TLS-Required: No")
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=\"tlsrpt\";")
	line(" boundary=\"%s\"", boundary)
	line("")
	line("This is a report in MIME format.")
	line("")
	line("--%s", boundary)
	line("Content-Type: text/plain; charset=us-ascii")
	line("")
	line("This is an aggregate report about TLS from %s", t.submitter)
	line("on mail to %s,", name)
	line("from %s to %s.", rep.DateRange.Start.Format(time.RFC3339), rep.DateRange.End.Format(time.RFC3339))
	line("RFC 8460 tells what it is.")
	line("")
	line("--%s", boundary)
	line("Content-Type: application/tlsrpt+gzip")
	line("Content-Transfer-Encoding: base64")
	line("Content-Disposition: attachment;")
	line(" filename=\"%s\"", rep.fileName(t.submitter, name))
	line("")
	for len(packed) > 0 {
		n := min(len(packed), base64Line)
		line("%s", base64.StdEncoding.EncodeToString(packed[:n]))
		packed = packed[n:]
	}
	line("--%s--", boundary)
	return b.Bytes()
}

// mail puts a report into our own queue. No policy about TLS keeps it there, and nobody is
// told if it cannot be delivered (RFC 3461, NOTIFY=NEVER).
func (r *Reports) mail(ctx context.Context, by *terms, name string, rep *Report, packed []byte, uri string) error {
	to, err := mailbox(uri)
	if err != nil {
		return err
	}
	content := by.message(name, rep, packed, to, time.Now())
	if r.deps.Sign != nil {
		if content, err = r.deps.Sign(content); err != nil {
			return fmt.Errorf("signing the report: %w", err)
		}
	}
	ports := r.deps.Ports
	session, err := ports.Admit.Ask(ctx, msg.AdmitQ{Kind: msg.NewSession})
	if err := refused(session.Reply, err); err != nil {
		return err
	}
	defer func() {
		_, _ = ports.Admit.Ask(context.WithoutCancel(ctx), msg.AdmitQ{Kind: msg.EndSession, Session: session.ID})
	}() // it has no reply
	ta, err := ports.Admit.Ask(ctx, msg.AdmitQ{Kind: msg.NewTransaction, Session: session.ID, Size: int64(len(content)), Relay: true})
	if err := refused(ta.Reply, err); err != nil {
		return err
	}
	a, err := ports.Commit.Ask(ctx, msg.CommitQ{
		Envelope: &msg.Envelope{
			TA: ta.ID, Session: session.ID, Arrival: time.Now(), Client: msg.Client{IP: netip.Addr{}, Protocol: "LOCAL"},
			Mail:  msg.Mail{From: by.sender, Size: int64(len(content)), TLSOptional: true},
			Rcpts: []msg.Rcpt{{To: to, Notify: "NEVER"}},
		},
		Inline: content, Size: int64(len(content)),
	})
	return refused(a.Reply, err)
}

// refused is why the queue does not take a report.
func refused(reply smtp.Reply, err error) error {
	if err == nil && !reply.IsZero() {
		err = errors.New(reply.String())
	}
	if err != nil {
		return fmt.Errorf("the queue does not take the report: %w", err)
	}
	return nil
}
