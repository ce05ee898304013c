package condition

// Stage is a stage of the SMTP dialogue at which conditions are evaluated, in the order
// of the dialogue.
type Stage uint8

// The stages, and their names as sections check have them.
const (
	AtConnect Stage = iota // "connect": before the greeting
	AtMail                 // "mail": at MAIL
	AtRcpt                 // "rcpt": at each RCPT
	AtData                 // "data": at DATA, or the first BDAT
	AtEOM                  // "eom": the whole message was read
	stageCount
)

var stageNames = [stageCount]string{"connect", "mail", "rcpt", "data", "eom"}

// String is the stage's name.
func (s Stage) String() string { return stageNames[s] }

// StageNames are the names of all stages in their order.
func StageNames() []string { return append([]string(nil), stageNames[:]...) }

// StageOf finds a stage by its name; ok is false if there is none of that name.
func StageOf(name string) (s Stage, ok bool) {
	for s := range stageCount {
		if s.String() == name {
			return s, true
		}
	}
	return 0, false
}

// Ident is an identifier of the language.
type Ident uint8

// The identifiers of README 8.5.1, and those of section authentication.
const (
	AlgBits Ident = iota
	ARCResult
	AuthAuthen
	AuthAuthor
	AuthType
	CertIssuer
	CertSubject
	Cipher
	CipherBits
	ClientIP
	ClientName
	ClientResolve
	CNIssuer
	CNSubject
	DKIMDomains
	DKIMResult
	DMARCDomain
	DMARCPolicy
	DMARCResult
	Hops
	Hostname
	IPRevResult
	Mail
	MessageID
	MessageSize
	Rcpt
	SessionID
	SessionRcptsTotal
	SPFDomain
	SPFHeloResult
	SPFResult
	TLSVerify
	TLSVersion
	TransactionID
	TransactionRcptsOK
	TransactionRcptsTotal
	Transactions
	IdentCount // is none: the number of the others
)

// Source is the part of the configuration without which an identifier has no value.
type Source uint8

// The sources.
const (
	Always             Source = iota
	FromAccess                // flag access: the client's name is looked up
	FromTLS                   // section tls
	FromAuth                  // section auth
	FromAuthentication        // section authentication
)

// typ is the type of an expression.
type typ uint8

const (
	boolean typ = iota // a condition
	number
	text
	either // a number, and a string where one is wanted
)

// String names the type with its article.
func (t typ) String() string {
	return [...]string{"a condition", "a number", "a string", "a number"}[t]
}

// ident is a row of the table of identifiers.
type ident struct {
	name   string
	typ    typ
	from   Stage // the first stage at which it is known
	source Source
	doc    string
}

