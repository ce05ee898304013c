// Package content takes the content of one message as it comes in from a client: from the octets
// of DATA or BDAT to what QMGR gets, in memory or in a file.
//
// It knows no session and reads no connection. A DotScanner (DATA) or LineScanner (BDAT) finds
// in what was read where lines and the message end. Content keeps what is of the message: what it
// costs is taken from the budget for messages (msg.Reservation); beyond that, or beyond
// Config.InlineMax, it goes to a file. What stands on top of the message and is known only when
// all of it has come, such as a signature, is put there by SetHead.
//
// A message that cannot be accepted (Failed) is read on to its end, but not kept.
//
// Nothing here may be used by more than one goroutine at a time, except Pools.
package content

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
	// lent by Pools, and the content is copied out of it when it is complete.
	scratchSize = 128 << 10
	scratchMin  = 16 << 10
	// fileBuffer is the buffer in front of a file, and smallWriter what it is while the memory is used up.
	fileBuffer  = 64 << 10
	smallWriter = 4 << 10
)

// What becomes of NUL in content: the words of the option nul.
const (
	RejectNUL = "reject"
	StripNUL  = "strip"
	AcceptNUL = "accept"
)

// Why a message cannot be accepted. ReplyDown says that the disk failed in another way than by being full.
var (
	replyNUL    = smtp.NewReply(550, "5.6.0", "Message contains NUL characters")
	ReplyTooBig = smtp.NewReply(552, "5.3.4", "Message is too big")
	replyFull   = smtp.NewReply(452, "4.3.1", "Insufficient system storage")
	ReplyDown   = smtp.NewReply(451, "4.3.0", "Temporary local problem, try again later")
)

// errMemory says in the log what replyFull does not.
var errMemory = errors.New("the memory for its header is used up (content_memory_max)")

// Config says what is known of a message before it comes in.
type Config struct {
	TA        smtp.ID
	Store     msg.ContentStore
	Pools     *Pools
	Memory    *msg.Reservation // what the content takes of the budget; QMGR gets it with the content
	InlineMax int64            // bytes of the largest content that may stay in memory, what we add included
	SizeMax   int64            // bytes of the largest message; 0: no limit
	NUL       string           // RejectNUL, StripNUL or AcceptNUL; "" accepts
	Missing   *Missing         // fields that the header is to get if it lacks them; nil: none
	Discard   bool             // keep nothing: the message is to be accepted and not delivered
}

// Content is the content of one message: in memory as long as it is small and the
// budget allows it, then in a file. A content that has failed drops what it gets, so that the rest of
// the message can be read without storing it. Whoever makes one calls Abort in the end.
type Content struct {
	cfg      Config
	size     int64     // bytes of the message so far, without our Received:
	stripped int64     // NULs that were removed
	received int64     // bytes of our Received:
	written  int64     // bytes that were kept, our own included
	shape    msg.Shape // what is known of what was kept
	dotted   bool      // text of our own has a line with a dot first
	header   headerScan

	mem     []byte
	scratch *[scratchSize]byte // what mem lies in; nil: mem is our own
	results []byte             // our Authentication-Results:, on top of head; nil: there is none

	head   *head // in place of the beginning of what was kept; nil: it stays
	file   msg.ContentWriter
	buffer *bufio.Writer // in front of file
	failed smtp.Reply    // why the message cannot be accepted
	cause  error         // what is behind failed, for the log
}

// New makes the content of a message. Begin follows, and before it Dots if the message comes by DATA.
func New(cfg Config) *Content { return &Content{cfg: cfg, shape: msg.Shape{ASCII: true}} }

// Refused is for a message or chunk that is read for nothing: it only counts what it gets.
func Refused(r smtp.Reply) *Content { return &Content{cfg: Config{Discard: true}, failed: r} }

// NewBody makes the content for the body by which filters replace that of the message of, and
// begins it. What is known of the header (Hops, MessageID) is that of the message.
func NewBody(cfg Config, of *Content) *Content {
	cfg.Missing = nil
	c := New(cfg)
	c.header = of.header
	c.Begin(nil, 0)
	return c
}

// Begin puts our trace fields, such as Received:, on top. expected is the size that the message
// will perhaps have, in bytes.
func (c *Content) Begin(received []byte, expected int64) {
	c.received = int64(len(received))
	if expected > c.cfg.InlineMax-c.received { // not their sum: SIZE= may be as large as an int64
		c.spill()
	} else {
		c.reserve(min(max(c.received+expected, presizeMin), presizeMax, c.cfg.InlineMax))
	}
	c.look(received)
	c.keep(received)
}

// look looks for dots in text that did not come from the client, and so not through a DotScanner.
func (c *Content) look(text []byte) {
	if bytes.HasPrefix(text, []byte(".")) || bytes.Contains(text, []byte("\n.")) {
		c.dotted, c.shape.NoDots = true, false
	}
}

