package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
)

// cramState is CRAM-MD5 (RFC 2195). It needs the password itself.
type cramState struct {
	challenge []byte // unique, in the form of a Message-Id
	sent      bool
}

func (s *cramState) respond(response []byte) move {
	if !s.sent {
		if len(response) > 0 {
			return badResponse("an initial response, of which CRAM-MD5 has none")
		}
		s.sent = true
		return challenge(s.challenge)
	}
	i := bytes.LastIndexByte(response, ' ')
	if i <= 0 {
		return badResponse("no name and digest")
	}
	name, digest := string(response[:i]), make([]byte, md5.Size)
	if n, err := hex.Decode(digest, response[i+1:min(len(response), i+1+2*md5.Size)]); err != nil || n != md5.Size || len(response)-i-1 != 2*md5.Size {
		return badResponse("no digest")
	}
	return move{kind: askSecret, name: name, then: func(secret *Secret) move {
		mac := hmac.New(md5.New, []byte(secret.plain))
		mac.Write(s.challenge)
		if hmac.Equal(mac.Sum(nil), digest) {
			return move{kind: accept, name: name}
		}
		return move{kind: refuse, name: name, reason: wrongPassword}
	}}
}
