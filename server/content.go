package server

import (
	"bufio"
	"bytes"
	"errors"
	"slices"
	"syscall"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

const (
	// presizeMax bounds the memory that is allocated only because a client announced a size.
	presizeMax = 256 << 10
	// presizeMin is where content begins to grow from.
	presizeMin = 1 << 10
	// scratchSize is what content of an unknown size grows into once it has outgrown scratchMin: it is
	// lent by pools, and the content is copied out of it when it is complete.
	scratchSize = 128 << 10
	scratchMin  = 16 << 10
	// smallWriter is the buffer in front of a file while the memory is used up.
	smallWriter = 4 << 10
)

// The words of the option nul.
const (
	nulReject = "reject"
	nulStrip  = "strip"
	nulAccept = "accept"
)

var (
	replyNUL    = smtp.NewReply(550, "5.6.0", "Message contains NUL characters")
	replyTooBig = smtp.NewReply(552, "5.3.4", "Message is too big")
	replyFull   = smtp.NewReply(452, "4.3.1", "Insufficient system storage")
)

// content takes the content of one message: in memory as long as it is small and the
// budget allows it, then in a file. A content that has failed drops what it gets, so that the rest of
// the message can be read without storing it.
type content struct {
	ta        smtp.ID
	store     msg.ContentStore
	pool      *pools
	memory    *msg.Reservation // what mem and buffer take of the budget
	inlineMax int64            // largest content that may stay in memory
	sizeMax   int64            // largest message; 0 for no limit
	size      int64            // bytes of the message so far, without our Received:
	stripped  int64            // NULs that were removed
	received  int64            // bytes of our Received:
	written   int64            // bytes that were kept, our own included
	shape     msg.Shape        // what is known of what was kept
	nul       string           // the option nul; "" accepts
	header    headerScan
	missing   *missing // fields that the header is to get if it lacks them; nil: none

	signatures string // that were made, for the log

	mem     []byte
	scratch *[scratchSize]byte // what mem lies in; nil: mem is our own
	results []byte             // our Authentication-Results:, on top of head; nil: there is none

	head   *head // in place of the beginning of what was kept; nil: it stays
	file   msg.ContentWriter
	buffer *bufio.Writer // in front of file
	failed smtp.Reply    // why the message cannot be accepted
	cause  error         // the failure of the store behind failed
	drop   bool          // keep nothing: the message is to be discarded
}

// begin puts our Received: header on top. expected is the size that the message
// will perhaps have.
func (c *content) begin(received []byte, expected int64) {
	c.received = int64(len(received))
	if expected > c.inlineMax-c.received { // not their sum: SIZE= may be as large as an int64
		c.spill()
	} else {
		c.reserve(min(max(c.received+expected, presizeMin), presizeMax, c.inlineMax))
	}
	c.look(received)
	c.keep(received)
}

// look looks for dots in text that did not come from the client, and so not through a dotScanner.
func (c *content) look(text []byte) {
	if c.shape.NoDots && (bytes.HasPrefix(text, []byte(".")) || bytes.Contains(text, []byte("\n."))) {
		c.shape.NoDots = false
	}
}

// write takes the next piece of the message, after what the option nul says. It keeps
// nothing of p.
func (c *content) write(p []byte) {
	switch c.nul {
	case nulReject:
		if bytes.IndexByte(p, 0) >= 0 {
			c.fail(replyNUL)
		}
	case nulStrip:
		for i := bytes.IndexByte(p, 0); i >= 0; i = bytes.IndexByte(p, 0) {
			c.add(p[:i])
			c.stripped++
			c.shape.NoDots = false // what is behind it may begin a line now
			p = p[i+1:]
		}
	}
	c.add(p)
}

// add takes the next piece of the message as it is to be kept.
func (c *content) add(p []byte) {
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
	if c.sizeMax > 0 && c.size+c.stripped > c.sizeMax {
		c.fail(replyTooBig)
		return
	}
	if c.missing != nil && !c.header.done {
		c.complete(p)
		return
	}
	c.pass(p)
}

// pass looks at a piece of the message and keeps it.
func (c *content) pass(p []byte) {
	c.header.feed(p)
	c.keep(p)
}

// separate ends the header behind our Received:, whose continuation the first line of
// the message would be otherwise (RFC 5322 section 2.2.3). Postfix does the same.
func (c *content) separate() {
	c.header.done = true
	c.addMissing()
	if c.received > 0 {
		c.keep([]byte("\r\n"))
	}
}

// keep stores p.
func (c *content) keep(p []byte) {
	if c.drop || !c.failed.IsZero() {
		return
	}
	if c.shape.ASCII && smtp.Has8Bit(p) {
		c.shape.ASCII = false
	}
	if c.file == nil {
		c.grow(len(p))
	}
	if !c.failed.IsZero() {
		return
	}
	c.written += int64(len(p))
	if c.file == nil {
		c.mem = append(c.mem, p...)
		return
	}
	if _, err := c.buffer.Write(p); err != nil {
		c.failStore(err)
	}
}

// grow makes room for n bytes more: in memory, or else by a file. It doubles the memory:
// append would grow large slices by a quarter, and copy the content many times.
func (c *content) grow(n int) {
	need := int64(len(c.mem) + n)
	switch {
	case need > c.inlineMax:
		c.spill()
	case need <= int64(cap(c.mem)):
	case need > scratchMin && need <= scratchSize && c.scratch == nil && c.memory.Take(scratchSize):
		c.borrow()
	default:
		c.reserve(min(max(need, 2*int64(cap(c.mem))), c.inlineMax))
	}
}

// borrow moves the content to memory that the sessions share. It is ours until forget.
func (c *content) borrow() {
	b := c.pool.scratch()
	mem := b[:copy(b[:], c.mem)]
	c.forget()
	c.mem, c.scratch = mem, b
}

// reserve moves the content to memory of size bytes, or to a file if the budget is used up.
func (c *content) reserve(size int64) {
	if !c.memory.Take(size) {
		c.spill()
		return
	}
	mem := make([]byte, len(c.mem), size)
	copy(mem, c.mem)
	c.forget()
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
	c.file = file
	if c.memory.Take(bigBuffer) {
		c.buffer = c.pool.writer(file)
	} else {
		c.buffer = bufio.NewWriterSize(file, smallWriter)
	}
	if _, err := c.buffer.Write(c.mem); err != nil {
		c.failStore(err)
	}
	c.forget()
}

// forget drops the content in memory.
func (c *content) forget() {
	c.memory.Give(int64(cap(c.mem)))
	c.returnScratch()
	c.mem = nil
}

// returnScratch gives up what mem lies in, if it is not our own. Nobody may read mem any more.
func (c *content) returnScratch() {
	if c.scratch != nil {
		c.pool.returnScratch(c.scratch)
		c.scratch = nil
	}
}

// returnBuffer gives up the buffer in front of the file.
func (c *content) returnBuffer() {
	if c.buffer.Size() == bigBuffer {
		c.pool.returnWriter(c.buffer)
		c.memory.Give(bigBuffer)
	}
	c.buffer = nil
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

// abort removes what was kept, and gives back its memory unless QMGR has taken that over.
func (c *content) abort() {
	if c.file != nil {
		c.returnBuffer()
		c.file.Abort()
		c.file = nil
	}
	c.returnScratch()
	c.mem = nil
	c.memory.Release()
}

// finish makes a file durable, together with the envelope. Then inline is nil,
// otherwise it is the content. The reply is zero unless it failed.
func (c *content) finish(e *msg.Envelope) (inline []byte, r smtp.Reply) {
	if c.file == nil {
		return c.trimmed(), c.failed
	}
	err := c.buffer.Flush()
	if err == nil && c.head != nil {
		err = c.file.Top(c.head.drop, c.head.text)
	}
	if err == nil {
		c.returnBuffer()
		file := c.file
		c.file = nil
		err = file.Commit(e)
	}
	if err != nil {
		c.failStore(err)
	}
	return nil, c.failed
}

// trimmed is the content in memory, which is QMGR's from now on. It may keep it for long, so what lies in memory of
// the sessions, or in what was allocated for a wrong SIZE=, is copied, if the budget has room for that.
func (c *content) trimmed() []byte {
	if c.head != nil && c.failed.IsZero() {
		return c.withHead()
	}
	size := int64(len(c.mem))
	if c.scratch == nil && int64(cap(c.mem)) <= max(2*size, presizeMin) {
		return c.mem
	}
	if !c.memory.Take(size) {
		c.scratch = nil // QMGR has it
		return c.mem
	}
	mem := slices.Clone(c.mem)
	c.forget()
	return mem
}

// total is the size of the content as it is kept, our Received: included.
func (c *content) total() int64 {
	if c.head != nil {
		return c.written - c.head.drop + int64(len(c.head.text))
	}
	return c.written
}
