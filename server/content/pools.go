package content

import (
	"bufio"
	"io"
	"sync"
)

// Pools keeps the buffers that some messages need only while they come in, for all sessions of a
// server. Any goroutine may use it; the zero value is ready.
type Pools struct {
	writers   sync.Pool // *bufio.Writer of fileBuffer bytes
	scratches sync.Pool // *[scratchSize]byte
}

func (p *Pools) writer(w io.Writer) *bufio.Writer {
	if b, ok := p.writers.Get().(*bufio.Writer); ok {
		b.Reset(w)
		return b
	}
	return bufio.NewWriterSize(w, fileBuffer)
}

func (p *Pools) returnWriter(b *bufio.Writer) {
	b.Reset(nil)
	p.writers.Put(b)
}

// scratch gives memory in which anything may stand.
func (p *Pools) scratch() *[scratchSize]byte {
	if b, ok := p.scratches.Get().(*[scratchSize]byte); ok {
		return b
	}
	return new([scratchSize]byte)
}

func (p *Pools) returnScratch(b *[scratchSize]byte) { p.scratches.Put(b) }
