package cli

import (
	"bufio"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"meta1/mta/control"
	"meta1/mta/msg"
)

func mailqCommand(e *Env) *cobra.Command {
	var to target
	var asJSON, summed bool
	c := &cobra.Command{
		Use: "mailq", Short: "List the queue", SuggestFor: []string{"list"}, Args: noArgs,
		Long: `mailq lists the messages in the queue with their recipients: identifier, size, time of
arrival, sender, and below for each recipient why it waits and when it is tried next.
An identifier is followed by * if the message is in the active queue, and by ! if it is
held. Messages in the maildrop, which meta1 has not taken up yet, are listed, too, for who may list that directory; also while
meta1 does not run.

With --json each message is a JSON object on a line, with the member names of postqueue -j:
queue_name (active, deferred or hold), queue_id, arrival_time, message_size, forced_expire,
sender, and recipients with address and delay_reason. A recipient has rcpt_id, state, attempts,
next_try and destination, too. Times are seconds since 1970; who has no sender is MAILER-DAEMON.

With --summary recipients are counted: by destination and the minutes they are in the queue, in
the columns of qshape (less than 5, 10, 20 and so on), and by the reason why they wait.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if summed {
				return to.ask(func(k *control.Client) error { return printSummary(c.Context(), k, e.Stdout, asJSON) })
			}
			l := lister{out: bufio.NewWriterSize(e.Stdout, 64<<10), zone: time.Local}
			if l.print = l.text; asJSON {
				l.print = l.json
			}
			err := to.ask(func(k *control.Client) error { return k.Queue(c.Context(), l.add) })
			kept, add := l.addMaildrop(to.maildrop())
			if err == nil {
				err = add
			}
			if err == nil || kept > 0 { // what is in the maildrop can be shown while meta1 does not run
				if end := l.end(asJSON); err == nil {
					err = end
				}
			}
			if flush := l.out.Flush(); err == nil {
				err = flush
			}
			return err
		},
	}
	to.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object for each message, or for the summary")
	c.Flags().BoolVar(&summed, "summary", false, "count recipients by destination, age and reason")
	return c
}

// lister prints messages from the recipients that come in their order.
type lister struct {
	out   *bufio.Writer
	zone  *time.Location
	print func([]control.Entry) error

	current         []control.Entry // recipients of one message
	buf             []byte          // what is printed of it
	messages, rcpts int
	bytes           int64
}

func (l *lister) add(e control.Entry) error {
	if len(l.current) > 0 && l.current[0].TA != e.TA {
		if err := l.flush(); err != nil {
			return err
		}
	}
	l.current = append(l.current, e)
	return nil
}

func (l *lister) flush() error {
	if len(l.current) == 0 {
		return nil
	}
	l.messages++
	l.rcpts += len(l.current)
	l.bytes += l.current[0].Size
	err := l.print(l.current)
	l.current = l.current[:0]
	if err == nil && l.messages == 1 { // somebody may be looking
		err = l.out.Flush()
	}
	return err
}

// end prints the last message and the sum.
func (l *lister) end(asJSON bool) error {
	if err := l.flush(); err != nil {
		return err
	}
	if asJSON {
		return nil
	}
	if l.messages == 0 {
		_, err := l.out.WriteString("Mail queue is empty\n")
		return err
	}
	_, err := fmt.Fprintf(l.out, "-- %d Kbytes in %d messages for %d recipients\n", (l.bytes+1023)/1024, l.messages, l.rcpts)
	return err
}

// The columns of sendmail 8 and Postfix.
const (
	mailqHead   = "-----Queue ID------ --Size-- ----Arrival Time---- -Sender/Recipient-------\n"
	mailqIndent = 50
	mailqBlank  = "                                                  " // as many spaces
)

// text prints a message as lines for people. A queue may have millions: nothing here takes memory for each.
func (l *lister) text(rcpts []control.Entry) error {
	b := l.buf[:0]
	if l.messages == 1 {
		b = append(b, mailqHead...)
	}
	m := &rcpts[0]
	b = append(append(append(b, m.TA...), mark(rcpts)...), ' ')
	for pad := int64(1_000_000); pad > max(m.Size, 1); pad /= 10 {
		b = append(b, ' ')
	}
	b = append(strconv.AppendInt(b, m.Size, 10), ' ')
	b = m.Arrival.In(l.zone).AppendFormat(b, "Mon Jan _2 15:04:05")
	b = append(append(append(b, "  <"...), plain(m.Sender)...), ">\n"...)
	for i := range rcpts {
		r := &rcpts[i]
		from := len(b)
		b = append(l.reason(append(b, '('), r), ')')
		b = padLeft(b, from)
		b = append(b, '\n')
		b = append(b, mailqBlank...)
		b = append(append(append(b, '<'), plain(r.Rcpt)...), ">\n"...)
	}
	l.buf = append(b, '\n')
	_, err := l.out.Write(l.buf)
	return err
}

// padLeft puts spaces in front of what b has from an index on, so that it ends in the column of recipients.
func padLeft(b []byte, from int) []byte {
	n := mailqIndent - utf8.RuneCount(b[from:])
	if n <= 0 {
		return b
	}
	return slices.Insert(b, from, []byte(mailqBlank[:n])...)
}

// mark is * for a message that is in the active queue, ! for one that is held.
func mark(rcpts []control.Entry) string {
	switch queueName(rcpts) {
	case "active":
		return "*"
	case "hold":
		return "!"
	default:
		return " "
	}
}

// queueName is the queue of Postfix in which a message would be.
func queueName(rcpts []control.Entry) string {
	name := "hold"
	for i := range rcpts {
		switch rcpts[i].State {
		case stateMaildrop:
			return "maildrop"
		case msg.StateInFlight, msg.StateActive:
			return "active"
		case msg.StateDeferred:
			name = "deferred"
		}
	}
	return name
}

// reason adds to b why a recipient waits, and until when.
func (l *lister) reason(b []byte, r *control.Entry) []byte {
	b = append(b, r.State...)
	if r.Reason != "" {
		b = append(append(b, ": "...), plain(r.Reason)...)
	}
	if r.Attempts > 0 {
		b = append(strconv.AppendInt(append(b, ", "...), int64(r.Attempts), 10), " attempts"...)
	}
	if r.State == msg.StateDeferred && !r.NextTry.IsZero() {
		b = r.NextTry.In(l.zone).AppendFormat(append(b, ", next "...), "Jan _2 15:04:05")
	}
	return b
}

// plain is text that cannot steer a terminal.
func plain(s string) string {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' {
			return plainRunes(s)
		}
	}
	return s
}

func plainRunes(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// json prints a message as postqueue -j does: an object on a line. What has no counterpart there has names
// of ours, which come last.
func (l *lister) json(rcpts []control.Entry) error {
	m := &rcpts[0]
	b := append(l.buf[:0], `{"queue_name":"`...)
	b = append(append(b, queueName(rcpts)...), `","queue_id":"`...)
	b = append(append(b, m.TA...), `","arrival_time":`...)
	b = append(strconv.AppendInt(b, m.Arrival.Unix(), 10), `,"message_size":`...)
	b = append(strconv.AppendInt(b, m.Size, 10), `,"forced_expire":false,"sender":`...)
	b = control.AppendString(b, cmp.Or(m.Sender, "MAILER-DAEMON")) // as postqueue does
	b = append(b, `,"recipients":[`...)
	for i := range rcpts {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendRcpt(b, &rcpts[i])
	}
	l.buf = append(b, "]}\n"...)
	_, err := l.out.Write(l.buf)
	return err
}

// appendRcpt adds a recipient to b.
func appendRcpt(b []byte, r *control.Entry) []byte {
	b = control.AppendString(append(b, `{"address":`...), r.Rcpt)
	if r.Reason != "" {
		b = control.AppendString(append(b, `,"delay_reason":`...), r.Reason)
	}
	b = append(append(append(b, `,"rcpt_id":"`...), r.RcptID...), `","state":"`...)
	b = append(append(append(b, r.State...), `","attempts":`...), strconv.Itoa(r.Attempts)...)
	if !r.NextTry.IsZero() {
		b = strconv.AppendInt(append(b, `,"next_try":`...), r.NextTry.Unix(), 10)
	}
	if r.Dest != "" {
		b = control.AppendString(append(b, `,"destination":`...), r.Dest)
	}
	return append(b, '}')
}
