package server

import (
	"bufio"
	"bytes"
	"errors"
	"syscall"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

const (
	// presizeMax bounds the memory that is taken on the mere word of a client.
	presizeMax = 256 << 10
	// presizeMin is where content begins to grow from.
	presizeMin = 1 << 10
)

var (
	replyTooBig = smtp.NewReply(552, "5.3.4", "Message is too big")
	replyFull   = smtp.NewReply(452, "4.3.1", "Insufficient system storage")
)

// content takes the content of one message: in memory as long as it may stay there,
// then in a file. A content that has failed drops what it gets, so that the rest of
// the message can be read without storing it.
type content struct {
	ta        smtp.ID
	store     msg.ContentStore
	pool      *pools
	inlineMax int64 // largest content that may stay in memory
	sizeMax   int64 // largest message; 0 for no limit
	size      int64 // bytes of the message so far, without our Received:
	top       int64 // bytes of our Received:
	header    headerScan

	mem    []byte
	file   msg.ContentWriter
	buffer *bufio.Writer // in front of file
	failed smtp.Reply    // why the message cannot be accepted
	cause  error         // the failure of the store behind failed
	drop   bool          // keep nothing: the message is to be discarded
}

// begin puts our Received: header on top. expected is the size that the message
// will perhaps have.
func (c *content) begin(received []byte, expected int64) {
	c.top = int64(len(received))
	if c.top+expected > c.inlineMax {
		c.spill()
	} else {
		c.mem = make([]byte, 0, min(max(c.top+expected, presizeMin), presizeMax, c.inlineMax))
	}
	c.keep(received)
}

// write takes the next piece of the message. It keeps nothing of p.
func (c *content) write(p []byte) {
	if len(p) == 0 {
		return
	}
	if c.size == 0 && (p[0] == ' ' || p[0] == '\t') {
		c.separate()
	}
	c.size += int64(len(p))
	if !c.failed.IsZero() {
		return
	}
	if c.sizeMax > 0 && c.size > c.sizeMax {
		c.fail(replyTooBig)
		return
	}
	c.header.feed(p)
	c.keep(p)
}

// separate ends the header behind our Received:, whose continuation the first line of
// the message would be otherwise (RFC 5322 section 2.2.3). Postfix does the same.
func (c *content) separate() {
	c.header.done = true
	if c.top > 0 {
		c.top += 2
		c.keep([]byte("\r\n"))
	}
}

// keep stores p.
func (c *content) keep(p []byte) {
	if c.drop || !c.failed.IsZero() {
		return
	}
	if c.file == nil && int64(len(c.mem)+len(p)) > c.inlineMax {
		c.spill()
	}
	if !c.failed.IsZero() {
		return
	}
	if c.file == nil {
		c.grow(len(p))
		c.mem = append(c.mem, p...)
		return
	}
	if _, err := c.buffer.Write(p); err != nil {
		c.failStore(err)
	}
}

// grow makes room for n bytes. It doubles the memory: append would grow large slices
// by a quarter, and copy the content many times.
func (c *content) grow(n int) {
	need := len(c.mem) + n
	if need <= cap(c.mem) {
		return
	}
	size := int64(max(need, 2*cap(c.mem)))
	mem := make([]byte, len(c.mem), max(int64(need), min(size, c.inlineMax)))
	copy(mem, c.mem)
	c.mem = mem
}

// spill moves the content from memory to a file.
func (c *content) spill() {
	if c.drop {
		return
	}
	file, err := c.store.Create(c.ta)
	if err != nil {
		c.failStore(err)
		return
	}
	c.file, c.buffer = file, c.pool.writer(file)
	if _, err := c.buffer.Write(c.mem); err != nil {
		c.failStore(err)
	}
	c.mem = nil
}

// fail says that the message cannot be accepted and removes what was kept. The
// first reason counts.
func (c *content) fail(r smtp.Reply) {
	if c.failed.IsZero() {
		c.failed = r
		c.abort()
	}
}

func (c *content) failStore(err error) {
	c.cause = err
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		c.fail(replyFull)
	} else {
		c.fail(replyDown)
	}
}

// abort removes what was kept. It does nothing after finish.
func (c *content) abort() {
	c.mem = nil
	if c.file != nil {
		c.pool.returnWriter(c.buffer)
		c.file.Abort()
		c.file, c.buffer = nil, nil
	}
}

// finish makes a file durable, together with the envelope. Then inline is nil,
// otherwise it is the content. The reply is zero unless it failed.
func (c *content) finish(e *msg.Envelope) (inline []byte, r smtp.Reply) {
	if c.file == nil {
		return c.trimmed(), c.failed
	}
	err := c.buffer.Flush()
	if err == nil {
		c.pool.returnWriter(c.buffer)
		file := c.file
		c.file, c.buffer = nil, nil
		err = file.Commit(e)
	}
	if err != nil {
		c.failStore(err)
	}
	return nil, c.failed
}

// trimmed is the content in memory. QMGR may keep it for long, and counts its length:
// memory that a wrong SIZE= has taken is given back.
func (c *content) trimmed() []byte {
	if cap(c.mem) > 2*len(c.mem) && cap(c.mem) > presizeMin {
		return bytes.Clone(c.mem)
	}
	return c.mem
}

// total is the size of the content, our Received: included.
func (c *content) total() int64 { return c.top + c.size }
