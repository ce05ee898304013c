package auth

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/xdg-go/scram"
)

// scramState is SCRAM-SHA-1 and SCRAM-SHA-256 (RFC 5802, RFC 7677), with channel binding
// (-PLUS) or without.
type scramState struct {
	hash     scram.HashGeneratorFcn
	form     scramForm // of the secrets that it needs
	nonce    string
	bindings []scram.ChannelBinding // that -PLUS was offered with; none: it was not
	plus     bool                   // the client asked for -PLUS

	talk   *scram.ServerConversation
	name   string
	author string
	secret *Secret
}

// errNoSecret ends the first look at a message, which tells whose secret is needed.
var errNoSecret = errors.New("secret not known yet")

func (s *scramState) respond(response []byte) move {
	switch {
	case response == nil && s.talk == nil:
		return challenge(nil)
	case s.talk == nil:
		return s.first(response)
	case !s.talk.Done():
		return s.final(response)
	case len(response) > 0 || !s.talk.Valid() || s.secret.decoy:
		return badResponse("more than the exchange has")
	}
	return move{kind: accept, name: s.name, author: s.author}
}

// first reads the client's first message. The library asks for the secret in the middle
// of it, where nothing may wait: so it reads the message twice.
func (s *scramState) first(message []byte) move {
	if s.plus != bytes.HasPrefix(message, []byte("p=")) {
		return badResponse("the flag of channel binding does not fit the mechanism")
	}
	text := string(message)
	talk, err := s.conversation(text, func(string) (scram.StoredCredentials, error) {
		return scram.StoredCredentials{}, errNoSecret
	})
	if err != nil {
		return badResponse("first message: it cannot be read")
	}
	if answer, err := talk.Step(text); !errors.Is(err, errNoSecret) {
		return badResponse("first message: " + scramFailure(answer))
	}
	s.name, s.author = talk.Username(), talk.AuthzID()
	return move{kind: askSecret, name: s.name, then: func(secret *Secret) move {
		s.secret = secret
		talk, err := s.conversation(text, func(string) (scram.StoredCredentials, error) {
			return secret.scram[s.form], nil
		})
		if err != nil {
			return badResponse("first message: it cannot be read")
		}
		answer, err := talk.Step(text)
		if err != nil {
			return badResponse("first message: " + scramFailure(answer))
		}
		s.talk = talk
		return challenge([]byte(answer))
	}}
}

// conversation makes a conversation for the type of channel binding that the message has.
func (s *scramState) conversation(message string, lookup scram.CredentialLookup) (*scram.ServerConversation, error) {
	server, err := s.hash.NewServer(lookup)
	if err != nil {
		return nil, err
	}
	server = server.WithNonceGenerator(func() string { return s.nonce })
	if len(s.bindings) == 0 {
		return server.NewConversation(), nil
	}
	flag, _, _ := strings.Cut(message, ",")
	i := slices.IndexFunc(s.bindings, func(b scram.ChannelBinding) bool { return flag == "p="+string(b.Type) })
	i = max(i, 0) // another type, or none: the library refuses what must be
	if s.plus {
		return server.NewConversationWithChannelBindingRequired(s.bindings[i]), nil
	}
	return server.NewConversationWithChannelBinding(s.bindings[i]), nil // a flag y is a downgrade
}

// final reads the client's proof. The server's own goes as one more challenge, which the
// client answers with nothing (RFC 4954 section 4).
func (s *scramState) final(message []byte) move {
	answer, err := s.talk.Step(string(message))
	switch {
	case err == nil && s.talk.Valid() && !s.secret.decoy:
		return challenge([]byte(answer))
	case err == nil || answer == scram.ErrInvalidProof:
		return move{kind: refuse, name: s.name, reason: wrongPassword}
	}
	return move{kind: refuse, name: s.name, reason: "final message: " + scramFailure(answer)}
}

// scramFailure says in words what an error of the library is about. Its own text may hold
// what the client sent, or the data of the channel binding.
func scramFailure(answer string) string {
	switch answer {
	case scram.ErrChannelBindingsDontMatch:
		return "channel binding differs: somebody stands between"
	case scram.ErrServerDoesSupportChannelBinding:
		return "the client did not see the mechanisms with channel binding: somebody stands between"
	case scram.ErrUnsupportedChannelBindingType:
		return "this type of channel binding is not to be had"
	}
	return "it cannot be read"
}
