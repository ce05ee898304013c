package auth

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// saslReplyMax bounds the answer of saslauthd.
const saslReplyMax = 1024

// askSaslauthd has saslauthd check a password. Question and answer are strings behind
// their length in two bytes: name, password, service and realm; "OK" or "NO" and more.
func (a *Authenticator) askSaslauthd(ctx context.Context, name, password string) (granted bool, reason string, err error) {
	prepared, err := PrepareName(name)
	if err != nil {
		return false, err.Error(), nil
	}
	if password, err = preparePassword(password); err != nil {
		return false, err.Error(), nil
	}
	user, realm := a.cfg.account(prepared), ""
	if i := strings.LastIndexByte(user, '@'); i >= 0 {
		user, realm = user[:i], user[i+1:]
	}
	var question []byte
	for _, s := range []string{user, password, a.cfg.Saslauthd.Service, realm} {
		question = append(binary.BigEndian.AppendUint16(question, uint16(len(s))), s...)
	}
	answer, err := a.saslauthd(ctx, question)
	switch {
	case err != nil:
		return false, "", fmt.Errorf("asking saslauthd: %w", err)
	case strings.HasPrefix(answer, "OK"):
		return true, "", nil
	case strings.HasPrefix(answer, "NO"):
		return false, "saslauthd refuses", nil
	}
	return false, "", errors.New("asking saslauthd: an answer that is neither OK nor NO")
}

// saslauthd sends one question and returns the answer.
func (a *Authenticator) saslauthd(ctx context.Context, question []byte) (string, error) {
	conn, err := a.deps.Dial(ctx, "unix", a.cfg.Saslauthd.Path)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer interruptible(ctx, conn)()
	if _, err := conn.Write(question); err != nil {
		return "", because(ctx, err)
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return "", because(ctx, err)
	}
	n := binary.BigEndian.Uint16(size[:])
	if n > saslReplyMax {
		return "", errors.New("an answer that is too long")
	}
	answer := make([]byte, n)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return "", because(ctx, err)
	}
	return string(answer), nil
}

// interruptible makes reads and writes of a connection fail when ctx ends, until the
// function that it returns is called.
func interruptible(ctx context.Context, conn net.Conn) (stop func() bool) {
	_ = conn.SetDeadline(time.Time{})
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// because is why a call on a connection failed: that ctx has ended comes first.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
