package server

import (
	"bufio"
	"io"
	"sync"
)

// pools keeps the large buffers of a server that only some messages need.
type pools struct {
	inputs  sync.Pool // *[]byte of bigBuffer bytes
	writers sync.Pool // *bufio.Writer of bigBuffer bytes
}

func (p *pools) input() []byte {
	if b, ok := p.inputs.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, bigBuffer)
}

// returnInput takes back what input gave; nil is nothing.
func (p *pools) returnInput(b []byte) {
	if b != nil {
		p.inputs.Put(&b)
	}
}

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