// Write takes the next piece of the message, after what Config.NUL says. It keeps nothing of p.
// What becomes of it Failed tells.
func (c *Content) Write(p []byte) {
	switch c.cfg.NUL {
	case RejectNUL:
		if bytes.IndexByte(p, 0) >= 0 {
			c.Fail(replyNUL)
		}
	case StripNUL:
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
func (c *Content) add(p []byte) {
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
	if c.cfg.SizeMax > 0 && c.size+c.stripped > c.cfg.SizeMax {
		c.Fail(ReplyTooBig)
		return
	}
	if c.cfg.Missing != nil && !c.header.done {
		c.complete(p)
		return
	}
	c.pass(p)
}

// pass looks at a piece of the message and keeps it.
func (c *Content) pass(p []byte) {
	c.header.feed(p)
	c.keep(p)
}

// separate ends the header behind our Received:, whose continuation the first line of
// the message would be otherwise (RFC 5322 section 2.2.3). Postfix does the same.
func (c *Content) separate() {
	c.header.done = true
	c.addMissing()
	if c.received > 0 {
		c.keep([]byte("\r\n"))
	}
}

// keep stores p.
func (c *Content) keep(p []byte) {
	if c.cfg.Discard || !c.failed.IsZero() {
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
		c.FailStore(err)
	}
}

// grow makes room for n bytes more: in memory, or else by a file. It doubles the memory:
// append would grow large slices by a quarter, and copy the content many times.
func (c *Content) grow(n int) {
	need := int64(len(c.mem) + n)
	switch {
	case need > c.cfg.InlineMax:
		c.spill()
	case need <= int64(cap(c.mem)):
	case need > scratchMin && need <= scratchSize && c.scratch == nil && c.cfg.Memory.Take(scratchSize):
		c.borrow()
	default:
		c.reserve(min(max(need, 2*int64(cap(c.mem))), c.cfg.InlineMax))
	}
}

// borrow moves the content to memory that the sessions share. It is ours until forget.
func (c *Content) borrow() {
	b := c.cfg.Pools.scratch()
	mem := b[:copy(b[:], c.mem)]
	c.forget()
	c.mem, c.scratch = mem, b
}

// reserve moves the content to memory of size bytes, or to a file if the budget is used up.
func (c *Content) reserve(size int64) {
	if !c.cfg.Memory.Take(size) {
		c.spill()
		return
	}
	mem := make([]byte, len(c.mem), size)
	copy(mem, c.mem)
	c.forget()
	c.mem = mem
}

// spill moves the content from memory to a file.
func (c *Content) spill() {
	if c.cfg.Discard {
		return
	}
	file, err := c.cfg.Store.Create(c.cfg.TA)
	if err != nil {
		c.FailStore(err)
		return
	}
	c.file = file
	if c.cfg.Memory.Take(fileBuffer) {
		c.buffer = c.cfg.Pools.writer(file)
	} else {
		c.buffer = bufio.NewWriterSize(file, smallWriter)
	}
	if _, err := c.buffer.Write(c.mem); err != nil {
		c.FailStore(err)
	}
	c.forget()
}

// forget drops the content in memory.
func (c *Content) forget() {
	c.cfg.Memory.Give(int64(cap(c.mem)))
	c.returnScratch()
	c.mem = nil
}

// returnScratch gives up what mem lies in, if it is not our own. Nobody may read mem any more.
func (c *Content) returnScratch() {
	if c.scratch != nil {
		c.cfg.Pools.returnScratch(c.scratch)
		c.scratch = nil
	}
}

// returnBuffer gives up the buffer in front of the file.
func (c *Content) returnBuffer() {
	if c.buffer.Size() == fileBuffer {
		c.cfg.Pools.returnWriter(c.buffer)
		c.cfg.Memory.Give(fileBuffer)
	}
	c.buffer = nil
}

// Fail says that the message cannot be accepted and removes what was kept. The
// first reason counts.
func (c *Content) Fail(r smtp.Reply) {
	if c.failed.IsZero() {
		c.failed = r
		c.Abort()
	}
}

// FailStore is Fail for an error of the disk.
func (c *Content) FailStore(err error) {
	c.cause = err
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		c.Fail(replyFull)
	} else {
		c.Fail(ReplyDown)
	}
}

// FailMemory is Fail for a header that finds no room in the budget. Content itself needs none: it goes to a file.
func (c *Content) FailMemory() {
	c.Blame(errMemory)
	c.Fail(replyFull)
}

// Abort removes what was kept, and gives back its memory unless QMGR has taken that over. It may be
// called more than once, and removes nothing that Finish has made durable.
func (c *Content) Abort() {
	if c.file != nil {
		c.returnBuffer()
		c.file.Abort()
		c.file = nil
	}
	c.returnScratch()
	c.mem = nil
	c.cfg.Memory.Release()
}

// Finish makes a file durable, together with the envelope. Then inline is nil,
// otherwise it is the content, which is durable only when QMGR says so. The reply is zero unless it failed.
func (c *Content) Finish(e *msg.Envelope) (inline []byte, r smtp.Reply) {
	if c.file == nil && c.head != nil && c.failed.IsZero() && !c.joinHead() {
		c.spill() // in a file they need no memory
	}
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
		c.FailStore(err)
	}
	return nil, c.failed
}

// trimmed is the content in memory, which is QMGR's from now on. It may keep it for long, so what lies in memory of
// the sessions, or in what was allocated for a wrong SIZE=, is copied, if the budget has room for that.
func (c *Content) trimmed() []byte {
	size := int64(len(c.mem))
	if c.scratch == nil && int64(cap(c.mem)) <= max(2*size, presizeMin) {
		return c.mem
	}
	if !c.cfg.Memory.Take(size) {
		c.scratch = nil // QMGR has it
		return c.mem
	}
	mem := slices.Clone(c.mem)
	c.forget()
	return mem
}

// Total is the size in bytes of the content as it is handed on, our trace fields included.
func (c *Content) Total() int64 {
	if c.head != nil {
		return c.written - c.head.drop + int64(len(c.head.text))
	}
	return c.written
}
