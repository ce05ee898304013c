package milter

import (
	"bytes"
	"errors"
	"strings"

	"meta1/mta/smtp"
)

// Action is what a filter, or the failure of one, demands.
type Action uint8

// The actions.
const (
	Continue Action = iota
	Accept          // this filter wants to see no more of it; it is no reason to skip others
	Discard         // accept, and drop
	Refuse          // with Verdict.Reply
	Abort           // end the session, with Verdict.Reply
	skip            // of the body; never leaves this package
)

func (a Action) String() string {
	return [...]string{"continue", "accept", "discard", "refuse", "abort", "skip"}[a]
}

// Verdict is what becomes of an event, and who decided so.
type Verdict struct {
	Action Action
	Reply  smtp.Reply // of Refuse and Abort
	Filter string     // name of the filter that decided; "" for Continue
	Stage  Stage
	// Failed is the error of a filter that failed, if that decided; nil if a filter did.
	Failed error
}

// The replies that stand for a verdict without a text, and for a filter that failed.
var (
	replyReject    = smtp.NewReply(550, "5.7.1", "Command rejected")
	replyTempfail  = smtp.NewReply(451, "4.7.1", "Please try again later")
	replyShutdown  = smtp.NewReply(421, "4.7.0", "Closing connection")
	replyFailed    = smtp.NewReply(451, "4.7.1", "Service unavailable, try again later")
	replyFailedNo  = smtp.NewReply(550, "5.7.1", "Service unavailable")
	replyFailed421 = smtp.NewReply(421, "4.7.1", "Service unavailable, closing connection")
)

// Bounds of a reply text.
const (
	replyLinesMax = 32
	replyLineMax  = 980 // of libmilter's MAXREPLYLEN, as far as an SMTP line takes it
)

var errReply = errors.New("a reply code that no SMTP server may send")

// parseReply reads a reply text: one or several lines, each with the same code of three
// digits and perhaps an enhanced code. "%%" stands for "%": libmilter doubles it, because
// Sendmail takes the text for a format.
func parseReply(data []byte) (smtp.Reply, error) {
	text := strings.ReplaceAll(string(bytes.TrimRight(data, "\x00\r\n")), "%%", "%")
	var r smtp.Reply
	for n, line := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		code, rest, ok := cutCode(line)
		if n == 0 {
			if !ok {
				return smtp.Reply{}, errReply
			}
			r.Code = code
		}
		if n == replyLinesMax {
			break
		}
		if !ok || code != r.Code { // text without a code: a filter that splits lines itself
			rest = line
		}
		if e, more, ok := smtp.ParseEnhancedCode(rest); ok && int(e[0]) == r.Code/100 {
			rest = more
			if n == 0 {
				r.Enhanced = e
			}
		}
		r.Lines = append(r.Lines, printable(rest))
	}
	return r, nil
}

// cutCode takes the code and what separates it off a line.
func cutCode(line string) (code int, rest string, ok bool) {
	if len(line) < 3 || line[0] != '4' && line[0] != '5' || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0, line, false
	}
	for _, c := range []byte(line[:3]) {
		if c < '0' || c > '9' {
			return 0, line, false
		}
		code = 10*code + int(c-'0')
	}
	if len(line) > 3 {
		rest = line[4:]
	}
	return code, rest, true
}

// printable replaces what a reply line must not have, and bounds it.
func printable(s string) string {
	s = s[:min(len(s), replyLineMax)]
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// verdict is what a reply says that is no change. ok is false for other replies.
func (p packet) verdict() (v Verdict, ok bool, err error) {
	switch p.kind {
	case repContinue:
		return Verdict{}, true, nil
	case repAccept:
		return Verdict{Action: Accept}, true, nil
	case repDiscard:
		return Verdict{Action: Discard}, true, nil
	case repReject:
		return Verdict{Action: Refuse, Reply: replyReject}, true, nil
	case repTempfail:
		return Verdict{Action: Refuse, Reply: replyTempfail}, true, nil
	case repShutdown:
		return Verdict{Action: Abort, Reply: replyShutdown}, true, nil
	case repConnFail:
		return Verdict{Action: Refuse, Reply: replyTempfail}, true, nil
	case repSkip:
		return Verdict{Action: skip}, true, nil
	case repReplyCode:
		r, err := parseReply(p.data)
		if err != nil {
			return Verdict{}, true, err
		}
		if r.Code == 421 {
			return Verdict{Action: Abort, Reply: r}, true, nil
		}
		return Verdict{Action: Refuse, Reply: r}, true, nil
	}
	return Verdict{}, false, nil
}
