package submit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
)

// lineMax bounds a line of a program that speaks SMTP to us, in bytes.
const lineMax = 64 << 10

// Dial connects to a server as Submit does: addr is "host:port" or the path of a socket. An error is an *Error.
func Dial(ctx context.Context, addr string) (net.Conn, error) {
	network := "tcp"
	if strings.Contains(addr, "/") {
		network = "unix"
	}
	nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, fail(ExTempFail, "connecting to %s: %w", addr, err)
	}
	return nc, nil
}

// Relay passes an SMTP session of a program on to a server (sendmail -bs). Lines of the program may end in LF alone, and
// it may say all at once, as a script does: each command waits for the reply to the one before. What follows BDAT
// is passed on as it is; STARTTLS is refused, since a pipe needs none. It ends with the session or the input.
func Relay(ctx context.Context, nc net.Conn, in io.Reader, out io.Writer) error {
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	r := &relay{server: bufio.NewReadWriter(bufio.NewReaderSize(nc, lineMax), bufio.NewWriter(nc)), in: bufio.NewReaderSize(in, lineMax), out: out}
	code, err := r.reply()
	for err == nil && code != "221" && code != "421" {
		if code == "354" {
			err = r.content()
		} else {
			err = r.command()
		}
		if err == nil {
			code, err = r.reply()
		}
	}
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return fail(ExIOErr, "passing a session on: %w", err)
}

// relay stands between a program and a server.
type relay struct {
	server *bufio.ReadWriter
	in     *bufio.Reader
	out    io.Writer
}

// reply passes a reply on, and gives its code.
func (r *relay) reply() (code string, err error) {
	if err := r.server.Flush(); err != nil {
		return "", err
	}
	for {
		line, err := r.server.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		if _, err := r.out.Write(line); err != nil {
			return "", err
		}
		if len(line) < 4 || line[3] != '-' {
			return string(line[:min(3, len(line))]), nil
		}
	}
}

// command passes a command on.
func (r *relay) command() error {
	for {
		line, err := r.line()
		if err != nil {
			return err
		}
		words := strings.Fields(line)
		if len(words) == 1 && strings.EqualFold(words[0], "STARTTLS") {
			if _, err := io.WriteString(r.out, "454 4.7.0 not needed here\r\n"); err != nil {
				return err
			}
			continue
		}
		if len(words) > 1 && strings.EqualFold(words[0], "BDAT") {
			if n, err := strconv.ParseInt(words[1], 10, 64); err == nil && n >= 0 {
				_, err := io.CopyN(r.server, r.in, n)
				return err
			}
		}
		return nil
	}
}

// content passes the content of a message on, with its final dot.
func (r *relay) content() error {
	for {
		line, err := r.line()
		if err != nil || line == "." {
			return err
		}
	}
}

// line passes a line on, and returns its beginning. STARTTLS is not passed on.
func (r *relay) line() (string, error) {
	first, cut := "", false // cut: the last part ended in CR, in the middle of a line
	for n := 0; ; n++ {
		line, err := r.in.ReadSlice('\n')
		more := errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !more {
			return "", err // the end, maybe in the middle of a line, which then is none
		}
		if n == 0 {
			first = strings.TrimRight(string(line), "\r\n")
			if !more && strings.EqualFold(strings.TrimSpace(first), "STARTTLS") {
				return first, nil
			}
		}
		body, ended := bytes.CutSuffix(line, []byte{'\n'})
		if _, err := r.server.Write(body); err != nil {
			return "", err
		}
		if ended {
			if !bytes.HasSuffix(body, []byte{'\r'}) && !(len(body) == 0 && cut) {
				_ = r.server.WriteByte('\r') // as WriteByte below
			}
			return first, r.server.WriteByte('\n')
		}
		cut = bytes.HasSuffix(body, []byte{'\r'})
	}
}
