package metrics

// AuthResult is what became of a login.
type AuthResult uint8

// The results of logins.
const (
	AuthGranted AuthResult = iota
	AuthRefused
	AuthTemporary   // the host cannot tell now
	AuthNotOffered  // the host has no AUTH
	AuthNoMechanism // or none that may be used
	AuthUnprotected // TLS is missing, or not good enough
	AuthNoAccount   // the map or the token cannot be read
	AuthBroken      // the host broke the rules of the mechanism, or has not proved who it is
	AuthResults     // how many there are
)

// String is the result as metrics and logs have it.
func (r AuthResult) String() string {
	return [...]string{"granted", "refused", "temporary", "not_offered", "no_mechanism", "unprotected", "no_account", "broken"}[r]
}

// DANEResult is what became of a question for TLSA records, or of a handshake under them.
type DANEResult uint8

// The results of DANE.
const (
	DANEMatch DANEResult = iota
	DANENoMatch
	DANEUnusable // there are records, and none can be used
	DANEFailed   // the lookup
	DANEResults  // how many there are
)

// String is the result as metrics have it.
func (r DANEResult) String() string {
	return [...]string{"match", "no_match", "unusable", "lookup_failed"}[r]
}

// STSResult is what became of a handshake under an MTA-STS policy.
type STSResult uint8

// The results of MTA-STS.
const (
	STSTrusted STSResult = iota
	STSUntrusted
	STSTesting // untrusted, and the policy is for testing
	STSResults // how many there are
)

// String is the result as metrics have it.
func (r STSResult) String() string { return [...]string{"trusted", "untrusted", "testing"}[r] }
