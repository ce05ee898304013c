package server

import (
	"meta1/server/content"
)

// newMissing is what the message of the transaction may lack; nil if this is no server for
// submission.
func (c *session) newMissing() *content.Missing {
	if !c.srv.cfg.Flags.Submission {
		return nil
	}
	env := c.tx.env
	// The id of a transaction is unique at this host; the time makes up for a lost spool.
	id := env.Arrival.UTC().AppendFormat([]byte{'<'}, "20060102150405.")
	id = append(env.TA.Append(id), '@')
	return &content.Missing{
		Date:      env.Arrival.Format(receivedDate),
		MessageID: string(append(append(id, c.srv.deps.Hostname...), '>')),
	}
}
