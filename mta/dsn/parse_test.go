package dsn

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"meta1/mta/sevenbit"
	"meta1/mta/smtp"
)

// parsed is what a reader finds in a notification.
type parsed struct {
	boundary         string
	returnedKind     string
	returnedEncoding string
	groups           []textproto.MIMEHeader
}

// checkMessage reads a notification as a mail program would, and checks that it
// says what n says and nothing else.
func checkMessage(t *testing.T, n Notification, m Message) (p parsed) {
	t.Helper()
	checkLines(t, m.Content)
	msg, err := mail.ReadMessage(bytes.NewReader(m.Content))
	if err != nil {
		t.Fatal(err)
	}
	for name := range msg.Header {
		if !slices.Contains([]string{
			"From", "To", "Date", "Message-Id", "Subject", "Auto-Submitted",
			"Mime-Version", "Content-Type", "Content-Transfer-Encoding",
		}, name) {
			t.Errorf("field %q in the header", name)
		}
	}
	if m.EightBit != n.utf8() || !m.EightBit && !isASCII(m.Content) {
		t.Error("8 bit that it does not own up to, or that may not get through")
	}
	if head, _, _ := bytes.Cut(m.Content, []byte("\r\n\r\n")); !m.UTF8 && !isASCII(head) {
		t.Error("UTF-8 header that it does not own up to")
	}
	kind, params, _ := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	want := map[Format]string{MIME: "multipart/mixed", RFC: "multipart/report"}[n.Format]
	if n.Format == Plain {
		checkPlain(t, n, msg)
		return p
	}
	if kind != want || n.Format == RFC && params["report-type"] != "delivery-status" {
		t.Fatalf("type %q, %v", kind, params)
	}
	p.boundary = params["boundary"]
	r := multipart.NewReader(msg.Body, p.boundary)
	checkTextPart(t, n, nextPart(t, r, m))
	if n.Format == RFC {
		p.groups = checkStatusPart(t, n, nextPart(t, r, m))
	}
	if raw, err := r.NextRawPart(); err == nil {
		p.returnedKind, p.returnedEncoding = raw.Header.Get("Content-Type"), raw.Header.Get("Content-Transfer-Encoding")
		checkReturned(t, n, decode(t, raw))
	} else if content, _ := n.original(); err != io.EOF || len(content) > 0 && len(Header(content, HeaderMax)) > 0 {
		t.Errorf("nothing is returned: %v", err)
	} else {
		return p
	}
	if _, err := r.NextRawPart(); err != io.EOF {
		t.Errorf("a further part, or %v", err)
	}
	return p
}

// checkLines: all lines end with CRLF and are not too long, and there is no NUL.
func checkLines(t *testing.T, content []byte) {
	t.Helper()
	for l := range bytes.Lines(content) {
		body, ok := bytes.CutSuffix(l, []byte("\r\n"))
		if !ok || len(body) > 998 || bytes.ContainsAny(body, "\r\x00") {
			t.Errorf("bad line %q", l)
		}
	}
}

func checkPlain(t *testing.T, n Notification, msg *mail.Message) {
	t.Helper()
	r := msg.Body
	if msg.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		r = quotedprintable.NewReader(r)
	}
	body, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(body), "\r\nYour mail follows.\r\n")
	checkText(t, n, text)
	if content, _ := n.original(); linesFit(content) && !bytes.HasSuffix(body, content) && !bytes.HasSuffix(body, append(bytes.Clone(content), "\r\n"...)) {
		t.Errorf("the mail is not returned:\n%s", body)
	}
}

// checkText: each recipient is named in its paragraph.
func checkText(t *testing.T, n Notification, text string) {
	t.Helper()
	if !utf8.ValidString(text) && n.Format != Plain {
		t.Error("bad UTF-8 in the text")
	}
	paragraphs := strings.Split(text, "\r\n\r\n")
	if len(paragraphs) < 1+len(n.Failures) {
		t.Fatalf("%d paragraphs for %d recipients:\n%s", len(paragraphs), len(n.Failures), text)
	}
	for i, f := range n.Failures {
		if a := f.Rcpt.String(); len(a) < 300 && isPrintable(a) && !strings.Contains(paragraphs[i+1], a+"... ") {
			t.Errorf("recipient %q is not in\n%s", a, paragraphs[i+1])
		}
	}
}

type mimePart struct {
	header textproto.MIMEHeader
	body   []byte
}

func nextPart(t *testing.T, r *multipart.Reader, m Message) mimePart {
	t.Helper()
	raw, err := r.NextRawPart()
	if err != nil {
		t.Fatal(err)
	}
	return mimePart{raw.Header, decode(t, raw)}
}

func decode(t *testing.T, raw *multipart.Part) []byte {
	t.Helper()
	var r io.Reader = raw
	enc := raw.Header.Get("Content-Transfer-Encoding")
	switch enc {
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, raw)
	case "quoted-printable":
		r = quotedprintable.NewReader(raw)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%v in %s", err, enc)
	}
	if enc == "7bit" && !isASCII(b) {
		t.Error("8 bit in 7bit")
	}
	return b
}

