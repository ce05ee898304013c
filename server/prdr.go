package server

import (
	"log/slog"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/pmilter"
)

var (
	replyEachBegins = smtp.NewReply(353, "", "A reply for each recipient follows")
	replyContent    = smtp.NewReply(250, "2.1.5", "Recipient takes the message")
)

// replyEach sends the replies of PRDR for an accepted message (README 3.10 item 17): one for
// each RCPT that was accepted, in their order. That to the message as a whole follows. The
// policy milter may have set them. A message that is refused, is refused for all of them at
// once, and one recipient needs none.
func (c *session) replyEach(v *verb) {
	if !c.tx.prdr || c.tx.taken < 2 {
		return
	}
	c.reply(v, replyEachBegins)
	for i := range c.tx.taken {
		if i < len(c.tx.each) && !c.tx.each[i].IsZero() {
			r := c.soften(c.tx.each[i])
			c.note.by = msg.Step{Check: pmilter.Name, Key: "eom", Value: "replies", Effect: "refuse"}
			c.note.more = []slog.Attr{slog.Int("rcpt_number", i+1)}
			c.logRefusal(v, r)
			c.reply(v, r)
			continue
		}
		c.reply(v, replyContent)
	}
}
