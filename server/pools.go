package server

import (
	"bufio"
	"io"
	"sync"
)

// pools keeps the buffers that a server's sessions need only now and then: the small ones
// while a client is not idle, the large ones for some messages.
type pools struct {
	smalls    sync.Pool // *buffers
	inputs    sync.Pool // *[]byte of bigBuffer bytes
	writers   sync.Pool // *bufio.Writer of bigBuffer bytes
	scratches sync.Pool // *[scratchSize]byte
}

func (p *pools) buffers() *buffers {
	if b, ok := p.smalls.Get().(*buffers); ok {
		return b
	}
	return new(buffers)
}

func (p *pools) returnBuffers(b *buffers) { p.smalls.Put(b) }

func (p *pools) input() []byte {
	if b, ok := p.inputs.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, bigBuffer)
}

// returnInput takes back what input gave.
func (p *pools) returnInput(b []byte) { p.inputs.Put(&b) }

func (p *pools) writer(w io.Writer) *bufio.Writer {
	if b, ok := p.writers.Get().(*bufio.Writer); ok {
		b.Reset(w)
		return b
	}
	return bufio.NewWriterSize(w, bigBuffer)
}

func (p *pools) returnWriter(b *bufio.Writer) {
	b.Reset(nil)
	p.writers.Put(b)
}

// scratch gives memory in which anything may stand.
func (p *pools) scratch() *[scratchSize]byte {
	if b, ok := p.scratches.Get().(*[scratchSize]byte); ok {
		return b
	}
	return new([scratchSize]byte)
}

func (p *pools) returnScratch(b *[scratchSize]byte) { p.scratches.Put(b) }