func checkTextPart(t *testing.T, n Notification, p mimePart) {
	t.Helper()
	if kind, params, _ := mime.ParseMediaType(p.header.Get("Content-Type")); kind != "text/plain" || params["charset"] == "" {
		t.Errorf("text is %q, %v", kind, params)
	}
	checkText(t, n, string(p.body))
}

// checkStatusPart: one group of fields for each recipient, with only the fields of
// RFC 3464, each once, and what the recipient's says in them.
func checkStatusPart(t *testing.T, n Notification, p mimePart) []textproto.MIMEHeader {
	t.Helper()
	want := "message/delivery-status"
	if !isASCII(p.body) {
		want = "message/global-delivery-status"
	}
	if got := p.header.Get("Content-Type"); got != want {
		t.Errorf("status is %q", got)
	}
	var groups []textproto.MIMEHeader
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(p.body)))
	for {
		h, err := r.ReadMIMEHeader()
		if len(h) > 0 {
			groups = append(groups, h)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, p.body)
		}
	}
	if len(groups) != 1+len(n.Failures) {
		t.Fatalf("%d groups of fields for %d recipients:\n%s", len(groups), len(n.Failures), p.body)
	}
	checkOrder(t, p.body)
	checkFields(t, groups[0], "Reporting-Mta", "Original-Envelope-Id", "Received-From-Mta", "Arrival-Date", "X-Meta1-Id")
	for i := range n.Failures {
		checkGroup(t, &n.Failures[i], groups[i+1])
	}
	return groups
}

// fieldOrder is the grammar of RFC 3464 sections 2.2 and 2.3.
var fieldOrder = []string{
	"Original-Envelope-Id", "Reporting-MTA", "Received-From-MTA", "Arrival-Date", "X-MeTA1-Id", "",
	"Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date", "Will-Retry-Until",
}

// checkOrder: the fields stand in the order of the grammar, and those that must be
// there are.
func checkOrder(t *testing.T, body []byte) {
	t.Helper()
	for i, group := range strings.Split(strings.TrimSuffix(string(body), "\r\n"), "\r\n\r\n") {
		last, names := -1, map[string]bool{}
		for line := range strings.SplitSeq(group, "\r\n") {
			if strings.HasPrefix(line, " ") {
				continue
			}
			name, _, _ := strings.Cut(line, ":")
			names[name] = true
			at := slices.Index(fieldOrder, name)
			if at <= last || (at > slices.Index(fieldOrder, "")) != (i > 0) {
				t.Errorf("field %q out of order in group %d:\n%s", name, i, body)
			}
			last = at
		}
		if !names["Reporting-MTA"] && (!names["Final-Recipient"] || !names["Action"] || !names["Status"]) {
			t.Errorf("a field is missing:\n%s", group)
		}
	}
}

func checkFields(t *testing.T, h textproto.MIMEHeader, names ...string) {
	t.Helper()
	for name, v := range h {
		if len(v) != 1 || v[0] == "" || !slices.Contains(names, name) {
			t.Errorf("field %s: %q", name, v)
		}
	}
}

func checkGroup(t *testing.T, f *Failure, h textproto.MIMEHeader) {
	t.Helper()
	checkFields(t, h, "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-Mta",
		"Diagnostic-Code", "Last-Attempt-Date", "Will-Retry-Until")
	kind, addr, _ := strings.Cut(h.Get("Final-Recipient"), "; ")
	if decoded, ok := decodeUnitext(addr); ok && kind == "utf-8" {
		addr = decoded
	}
	if want := f.Rcpt.Addr(); isPlainAddress(want) && addr != want {
		t.Errorf("recipient %q, want %q", addr, want)
	}
	if got := h.Get("Action"); got != f.Kind.String() {
		t.Errorf("action %q", got)
	}
	status, _, ok := smtp.ParseEnhancedCode(h.Get("Status"))
	if classes := [...]string{"45", "4", "2", "2", "2"}[f.Kind]; !ok || !strings.ContainsRune(classes, rune('0'+status[0])) {
		t.Errorf("status %q of %s", h.Get("Status"), f.Kind)
	}
	diagnostic := h.Get("Diagnostic-Code")
	for _, l := range f.Reply.Lines {
		if (f.Kind == Failed || f.Kind == Delayed) && len(f.Reply.Text()) < 300 && isPrintable(l) && !strings.Contains(squeeze(diagnostic), squeeze(l)) {
			t.Errorf("%q is not in %q", l, diagnostic)
		}
	}
}

// isPlainAddress reports an address that a field gives back exactly.
func isPlainAddress(s string) bool {
	return len(s) < 200 && utf8.ValidString(s) && !strings.ContainsAny(s, ` \`) && (&writer{}).clean(s) == s
}

// squeeze leaves only single spaces, since folding may add some.
func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

func checkReturned(t *testing.T, n Notification, got []byte) {
	t.Helper()
	want, whole := n.original()
	if bytes.Equal(got, want) {
		return
	}
	encoded := whole && linesFit(want) && !isASCII(want) && !n.utf8()
	if converted, ok := sevenbit.Convert(want); encoded && ok && bytes.Equal(got, converted) {
		return // which keeps the parts as they were: TestConvert
	}
	if head := Header(want, HeaderMax); !whole || linesFit(want) && !encoded || !bytes.Equal(got, head) {
		t.Errorf("returned %q, want %q", got, want)
	}
}
