package queue

import (
	"bytes"
	"io"

	"meta1/mta/msg"
	"meta1/queue/aq"
)

// seal makes the set of ARC for a message that an alias forwards. One that gets none is forwarded as it is,
// and the log says why; an error is one of reading the content.
//
// It is done here, and not when the message comes in, because only the alias tells that a message leaves our
// domains: most never do, and would cost a signature of RSA for nothing. Content never changes, but an
// expansion makes messages of its own, with their copy of it: what leaves gets the set on top of its copy,
// and what stays is as it came.
func (q *Queue) seal(mk *aq.Make) ([]byte, error) {
	if q.deps.Seal == nil {
		return nil, nil
	}
	r, err := mk.Body.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	read := &noting{r: r}
	head, made, err := q.deps.Seal(read)
	switch {
	case read.err != nil:
		return nil, read.err
	case err != nil:
		q.log.Warn("forwarded without a seal of ARC", "ss_ta", mk.Of, "error", err)
		q.metrics.Seal(false)
		return nil, nil
	}
	if head == nil {
		return nil, nil
	}
	q.log.Info("sealed by ARC", "ss_ta", mk.Of, "arc", made)
	q.metrics.Seal(true)
	return head, nil
}

// noting notes the error with which reading ends.
type noting struct {
	r   io.Reader
	err error
}

func (n *noting) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return k, err
}

// behind is content behind a head.
type behind struct {
	msg.Body
	head []byte
}

func (b *behind) Size() int64 { return int64(len(b.head)) + b.Body.Size() }

func (b *behind) Bytes() []byte { return nil }

func (b *behind) Shape() msg.Shape { return msg.Shape{} } // nobody has looked at the head

func (b *behind) Open() (io.ReadCloser, error) {
	r, err := b.Body.Open()
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(b.head), r), r}, nil
}
