package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

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
held.

With --json each message is a JSON object on a line, with the member names that
postqueue -j has.

With --summary mailq counts recipients: by destination and the minutes they are in the queue, in
the columns of qshape (less than 5, 10, 20 and so on), and by the reason why they wait.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return to.ask(func(k *control.Client) error {
				out := bufio.NewWriter(e.Stdout)
				l := lister{out: out, zone: time.Local}
				l.print = l.text
				switch {
				case summed:
					l.summary = newSummary(time.Now())
					l.print = l.summary.add
				case asJSON:
					l.print = l.json
				}
				err := k.Queue(c.Context(), l.add)
				if err == nil {
					err = l.end(asJSON)
				}
				if flush := out.Flush(); err == nil {
					err = flush
				}
				return err
			})
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
	// summary is what is printed at the end, in place of the messages; nil for none.
	summary *summary

	current         []control.Entry // recipients of one message
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
	return err
}

// end prints the last message and the sum.
func (l *lister) end(asJSON bool) error {
	if err := l.flush(); err != nil {
		return err
	}
	switch {
	case l.summary != nil && asJSON:
		return printJSON(l.out, l.summary.Summary())
	case l.summary != nil:
		return l.summary.text(l.out)
	case asJSON:
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
)

func (l *lister) text(rcpts []control.Entry) error {
	if l.messages == 1 {
		_, _ = l.out.WriteString(mailqHead)
	}
	m := &rcpts[0]
	_, _ = fmt.Fprintf(l.out, "%s%s %7d %s  <%s>\n", m.TA, mark(rcpts), m.Size, m.Arrival.In(l.zone).Format("Mon Jan _2 15:04:05"), plain(m.Sender))
	for i := range rcpts {
		r := &rcpts[i]
		_, _ = fmt.Fprintf(l.out, "%*s\n", mailqIndent, "("+l.reason(r)+")")
		_, _ = fmt.Fprintf(l.out, "%*s<%s>\n", mailqIndent, "", plain(r.Rcpt))
	}
	_, err := l.out.WriteString("\n")
	return err
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
		case msg.StateInFlight, msg.StateActive:
			return "active"
		case msg.StateDeferred:
			name = "deferred"
		}
	}
	return name
}

// reason says why a recipient waits, and until when.
func (l *lister) reason(r *control.Entry) string {
	text := string(r.State)
	if r.Reason != "" {
		text += ": " + plain(r.Reason)
	}
	if r.Attempts > 0 {
		text += fmt.Sprintf(", %d attempts", r.Attempts)
	}
	if r.State == msg.StateDeferred && !r.NextTry.IsZero() {
		text += ", next " + r.NextTry.In(l.zone).Format("Jan _2 15:04:05")
	}
	return text
}

// plain is text that cannot steer a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// queued is a message as postqueue -j prints it; what has no counterpart there has
// names of ours.
type queued struct {
	QueueName    string       `json:"queue_name"`
	QueueID      string       `json:"queue_id"`
	ArrivalTime  int64        `json:"arrival_time"`
	MessageSize  int64        `json:"message_size"`
	ForcedExpire bool         `json:"forced_expire"`
	Sender       string       `json:"sender"`
	Recipients   []queuedRcpt `json:"recipients"`
}

type queuedRcpt struct {
	Address     string `json:"address"`
	DelayReason string `json:"delay_reason,omitempty"`
	RcptID      string `json:"rcpt_id"`
	State       string `json:"state"`
	Attempts    int    `json:"attempts"`
	NextTry     int64  `json:"next_try,omitempty"`
	Destination string `json:"destination,omitempty"`
}

func (l *lister) json(rcpts []control.Entry) error {
	m := &rcpts[0]
	q := queued{
		QueueName: queueName(rcpts), QueueID: m.TA, ArrivalTime: m.Arrival.Unix(), MessageSize: m.Size, Sender: m.Sender,
		Recipients: make([]queuedRcpt, 0, len(rcpts)),
	}
	if q.Sender == "" {
		q.Sender = "MAILER-DAEMON" // as postqueue does
	}
	for i := range rcpts {
		r := &rcpts[i]
		rcpt := queuedRcpt{Address: r.Rcpt, DelayReason: r.Reason, RcptID: r.RcptID, State: string(r.State), Attempts: r.Attempts, Destination: r.Dest}
		if !r.NextTry.IsZero() {
			rcpt.NextTry = r.NextTry.Unix()
		}
		q.Recipients = append(q.Recipients, rcpt)
	}
	return json.NewEncoder(l.out).Encode(q)
}
