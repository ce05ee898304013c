package wire

import "sync"

// Pools keeps the buffers that a server's sessions need only now and then: the small ones
// while a client is not idle, the large ones for some messages and long lines. Any goroutine may
// use it; the zero value is ready.
type Pools struct {
	smalls sync.Pool // *buffers
	inputs sync.Pool // *[]byte of bigBuffer bytes
}

func (p *Pools) buffers() *buffers {
	if b, ok := p.smalls.Get().(*buffers); ok {
		return b
	}
	return new(buffers)
}

func (p *Pools) returnBuffers(b *buffers) { p.smalls.Put(b) }

func (p *Pools) input() []byte {
	if b, ok := p.inputs.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, bigBuffer)
}

// returnInput takes back what input gave.
func (p *Pools) returnInput(b []byte) { p.inputs.Put(&b) }
