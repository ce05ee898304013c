package auth

import "bytes"

// plainState is PLAIN (RFC 4616): authorization identity, account and password with NUL
// between.
type plainState struct{}

func (plainState) respond(response []byte) move {
	if response == nil {
		return challenge(nil)
	}
	part := bytes.Split(response, []byte{0})
	if len(part) != 3 || len(part[1]) == 0 || len(part[2]) == 0 {
		return badResponse("not three parts with NUL between")
	}
	return move{kind: askPassword, author: string(part[0]), name: string(part[1]), text: part[2]}
}

// loginState is LOGIN (draft-murchison-sasl-login): two questions.
type loginState struct {
	asked bool // for the name
	name  []byte
}

func (s *loginState) respond(response []byte) move {
	switch {
	case response == nil && !s.asked:
		s.asked = true
		return challenge([]byte("Username:"))
	case s.name == nil && len(response) > 0:
		s.asked, s.name = true, bytes.Clone(response)
		return challenge([]byte("Password:"))
	case s.name == nil || len(response) == 0:
		return badResponse("empty")
	}
	return move{kind: askPassword, name: string(s.name), text: response}
}
