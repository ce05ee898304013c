package server

import (
	"sync"
)

// pools keeps the buffers that a server's sessions need only now and then: the small ones
// while a client is not idle, the large ones for some messages.
type pools struct {
	smalls sync.Pool // *buffers
	inputs sync.Pool // *[]byte of bigBuffer bytes
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
