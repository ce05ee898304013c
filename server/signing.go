package server

import (
	"errors"
	"io"
	"log/slog"

	"meta1/mta/smtp"
	"meta1/server/content"
	"meta1/server/dkim"
)

// Refusals of a message that cannot be signed (README 3.10 item 3 d).
var (
	replyNotSigned    = smtp.NewReply(554, "5.6.0", "Message cannot be signed")
	replyNotSignedNow = smtp.NewReply(451, "4.3.5", "Message cannot be signed at present")
)

// errSigningMemory: the header does not fit into the budget beside the content.
var errSigningMemory = errors.New("the memory for its header is used up")

// signed reports whether the mail of the client is to be signed.
func (c *session) signed() bool {
	s := c.srv.deps.DKIM
	return s != nil && (c.relaying() || s.Config().SignFor == dkim.ForAll)
}

// signContent puts the signatures on top of a message that has come in, when nothing of it
// changes any more. The reply is zero unless the message must not be accepted without them.
func (c *session) signContent(body *content.Content) smtp.Reply {
	if !c.signed() || !body.Failed().IsZero() {
		return body.Failed()
	}
	m := c.srv.metrics.dkimMessages
	signatures, made, err := c.signatures(body)
	switch {
	case err == nil && len(made) == 0:
		m.WithLabelValues(signedNot).Inc()
		return body.Failed()
	case err == nil:
		m.WithLabelValues(signedOK).Inc()
		c.tx.signatures = dkim.Algorithms(made)
		body.Prepend(signatures)
		return body.Failed()
	}
	m.WithLabelValues(signedFailed).Inc()
	if c.srv.deps.DKIM.Config().IgnoreErrors {
		c.emit(slog.LevelWarn, "message accepted without a DKIM signature", slog.Any("ss_ta", c.tx.env.TA), slog.Any("error", err))
		return body.Failed()
	}
	body.Blame(err)
	if wrong := (*dkim.Error)(nil); errors.As(err, &wrong) && !wrong.Temporary {
		return replyNotSigned
	}
	return replyNotSignedNow
}

// signPiece is how much of the content is read at a time.
const signPiece = 32 << 10

// signatures reads the content as it is to be, and makes its signatures.
func (c *session) signatures(body *content.Content) ([]byte, []dkim.Signature, error) {
	message := c.srv.deps.DKIM.Begin()
	held := int64(0)
	defer func() { body.Memory().Give(held) }()
	in, piece := body.Whole(), make([]byte, signPiece)
	for {
		n, err := in.Read(piece)
		_, _ = message.Write(piece[:n]) // it never fails
		more := int64(message.Held()) - held
		switch {
		case more > 0 && !body.Memory().Take(more):
			return nil, nil, errSigningMemory
		case errors.Is(err, io.EOF) || err == nil && !message.More():
			held += more
			return message.SignAll()
		case err != nil:
			return nil, nil, err
		}
		held += more
	}
}

// The results of metrics.dkimMessages.
const (
	signedOK     = "signed"
	signedNot    = "no_key"
	signedFailed = "failed"
)
