package auth

// state is one exchange of a mechanism. It does nothing but say what comes next.
type state interface {
	// respond takes what the client sent. nil stands for no initial response; an empty one
	// is empty and not nil.
	respond(response []byte) move
}

// moveKind is what a mechanism wants.
type moveKind uint8

const (
	// sendChallenge: send move.text, and call respond with the answer.
	sendChallenge moveKind = iota
	// askSecret: find the entry of the account move.name, and call move.then with it.
	askSecret
	// askPassword: the exchange is over if move.text is the password of the account.
	askPassword
	// accept: the client is the account move.name.
	accept
	// refuse: it is not, for move.reason.
	refuse
	// malformed: what the client sent breaks the mechanism's rules.
	malformed
)

// move is what a mechanism wants next.
type move struct {
	kind   moveKind
	text   []byte
	name   string // the account, as the client wrote it
	author string // as which account it wants to act; "" for the same
	then   func(*Secret) move
	reason string // of refuse and malformed, for the log; it holds nothing of the client's
}

func challenge(text []byte) move { return move{kind: sendChallenge, text: text} }

func badResponse(reason string) move { return move{kind: malformed, reason: reason} }
