//go:build !unix

package wire

import "errors"

// idleRead cannot wait for input without a buffer here.
type idleRead struct{}

func (*idleRead) init(*Conn) {}

func (*idleRead) able() bool { return false }

func (*idleRead) read() (int, error) { return 0, errors.ErrUnsupported }