// idents is the table of identifiers. It never changes.
var idents = [IdentCount]ident{
	AlgBits:               {"alg_bits", number, AtConnect, FromTLS, "Longest key that the cipher can have, in bits; 0 without TLS."},
	ARCResult:             {"arc_result", text, AtEOM, FromAuthentication, "The result of the chain of those who passed the message on (ARC): pass, fail or none; empty if it was not checked."},
	AuthAuthen:            {"auth_authen", text, AtMail, FromAuth, "The account that the client proved to be by AUTH; empty if it did not."},
	AuthAuthor:            {"auth_author", text, AtMail, FromAuth, "The parameter AUTH= of MAIL, decoded, if the client was trusted to give it (RFC 4954); else empty."},
	AuthType:              {"auth_type", text, AtMail, FromAuth, "The mechanism of AUTH; empty without AUTH."},
	CertIssuer:            {"cert_issuer", text, AtConnect, FromTLS, "The distinguished name of the issuer of the client's certificate; empty without one."},
	CertSubject:           {"cert_subject", text, AtConnect, FromTLS, "The distinguished name of the subject of the client's certificate; empty without one."},
	Cipher:                {"cipher", text, AtConnect, FromTLS, "The name of the cipher suite; empty without TLS."},
	CipherBits:            {"cipher_bits", number, AtConnect, FromTLS, "Effective length of the cipher's key in bits; 0 without TLS."},
	ClientIP:              {"client_ip", text, AtConnect, Always, "The client's address, in the form of the access map (2001:db8:0:0:0:0:0:1); empty for a Unix socket."},
	ClientName:            {"client_name", text, AtConnect, FromAccess, "The client's verified name with a dot at its end; empty if it has none."},
	ClientResolve:         {"client_resolve", text, AtConnect, FromAccess, "How the name was found: ok, no, tempptr or tempa (README 3.9.3)."},
	CNIssuer:              {"cn_issuer", text, AtConnect, FromTLS, "The common name of the issuer of the client's certificate; empty without one."},
	CNSubject:             {"cn_subject", text, AtConnect, FromTLS, "The common name of the subject of the client's certificate; empty without one."},
	DKIMDomains:           {"dkim_domains", text, AtEOM, FromAuthentication, "The domains whose DKIM signatures are good, with blanks between them; empty for none."},
	DKIMResult:            {"dkim_result", text, AtEOM, FromAuthentication, "The best result of the DKIM signatures, such as pass, fail or none; empty if the message was not checked."},
	DMARCDomain:           {"dmarc_domain", text, AtEOM, FromAuthentication, "The domain of From: that dmarc_result is about; empty if there is none, or the message was not checked."},
	DMARCPolicy:           {"dmarc_policy", text, AtEOM, FromAuthentication, "What that domain asks for: none, quarantine or reject, one step less if the message fails and the domain only tests (t=y); empty if no policy applies."},
	DMARCResult:           {"dmarc_result", text, AtEOM, FromAuthentication, "The result of DMARC, such as pass, fail or none; empty if the message was not checked."},
	Hops:                  {"hops", either, AtEOM, Always, "How many Received: headers the message came with. It is a number, and a string where one is wanted, since the README has it among the strings."},
	Hostname:              {"hostname", text, AtConnect, Always, "Our own host name."},
	IPRevResult:           {"iprev_result", text, AtRcpt, FromAuthentication, "Whether the client's address and name confirm each other: pass, fail or temperror; empty if that was not checked."},
	Mail:                  {"mail", text, AtMail, Always, "The sender's address as it was sent, without angle brackets; empty for <>."},
	MessageID:             {"message_id", text, AtEOM, Always, "The value of the header Message-ID:, with its angle brackets; empty if there is none."},
	MessageSize:           {"message_size", number, AtMail, Always, "The size of the message in bytes: before eom what the client declared by SIZE=, 0 if it did not; at eom what it sent."},
	Rcpt:                  {"rcpt", text, AtRcpt, Always, "The recipient's address as it was sent, without angle brackets; at data and eom that of the last one that gets the message."},
	SessionID:             {"session_id", text, AtConnect, Always, "The id of the session, as in the log."},
	SessionRcptsTotal:     {"session_rcpts_total", number, AtMail, Always, "How many RCPT commands with an address the session had, accepted or not, this one included."},
	SPFDomain:             {"spf_domain", text, AtRcpt, FromAuthentication, "The domain that spf_result is about: that of MAIL, or for the null sender that of HELO."},
	SPFHeloResult:         {"spf_helo_result", text, AtRcpt, FromAuthentication, "The result of SPF for the name in HELO; empty if it was not checked."},
	SPFResult:             {"spf_result", text, AtRcpt, FromAuthentication, "The result of SPF for spf_domain: pass, fail, softfail, neutral, none, temperror or permerror; empty if it was not checked."},
	TLSVerify:             {"tls_verify", text, AtConnect, FromTLS, "The result of the verification of the client's certificate, as in Received: (README 10.5); empty without TLS."},
	TLSVersion:            {"tls_version", text, AtConnect, FromTLS, "The version of TLS, such as TLSv1.3; empty without TLS."},
	TransactionID:         {"transaction_id", text, AtMail, Always, "The id of the transaction, as in the log."},
	TransactionRcptsOK:    {"transaction_rcpts_ok", number, AtRcpt, Always, "How many recipients of the transaction were accepted so far; at rcpt without this one."},
	TransactionRcptsTotal: {"transaction_rcpts_total", number, AtRcpt, Always, "How many RCPT commands with an address the transaction had, accepted or not, this one included."},
	Transactions:          {"transactions", number, AtMail, Always, "How many transactions the session had, this one included."},
}

// String is the identifier's name.
func (i Ident) String() string { return idents[i].name }

// Source is what the identifier's value comes from.
func (i Ident) Source() Source { return idents[i].source }

// Of are the identifiers whose values come from a source.
func Of(source Source) []Ident {
	var list []Ident
	for i := range idents {
		if idents[i].source == source {
			list = append(list, Ident(i))
		}
	}
	return list
}

// Doc is what a manual says of an identifier.
type Doc struct {
	Name, Type, From, Text string // Type: "number" or "string"; From: the first stage
}

// Docs are the identifiers in the order of their names.
func Docs() []Doc {
	list := make([]Doc, IdentCount)
	for i, id := range idents {
		list[i] = Doc{Name: id.name, Type: "string", From: id.from.String(), Text: id.doc}
		if id.typ != text {
			list[i].Type = "number"
		}
	}
	return list
}

// identNames are the names of all identifiers.
func identNames() []string {
	names := make([]string, IdentCount)
	for i := range names {
		names[i] = idents[i].name
	}
	return names
}

// Facts are the values of the identifiers. Those that are not set are 0 or empty. Hops is a
// number.
type Facts struct {
	Text   [IdentCount]string
	Number [IdentCount]int64
}
