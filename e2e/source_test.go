package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// message is one message to be sent.
type message struct {
	from  string
	rcpts []string
	data  []byte
}

// smtpConn is a client's side of an SMTP session.
type smtpConn struct {
	c net.Conn
	r *bufio.Reader
	w *bufio.Writer
}

// dial connects to an SMTP server and says EHLO.
func dial(addr string) (*smtpConn, error) { return dialFor(addr, hangs) }

// dialFor is dial, with a limit for the connection.
func dialFor(addr string, limit time.Duration) (*smtpConn, error) {
	c, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		return nil, err
	}
	k := &smtpConn{c: c, r: bufio.NewReader(c), w: bufio.NewWriterSize(c, 32<<10)}
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	return k.greeted()
}

// greeted reads the greeting and says EHLO. If either is refused the connection is closed.
func (k *smtpConn) greeted() (*smtpConn, error) {
	greeting, err := k.readReply()
	if err == nil && !positive(greeting) {
		err = fmt.Errorf("greeting: %s", greeting)
	}
	if err == nil {
		_, err = k.cmd("EHLO client.test")
	}
	if err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

func (k *smtpConn) close() { k.c.Close() }

// readReply reads one reply; its lines are joined with "\n".
func (k *smtpConn) readReply() (string, error) {
	var lines []string
	for {
		l, err := k.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		l = strings.TrimSuffix(l, "\r\n")
		if len(l) < 3 {
			return "", fmt.Errorf("malformed reply %q", l)
		}
		lines = append(lines, l)
		if len(l) == 3 || l[3] == ' ' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// cmd sends a line and reads the reply.
func (k *smtpConn) cmd(line string) (string, error) {
	fmt.Fprintf(k.w, "%s\r\n", line)
	if err := k.w.Flush(); err != nil {
		return "", err
	}
	return k.readReply()
}

// refusal is a negative reply, and to what it was given.
type refusal struct{ command, reply string }

func (e *refusal) Error() string { return e.command + ": " + e.reply }

// send sends one message in one pipelined group, and returns nil only when the
// final dot was answered 250. A *refusal leaves the session usable.
func (k *smtpConn) send(m message) error {
	fmt.Fprintf(k.w, "MAIL FROM:<%s>\r\n", m.from)
	for _, r := range m.rcpts {
		fmt.Fprintf(k.w, "RCPT TO:<%s>\r\n", r)
	}
	k.w.WriteString("DATA\r\n")
	if err := k.w.Flush(); err != nil {
		return err
	}
	var refused error
	reply := ""
	for i := range len(m.rcpts) + 2 {
		var err error
		if reply, err = k.readReply(); err != nil {
			return err
		}
		if !positive(reply) && refused == nil {
			refused = &refusal{[]string{"MAIL", "RCPT", "DATA"}[min(i, 1)+max(0, i-len(m.rcpts))], reply}
		}
	}
	if !strings.HasPrefix(reply, "354") {
		if _, err := k.cmd("RSET"); err != nil {
			return err
		}
		return refused
	}
	if refused != nil {
		return fmt.Errorf("DATA was accepted although %w", refused)
	}
	writeDotted(k.w, m.data)
	reply, err := k.cmd(".")
	if err == nil && !strings.HasPrefix(reply, "250") {
		err = &refusal{"final dot", reply}
	}
	return err
}

// writeDotted writes data with dots stuffed (RFC 5321 section 4.5.2).
func writeDotted(w io.Writer, data []byte) {
	for line := range bytes.Lines(data) {
		if line[0] == '.' {
			_, _ = w.Write([]byte("."))
		}
		_, _ = w.Write(line)
	}
}

// sendAll sends the messages 0..n-1 over some sessions at once and fails the test
// unless each is answered 250.
func sendAll(t *testing.T, addr string, sessions, n int, make func(id int) message) {
	t.Helper()
	ids := count(n)
	errs := newErrorList()
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() {
			k, err := dial(addr)
			if err != nil {
				errs.add(err)
				return
			}
			defer k.close()
			for id := range ids {
				if err := k.send(make(id)); err != nil {
					errs.add(fmt.Errorf("message %d: %w", id, err))
					return
				}
			}
			_, _ = k.cmd("QUIT")
		})
	}
	wg.Wait()
	for range ids { // what is left when every session failed
		errs.add(fmt.Errorf("not sent"))
	}
	errs.report(t)
}

// count gives the numbers 0..n-1.
func count(n int) <-chan int {
	ids := make(chan int, n)
	for id := range n {
		ids <- id
	}
	close(ids)
	return ids
}

// sendOne sends one message over a session of its own.
func sendOne(addr string, m message) error {
	k, err := dial(addr)
	if err != nil {
		return err
	}
	defer k.close()
	if err := k.send(m); err != nil {
		return err
	}
	_, err = k.cmd("QUIT")
	return err
}

// testMessage is message number id of some bytes; the same number and size give
// the same message. It goes to RCPT@domain and carries its number in the header.
func testMessage(id, size int, rcpt string) message {
	return message{from: "sender@client.test", rcpts: []string{rcpt}, data: testContent(id, size)}
}

// testID is the number of a message of testContent, or -1.
func testID(data []byte) int {
	_, rest, _ := bytes.Cut(data, []byte("X-Test-Id: "))
	number, _, _ := bytes.Cut(rest, []byte("\r\n"))
	id, err := strconv.Atoi(string(number))
	if err != nil {
		return -1
	}
	return id
}

// shapes are bodies with which relays have had trouble.
var shapes = []func(r *rand.Rand, size int) []byte{
	func(r *rand.Rand, size int) []byte { return lines(r, size, 72, "abcdefghijklmnopqrstuvwxyz ") },
	func(r *rand.Rand, size int) []byte { return lines(r, size, 4, "..........x ") },
	func(r *rand.Rand, size int) []byte { return lines(r, size, 998, "0123456789.") },
	func(r *rand.Rand, size int) []byte {
		return lines(r, size, 60, "\xff\xfe\xe4\xf6\xfc\x80\t\x0b\x0c\x1b ")
	},
	func(r *rand.Rand, size int) []byte { return lines(r, size, 1, " \t.") },
	func(_ *rand.Rand, size int) []byte { return bytes.Repeat([]byte("\r\n"), size/2) },
	func(_ *rand.Rand, size int) []byte { return bytes.Repeat([]byte(".\r\n"), size/3) },
	func(_ *rand.Rand, size int) []byte {
		return bytes.Repeat([]byte("MAIL FROM:<x@y.test>\r\n.QUIT\r\n"), size/31)
	},
}

// testContent is the content of a test message: a header, some of it folded, and
// a body of one of the shapes, or none.
func testContent(id, size int) []byte {
	r := rand.New(rand.NewPCG(uint64(id), uint64(size)))
	var b bytes.Buffer
	fmt.Fprintf(&b, "X-Test-Id: %d\r\nFrom: <sender@client.test>\r\nSubject: test\r\n\tnumber %d\r\n of many\r\n", id, id)
	if id%97 == 13 {
		return b.Bytes() // a header alone, without the empty line
	}
	b.WriteString("\r\n")
	if id%97 != 14 {
		b.Write(shapes[id%len(shapes)](r, max(0, size-b.Len())))
	}
	return b.Bytes()
}

// lines makes random lines of up to width bytes out of an alphabet.
func lines(r *rand.Rand, size, width int, alphabet string) []byte {
	b := make([]byte, 0, size+width+2)
	for len(b) < size {
		for range r.IntN(width + 1) {
			b = append(b, alphabet[r.IntN(len(alphabet))])
		}
		b = append(b, '\r', '\n')
	}
	return b
}

// checkContent compares an arrived message with what was sent: one Received: field
// of ours is on top, and nothing else has changed.
func checkContent(got, sent []byte) error {
	if !bytes.HasPrefix(got, []byte("Received: from ")) {
		return fmt.Errorf("no Received: field on top of %.60q", got)
	}
	if rest := cutField(got); !bytes.Equal(rest, sent) {
		i := 0
		for i < min(len(rest), len(sent)) && rest[i] == sent[i] {
			i++
		}
		return fmt.Errorf("%d bytes came of %d; they differ from byte %d on: %.40q, sent was %.40q",
			len(rest), len(sent), i, rest[i:], sent[i:])
	}
	return nil
}

// cutField removes the first header field with its continuation lines.
func cutField(data []byte) []byte {
	for {
		_, rest, _ := bytes.Cut(data, []byte("\n"))
		if len(rest) == 0 || rest[0] != ' ' && rest[0] != '\t' {
			return rest
		}
		data = rest
	}
}
