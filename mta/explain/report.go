package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// Bounds of a question.
const (
	rcptsMax = 100
	textMax  = 1000 // bytes of each text
)

// Question is a dialogue that is to be tried.
type Question struct {
	// Server is the section smtps: its title or name; "" for the first.
	Server string     `json:"server,omitempty"`
	Client netip.Addr `json:"client"`
	// Name is the verified name of the client; "" to look it up in DNS.
	Name string `json:"name,omitempty"`
	Helo string `json:"helo"`
	TLS  *TLS   `json:"tls,omitempty"` // nil: plain text
	// Auth is the account as which the client authenticates, "" for none, by Mechanism, "" for
	// the first that the section trusts, else the first.
	Auth      string `json:"auth,omitempty"`
	Mechanism string `json:"mechanism,omitempty"`
	// From and To are addresses without angle brackets; FromParams and ToParams are the
	// parameters of MAIL and RCPT, such as "SIZE=1000 SMTPUTF8".
	From       string   `json:"from"`
	FromParams string   `json:"from_params,omitempty"`
	To         []string `json:"to"`
	ToParams   string   `json:"to_params,omitempty"`
}

// TLS is what the handshake of the dialogue is to have given.
type TLS struct {
	Version string `json:"version,omitempty"` // as OpenSSL writes it; "" for what it gives
	Cipher  string `json:"cipher,omitempty"`
	Bits    int    `json:"bits,omitempty"`
	// Subject and Issuer are the names in a verified certificate of the client, as
	// /C=US/CN=client.example; "" for no certificate.
	Subject string `json:"cert_subject,omitempty"`
	Issuer  string `json:"cert_issuer,omitempty"`
}

// Check says what is wrong with a question: what could not be sent as a command.
func (q *Question) Check() error {
	if !q.Client.IsValid() {
		return errors.New("the address of the client is missing")
	}
	if len(q.To) > rcptsMax {
		return fmt.Errorf("%d recipients are more than %d", len(q.To), rcptsMax)
	}
	texts := append([]string{q.Server, q.Name, q.Helo, q.Auth, q.Mechanism, q.From, q.FromParams, q.ToParams}, q.To...)
	if q.TLS != nil {
		texts = append(texts, q.TLS.Version, q.TLS.Cipher, q.TLS.Subject, q.TLS.Issuer)
	}
	for _, s := range texts {
		if len(s) > textMax || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("%.60q is too long, or has control characters", s)
		}
	}
	return nil
}

// HeloOr is the argument of EHLO: helo, or if that is "" the verified name of the client, or its
// address as RFC 5321 section 4.1.3 writes it.
func HeloOr(helo, name string, client netip.Addr) string {
	switch {
	case helo != "":
		return helo
	case name != "":
		return strings.TrimSuffix(name, ".")
	case client.Is6():
		return "[IPv6:" + client.String() + "]"
	}
	return "[" + client.String() + "]"
}

// Verdict is what becomes of mail at a reply.
type Verdict string

// The verdicts.
const (
	Accepted  Verdict = "accept"
	Discarded Verdict = "discard" // accepted, and dropped
	TempFail  Verdict = "tempfail"
	Rejected  Verdict = "reject"
)

// rank orders verdicts: a later one is worse for the sender.
func (v Verdict) rank() int {
	return map[Verdict]int{Accepted: 1, Discarded: 2, TempFail: 3, Rejected: 4}[v]
}

func verdictOf(r smtp.Reply) Verdict {
	switch {
	case r.Temporary():
		return TempFail
	case r.Permanent():
		return Rejected
	}
	return Accepted
}

// Report answers a question.
type Report struct {
	// Source is "running" or "file": whose maps, limits and hosts answered.
	Source string `json:"source"`
	Config string `json:"config"` // the configuration file
	Server string `json:"server"` // title of the section smtps
	// Verdict is the worst of all recipients, or that of the stage at which the dialogue ended.
	Verdict    Verdict     `json:"verdict"`
	Stages     []*Stage    `json:"stages"`
	Recipients []Recipient `json:"recipients"`
	// Notes are what the answer leaves out.
	Notes []string `json:"notes,omitempty"`
}

// Stage is one command of the dialogue, and what was decided on it.
type Stage struct {
	Stage   string   `json:"stage"`             // connect, starttls, ehlo, auth, mail, rcpt
	Command string   `json:"command,omitempty"` // "" for connect
	Checks  []Check  `json:"checks"`
	Notes   []Note   `json:"notes,omitempty"`
	Reply   string   `json:"reply"`
	Verdict Verdict  `json:"verdict"`
	Why     string   `json:"why,omitempty"`     // of the reply, see Replies
	Options []Option `json:"options,omitempty"` // that the reply depends on

	discard bool
}

// Check is one check, and what it found.
type Check struct {
	Stage  string `json:"stage,omitempty"` // of SMAR, see msg.Stage; "" for the server's own
	Check  string `json:"check"`
	Map    string `json:"map,omitempty"`
	Where  string `json:"where,omitempty"` // file:line of the entry, if Map does not have it
	Key    string `json:"key,omitempty"`
	Value  string `json:"value,omitempty"`
	Effect string `json:"effect,omitempty"`
	// Decides: this check decided the stage.
	Decides bool `json:"decides,omitempty"`
}

func checkOf(s msg.Step) Check {
	return Check{Check: s.Check, Map: s.Map, Key: s.Key, Value: s.Value, Effect: s.Effect}
}

// Note is a field of the log that the dialogue would have written.
type Note struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Option is an option of the configuration.
type Option struct {
	Option string `json:"option"` // its path: "smtps MTA/recipients_per_session_max"
	Value  string `json:"value"`
	Where  string `json:"where"` // file:line, or "default"
}

// Recipient is where an accepted recipient goes, or why it is refused.
type Recipient struct {
	Rcpt    string  `json:"rcpt"`
	Reply   string  `json:"reply"`
	Verdict Verdict `json:"verdict"`
	Routes  []Route `json:"routes,omitempty"`
	// More is how many addresses of its aliases are left out.
	More int `json:"more,omitempty"`
}

// Route is the way of one address: the recipient, or one that its alias stands for.
type Route struct {
	Rcpt   string  `json:"rcpt"`
	Sender string  `json:"sender,omitempty"` // if an owner- alias replaces it
	VERP   bool    `json:"verp,omitempty"`
	Checks []Check `json:"checks"`
	Alias  bool    `json:"alias,omitempty"` // the routes behind this one are its members
	Reply  string  `json:"reply,omitempty"` // why there is no route
	Dest   string  `json:"dest,omitempty"`
	Hops   []Hop   `json:"hops,omitempty"`
	Conf   string  `json:"conf,omitempty"` // the entry of smtpc_rcpt_conf:
}

// Hop is one host of a route, in the order in which they are tried.
type Hop struct {
	Hop    string   `json:"hop"`
	TLS    string   `json:"tls"`              // what TLS must give
	DANE   []string `json:"dane,omitempty"`   // TLSA records
	Checks []Check  `json:"checks,omitempty"` // how they were found
	Limits []Option `json:"limits,omitempty"` // on connections to it
	State  string   `json:"state,omitempty"`  // what the queue thinks of it
	Source []string `json:"source,omitempty"` // local addresses
}
