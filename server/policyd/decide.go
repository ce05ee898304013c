package policyd

import (
	"strconv"
	"strings"

	"meta1/mta/smtp"
)

// Decision is what an action means.
type Decision struct {
	Reply   smtp.Reply // that refuses; zero: it does not
	Discard bool       // accept the message, and drop it
	Hold    string     // why the message is to be held; "": it is not
	Prepend string     // a header field, without its line end; "": none
	Unknown bool       // the action is none that we know: nothing follows
}

var (
	replyReject = smtp.NewReply(550, "5.7.1", "Recipient address rejected by policy")
	replyDefer  = smtp.NewReply(450, "4.7.1", "Recipient address deferred by policy, try again later")
)

// Decide reads an action (access(5) of Postfix). DUNNO, OK, and actions for what meta1 does in
// another way decide nothing.
func Decide(action string) Decision {
	word, text, _ := strings.Cut(action, " ")
	text = printable(strings.TrimSpace(text))
	switch upper := strings.ToUpper(word); upper {
	case "DUNNO", "OK", "PERMIT", "INFO", "WARN", "":
		return Decision{}
	case "REJECT":
		return Decision{Reply: withText(replyReject, text)}
	case "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT":
		return Decision{Reply: withText(replyDefer, text)}
	case "DISCARD":
		return Decision{Discard: true}
	case "HOLD":
		if text == "" {
			text = "no reason given"
		}
		return Decision{Hold: text}
	case "PREPEND":
		name, _, ok := strings.Cut(text, ":")
		if ok && name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == "" {
			return Decision{Prepend: text}
		}
	default:
		code, err := strconv.Atoi(word)
		if err == nil && len(word) == 3 && code >= 400 && code < 600 {
			r := replyReject
			if code < 500 {
				r = replyDefer
			}
			r.Code = code
			return Decision{Reply: withText(r, text)}
		}
	}
	return Decision{Unknown: true}
}

// withText puts the text of the service in place of ours. It may begin with an enhanced code of
// the same class.
func withText(r smtp.Reply, text string) smtp.Reply {
	if e, rest, ok := smtp.ParseEnhancedCode(text); ok && int(e[0]) == r.Code/100 {
		r.Enhanced, text = e, rest
	}
	if text != "" {
		r.Lines = []string{text}
	}
	return r
}

// textMax bounds what a service has us say.
const textMax = 500

func printable(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), textMax)], "?")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
