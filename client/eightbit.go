package client

import (
	"bytes"
	"io"
	"sync/atomic"

	"meta1/mta/msg"
	"meta1/mta/sevenbit"
	"meta1/mta/smtp"
)

// The words of the option without_8bitmime.
const (
	eightBitSend    = "send"
	eightBitConvert = "convert"
	eightBitBounce  = "bounce"
)

const (
	// convertMax is the largest content that is converted, in bytes: all of it is held in
	// memory until it is sent.
	convertMax = 10 << 20
	// convertGrowth is how many times its size content may take while it is converted: three
	// characters of quoted-printable for each byte, or a field for each of many small parts.
	convertGrowth = 8
	// convertBudget bounds what all content takes that is being converted or sent converted.
	convertBudget = convertGrowth * convertMax
)

// eightBit is what becomes of 8-bit content for hosts without 8BITMIME, and of binary content
// for hosts without BINARYMIME.
type eightBit struct {
	mode   string
	budget *budget
}

// budget is what is taken of convertBudget, in bytes.
type budget struct{ used atomic.Int64 }

// take reserves n bytes, if there are so many.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) > convertBudget {
		b.used.Add(-n)
		return false
	}
	return true
}

// fitContent makes content fit for what the host offers. It reports whether there is something
// to send.
func (t *transaction) fitContent() bool {
	if t.q.Mail.Binary() {
		return t.fitBinary()
	}
	return t.fitEightBit()
}

// fitBinary decides how a message whose body is any octets goes on (RFC 3030 section 3): to a
// host that takes such mail by BDAT it goes as it is, and to any other one in lines or not at
// all, whatever without_8bitmime says of 8-bit lines.
func (t *transaction) fitBinary() bool {
	t.binary = t.ext.Binary && t.ext.Chunking && t.class.chunking
	switch {
	case t.binary:
		return true
	case t.eight.mode == eightBitBounce:
		t.answerAll(t.lacks("BINARYMIME", "it is not converted (without_8bitmime)"))
	case t.size() > convertMax:
		t.answerAll(t.lacks("BINARYMIME", "it is too large to be converted"))
	case t.ext.EightBit, t.eight.mode == eightBitSend:
		return t.convert(sevenbit.BinaryToLines, "BINARYMIME")
	default:
		return t.convert(sevenbit.BinaryToASCII, "BINARYMIME")
	}
	return false
}

// fitEightBit makes content fit for a host without 8BITMIME, as the option without_8bitmime
// says. It reports whether there is something to send.
func (t *transaction) fitEightBit() bool {
	if t.ext.EightBit || t.eight.mode == eightBitSend {
		return true
	}
	eight, err := t.beyondASCII()
	switch {
	case err != nil:
		t.contentError()
	case !eight:
		return true
	case t.eight.mode == eightBitBounce:
		t.answerAll(t.lacks("8BITMIME", "it is not converted (without_8bitmime)"))
	case t.size() > convertMax:
		t.answerAll(t.lacks("8BITMIME", "it is too large to be converted"))
	default:
		return t.convert(sevenbit.Convert, "8BITMIME")
	}
	return false
}

// lacks is the reply for content that a host without 8BITMIME or BINARYMIME cannot have (RFC
// 6152 section 3, RFC 3030 section 3, RFC 3463 section 3.7).
func (t *transaction) lacks(extension, why string) smtp.Reply {
	what := "8-bit content"
	if t.q.Mail.Binary() {
		what = "a binary body"
	}
	return smtp.NewReply(554, "5.6.3", "the message has "+what+", host "+t.hop.String()+" does not offer "+extension+", and "+why)
}

// beyondASCII reports content that has 8-bit characters. Content in a file is read once
// more for it.
func (t *transaction) beyondASCII() (bool, error) {
	if t.shape.ASCII {
		return false, nil
	}
	if t.content == nil {
		return smtp.Has8Bit(t.body), nil
	}
	r, err := t.q.Body.Open()
	if err != nil {
		return false, err
	}
	defer r.Close() // it was only read
	b := make([]byte, readMax)
	for {
		n, err := r.Read(b)
		switch {
		case smtp.Has8Bit(b[:n]):
			return true, nil
		case err == io.EOF:
			return false, nil
		case err != nil:
			return false, err
		}
	}
}

// convert replaces the content by what says the same to a host without an extension. What it
// takes of the budget is given back by release.
func (t *transaction) convert(to func([]byte) ([]byte, bool), without string) bool {
	takes := convertGrowth * t.size()
	if !t.eight.budget.take(takes) {
		t.answerAll(smtp.NewReply(452, "4.3.1", "too much content is being converted for hosts without "+without))
		return false
	}
	t.converting = takes
	body := t.body
	if t.content != nil {
		body = make([]byte, t.size())
		if _, err := io.ReadFull(t.content, body); err != nil {
			t.contentError()
			return false
		}
	}
	converted, ok := to(body)
	if !ok {
		t.answerAll(t.lacks(without, "it cannot be converted"))
		return false
	}
	t.closeContent()
	if len(converted) != len(body) || !bytes.Equal(converted, body) {
		t.logConverted(without, len(body), len(converted))
	}
	t.body, t.shape = converted, msg.Shape{}
	if takes = int64(cap(converted)); takes < t.converting {
		t.eight.budget.used.Add(takes - t.converting)
		t.converting = takes
	}
	return true
}

// release gives up the content.
func (t *transaction) release() {
	t.closeContent()
	t.eight.budget.used.Add(-t.converting)
	t.converting = 0
}

func (t *transaction) closeContent() {
	if t.content != nil {
		_ = t.content.Close() // it was only read
		t.content = nil
	}
}

// size is that of the content as it is sent.
func (t *transaction) size() int64 {
	if t.content != nil {
		return t.q.Body.Size()
	}
	return int64(len(t.body))
}
