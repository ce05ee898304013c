package msg

import (
	"net/netip"
	"strconv"
	"time"

	"meta1/mta/smtp"
)

// Ports are all connections between the modules of one MTA. mta makes them once;
// they outlive the modules.
type Ports struct {
	Admit   *Port[AdmitQ, AdmitA]
	Commit  *Port[CommitQ, CommitA]
	Check   *Port[CheckQ, Verdict]
	Route   *Port[RouteQ, RouteA]
	TLSA    *Port[TLSAQ, TLSAA]
	DNS     *Port[DNSQ, DNSA]
	Report  *Port[TLSReportQ, TLSReportA]
	Deliver *Port[DeliverQ, DeliverA]
	Lookup  *Port[LookupQ, LookupA]
	List    *Port[ListQ, ListA]
	Operate *Port[OperateQ, OperateA]
	Hosts   *Port[HostsQ, HostsA]
	Fsck    *Port[FsckQ, FsckA]
	Backup  *Port[BackupQ, BackupA]
	Status  map[string]*Port[StatusQ, StatusA] // by module: qmgr, smar, smtps, smtpc

	// What an operator has set, which QMGR obeys.
	Gate      Gate
	Throttles Throttles
	Handover  Handover
}

// AdmitKind says what begins or ends.
type AdmitKind uint8

const (
	// NewSession: a client has connected. The answer brings the session's id.
	NewSession AdmitKind = iota
	// NewTransaction: a MAIL command was given. The answer brings the transaction's id.
	NewTransaction
	// EndSession: the session is over; one for each admitted NewSession, also if
	// NameSession refused it. No reply.
	EndSession
	// NameSession: the name of an admitted session's client is known, or found to be
	// unknown. It is asked once, before the greeting, if AdmitA.AskName was set.
	NameSession
	// TrySession asks whether a session of Client, with Name, would be admitted now, and
	// TryTransaction whether a transaction of Size would. Neither counts as one.
	TrySession
	TryTransaction
)

// AdmitQ asks whether a session or a transaction may begin. QMGR may hold the
// answer back for a while: that is how it throttles the server (README 9.1).
type AdmitQ struct {
	Kind   AdmitKind
	Server uint8      // option id of the smtps section, part of the new id
	Client netip.Addr // zero for a Unix socket
	// Session is that of NewTransaction, EndSession and NameSession.
	Session smtp.ID
	// Name is the client's verified name, with a trailing dot, or ""; of NameSession and
	// TrySession.
	Name string
	Size int64 // declared SIZE of the transaction, 0 if unknown
	// Relay: the client may relay because of its address or name; of NewTransaction. No
	// limit on new connections within a minute holds for such an address.
	Relay bool
}

// AdmitA answers AdmitQ.
type AdmitA struct {
	// Reply is a 4xx refusal, or zero to go on.
	Reply smtp.Reply
	// ID of the new session or transaction.
	ID smtp.ID
	// AskName: limits depend on the name of the client, so NameSession must follow.
	AskName bool
	// InlineMax is how many bytes of content this transaction may hold in memory and
	// commit inline. What is larger must go through the ContentStore. 0: all of it.
	InlineMax int64
}

// CommitQ hands a complete transaction to QMGR at the final dot.
type CommitQ struct {
	Envelope *Envelope
	// Inline is the content if it was held in memory. Otherwise it is nil and the
	// content is in the ContentStore already, durable, under Envelope.TA.
	// Neither may be changed afterwards.
	Inline []byte
	// Memory is what Inline takes of the budget. QMGR takes it over when it accepts the
	// message; nil: nothing was taken.
	Memory *Reservation
	// Shape is what is known of Inline; the zero value is nothing.
	Shape Shape
	// Size of the content in bytes.
	Size int64
	// Hold is why no recipient is to be tried until an operator releases it, such as the
	// reason of a filter that wants the message in quarantine; "": it goes on.
	Hold string
}

// CommitA answers CommitQ. A zero Reply is sent only after content and envelope
// are synced to disk: the server may then answer 250, and must not before.
type CommitA struct {
	Reply smtp.Reply // 4xx: nothing was accepted
}

// Stage is a step of the SMTP dialogue at which a verdict is asked (README 3.12.2).
type Stage uint8

// The stages in their order.
const (
	StageConnect Stage = iota
	StageEhlo
	StageMail
	StageRcpt
	StageData
	StageEom
	// StageTLS follows a TLS handshake with a verified certificate, if
	// check_access_map_for_relaying is set (README 3.10, item 24o).
	StageTLS
	// StageSender comes before StageMail if CheckRules.SenderLogin is set: may the client,
	// as the account that it is, use this sender?
	StageSender
)

// String is the stage's name in logs and in the trace.
func (s Stage) String() string {
	return [...]string{"connect", "ehlo", "mail", "rcpt", "data", "eom", "starttls", "sender"}[s]
}

// CheckQ asks SMAR for the verdict of one stage, with all that is known so far.
type CheckQ struct {
	Stage   Stage
	Session smtp.ID
	TA      smtp.ID // from StageMail on
	Client  Client
	Mail    Mail // from StageMail on
	Rcpt    Rcpt // at StageRcpt
	// Relaying is true if the session may relay to anywhere, because of an earlier
	// verdict or of authentication.
	Relaying bool
	// Marks of all earlier verdicts of the session, joined.
	Marks Marks
	// CertIssuer and CertSubject are the names in the client's verified certificate, as
	// they are (README 3.10, item 24o); at StageTLS.
	CertIssuer, CertSubject string
	// Rules are those of the server section; they are shared and never changed. Nil
	// stands for CheckRules{Access: true}.
	Rules *CheckRules
	// Trial: somebody only wants to know the verdict. It is the same as for a client, and
	// leaves no trace: greylisting does not remember it, and nothing counts it.
	Trial bool
}

// Marks says how the access map marked a session (README 3.9.3, 3.12.2).
type Marks uint8

// The marks. MarkQuickOK comes with MarkOK, and MarkQuickRelay with MarkRelay.
const (
	MarkOK Marks = 1 << iota
	MarkRelay
	MarkQuickOK
	MarkQuickRelay
)

// GreylistMode is the form of greylisting (README 3.9.4).
type GreylistMode uint8

// The forms.
const (
	GreylistOff    GreylistMode = iota
	GreylistSimple              // by the client's address
	GreylistFull                // by client, sender and recipient
)

// CheckRules are the options of a server section that steer SMAR's checks (README
// 3.10, items 4 and 22).
type CheckRules struct {
	Access      bool // flag access: use the access map, look the client's name up
	LMTPNoRelay bool // flag lmtp_does_not_imply_relaying
	// UntrustedRouting is the flag allow_untrusted_routing: strangers may give addresses
	// such as user%host@domain.
	UntrustedRouting bool
	SessionConf      bool // flag lookup_session_conf
	RcptConf         bool // flag rcpt_conf
	Greylist         GreylistMode
	ProtectSender    bool // protected_recipients allow_by sender
	ProtectClient    bool // protected_recipients allow_by client_ip
	ProtectGeneric   bool // protected_recipients match_type generic_lookup
	ProtectDetail    bool // protected_recipients match_type implicitly_match_detail
	// SenderLogin is the map of who may use which sender (sender_login), "" for none; at
	// StageSender.
	SenderLogin string
}

// Action is what a verdict demands.
type Action uint8

const (
	// Accept: go on.
	Accept Action = iota
	// Reject: send Verdict.Reply.
	Reject
	// Discard: answer as if accepted, and drop (README 3.9.3, discard).
	Discard
)

// Verdict is the decision of one stage and the reasons for it.
type Verdict struct {
	Action Action
	// Relay: from here on the session may relay to anywhere.
	Relay bool
	// Quick: the modifier quick: stood before the right hand side (README 3.9.3).
	Quick bool
	Reply smtp.Reply
	// Marks of this verdict.
	Marks Marks
	// Greylisted: the reply is that of greylisting, which may be sent at DATA instead
	// (README 3.10, item 4f).
	Greylisted bool
	// SessionConf is the entry of smtps_session_conf: or smtps_se_conf: (README
	// 3.10.1), nil for none; at StageConnect.
	SessionConf *Conf
	// ClientName and ClientResolve are set at StageConnect if they were looked up.
	ClientName    string
	ClientResolve string
	Trace         Trace
	// DecidedBy is one more than the index in Trace of the step that decided; 0 if
	// nothing did.
	DecidedBy int
}

// Decision is the step that decided, the zero Step if nothing did.
func (v *Verdict) Decision() Step {
	if v.DecidedBy < 1 || v.DecidedBy > len(v.Trace) {
		return Step{}
	}
	return v.Trace[v.DecidedBy-1]
}

// Step is one reason: which check looked where and found what.
type Step struct {
	Check  string // for example "cltaddr", "mailertable", "mx"
	Map    string // map or option (file:line) that decided, or ""
	Key    string // what was looked up
	Value  string // what was found, "" for nothing
	Effect string // what followed from it, in words
}

// Trace is the list of steps that led to a decision, in their order. Logs, mailq,
// tests and meta1 explain print it.
type Trace []Step

// Protocol is the protocol of a hop.
type Protocol uint8

// The protocols.
const (
	ProtoSMTP Protocol = iota
	ProtoLMTP
)

// String is "esmtp" or "lmtp", the words of the mailertable.
func (p Protocol) String() string {
	if p == ProtoLMTP {
		return "lmtp"
	}
	return "esmtp"
}

// Hop is one place to which a recipient may be delivered. It is comparable: equal
// hops may share connections and transactions.
type Hop struct {
	Protocol Protocol
	Addr     netip.AddrPort // zero if Socket is set
	Socket   string         // path of a Unix socket, or ""
	Host     string         // host name for logs, TLS and the greeting check; "" if only the address is known
	// DANE: what DNS said on the way to Host is secured by DNSSEC, or need not be, so that
	// SMAR is asked for its TLSA records (TLSAQ) before mail goes there.
	DANE bool
	STS  STS // what the MTA-STS policy of the domain asks of TLS
}

// String names the hop: "mx.example.org[192.0.2.1]:25" or the socket's path.
func (h Hop) String() string {
	if h.Socket != "" {
		return h.Socket
	}
	ip := h.Addr.Addr()
	if !ip.IsValid() {
		return h.Host + "[" + ip.String() + "]:" + itoa(h.Addr.Port())
	}
	var buf [128]byte // each delivery is logged with its hop
	b := append(append(buf[:0], h.Host...), '[')
	b = append(ip.AppendTo(b), "]:"...)
	return string(strconv.AppendUint(b, uint64(h.Addr.Port()), 10))
}

// RouteQ asks SMAR where a recipient goes.
type RouteQ struct {
	TA     smtp.ID
	Sender smtp.Path
	Rcpt   smtp.Path
	// Expanded: Rcpt came out of an alias; it is routed, and not expanded again.
	Expanded bool
	// TLSOptional: Mail.TLSOptional of the message. The route has also hosts that an
	// enforced MTA-STS policy does not name; RouteA.Dest ends with DestTLSOptional then.
	TLSOptional bool
	// Via, if it is not "", is the right hand side of a mailertable: the MTA to which an operator hands
	// mail over (Handover). RouteA.Dest ends with DestHandover then, and no Reply is permanent but
	// that of an alias. The null path as Rcpt asks for the hops alone.
	Via string
}

// RouteA answers RouteQ with exactly one of Reply, Expand and Hops.
type RouteA struct {
	// Reply: a temporary or permanent failure to find a route.
	Reply smtp.Reply
	// Expand: an alias stands for all these recipients.
	Expand []Expansion
	// Hops in the order in which they are to be tried. Never empty on success.
	Hops []Hop
	// Dest names the destination for scheduling, logs and mailq: recipients with the
	// same Dest go the same way ("mx:example.org", "lmtp:lmtpsock").
	Dest string
	// RcptConf is the entry of smtpc_rcpt_conf: (README 3.11.1), nil for none; with
	// Hops.
	RcptConf *Conf
	// Expires is when the route must be asked for again (README 7.2).
	Expires time.Time
	Trace   Trace
}

// Expansion are recipients for which an alias stands and who get the message from one
// sender. An alias has several if it holds lists with owners of their own.
type Expansion struct {
	Rcpts []smtp.Path // at least one; no recipient is in two
	// Owner replaces the sender if it is set (README 3.9.3, owner-).
	Owner smtp.Path
	// VERP: the list is one of verp- (README 3.14).
	VERP bool
	// Forwarded: the recipients are outside of our domains, so that the message is sealed (ARC) for
	// them where that is configured. It is found out only if somebody needs it.
	Forwarded bool
	// Rewrite: the sender, which is of somebody else's domain, is to be rewritten by SRS. With
	// Forwarded.
	Rewrite bool
}

// DeliverQ asks SMTPC to deliver one transaction over one hop.
type DeliverQ struct {
	Hop   Hop
	Dest  string  // RouteA.Dest of the route that led to Hop
	TA    smtp.ID // ss_ta
	Mail  Mail
	Rcpts []Rcpt // at least one
	Body  Body
	// Source are the local addresses from which SMTPC may connect, one of those of the
	// hop's family (README 3.8, item 16i); without any, the system chooses.
	Source []netip.Addr
	// SessionConf is the entry of smtpc_session_conf: for the hop's address, nil for none.
	SessionConf *Conf
	// RcptConf has the entry of smtpc_rcpt_conf: for each of Rcpts, nil for none; it is nil
	// if no recipient has one (README 3.11.1).
	RcptConf []*Conf
	// TransactionsMax bounds the transactions of the connection (README 3.8, item 16f);
	// 0 leaves it at QMGR's general limit.
	TransactionsMax int
	// Provider is the provider of the hop, "" for none. SMTPC has no more than ConnectionsMax
	// connections to it, those without work included, if it is not 0; and it notes in the answer
	// which reply is one of SlowDown.
	Provider       string
	ConnectionsMax int
	SlowDown       *ReplyPatterns
	// Progress is where SMTPC notes how far the delivery has come; nil for nowhere.
	Progress *Progress
}

// DeliverStage is how far the dialogue got.
type DeliverStage uint8

// The stages of a delivery in their order.
const (
	DeliverConnect DeliverStage = iota
	DeliverGreeting
	DeliverEhlo
	DeliverTLS
	DeliverAuth
	DeliverMail
	DeliverRcpt
	DeliverData
	DeliverDot
	DeliverDone
)

// String is the stage's name, as in where=final_dot (README 10.4).
func (s DeliverStage) String() string {
	return [...]string{"connect", "greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "final_dot", "done"}[s]
}

// Step names the stage in a notification, as in "during RCPT" (README 10.6): a command
// by its verb, DeliverDone as the dot that it follows.
func (s DeliverStage) Step() string {
	return [...]string{"connect", "greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "final dot", "final dot"}[s]
}

// DeliverA answers DeliverQ.
type DeliverA struct {
	// Rcpts has one reply for each recipient of the question, in its order, also
	// when the connection failed: 2xx delivered (smtp.Reply.Accepted), 4xx try again,
	// 5xx failed. Failures of our own (timeout, refused connection) are 4xx replies with
	// the enhanced codes of RFC 3463 (4.4.1 no answer, 4.4.2 bad connection).
	Rcpts []smtp.Reply
	// Stages has the stage at which each recipient got its reply: one of them may be
	// refused at RCPT, and another at the final dot. Read it by StageOf.
	Stages []DeliverStage
	// Stage is the last stage that was reached; DeliverDone after the reply to the dot.
	Stage DeliverStage
	// HostFailed: the hop as a whole did not serve (no connection, bad greeting,
	// lost connection, timeout); another hop of the route may.
	HostFailed bool
	// HostBusy, if it is not 0, says that the host refused this connection while that many
	// others to it were open, being made, or just closed: it was one connection too many. That
	// says nothing of the mail, which may go out once fewer than HostBusy deliveries to the
	// host are in progress, and the host has not failed: HostFailed is not set. Recipients
	// that were not settled before have the refusal, as a temporary one.
	HostBusy int
	// Unknown: the connection was lost after the final dot was sent and before its
	// reply came; the message may have been delivered.
	Unknown bool
	// Own: the replies are the client's own. The host was not asked, because it lacks
	// what the message needs; another hop of the route may have it.
	Own bool
	// NoNetwork: there was no connection, because this machine has no way to such addresses;
	// NoAnswer: because nobody answered.
	NoNetwork, NoAnswer bool
	// SlowDown is a temporary reply of the host that is one of DeliverQ.SlowDown, zero for none.
	SlowDown smtp.Reply
	// TLS is that of the connection.
	TLS HopTLS
	// Auth is the mechanism by which we authenticated (RFC 4954); "": we did not.
	Auth string
	// TLSUnmet: the host does not give the TLS that some of the mail demands. It has not
	// failed, and serves other mail; another hop of the route may serve this.
	TLSUnmet bool
	// DANENoMatch: the reason is that no TLSA record of the host matches its certificate
	// (README 14.2).
	DANENoMatch bool
	// Session and Transaction are da_se and da_ta of README 10.3.
	Session, Transaction string
	// Reused: the connection had been open already.
	Reused bool
	// DSN: the peer offers DSN (RFC 3461), so NOTIFY, ORCPT, RET and ENVID went with the
	// message; a success DSN is then the peer's to send, else the queue's.
	DSN bool
	// Elapsed is the time that the attempt took.
	Elapsed time.Duration
	// Connect is the part of Elapsed in which a connection was waited for: the way to the host, its
	// greeting, TLS and AUTH, or a connection that was busy with other mail.
	Connect time.Duration
}

// StageOf is the stage at which recipient i got its reply.
func (a *DeliverA) StageOf(i int) DeliverStage {
	if i < len(a.Stages) {
		return a.Stages[i]
	}
	return a.Stage
}

// QueueState is where a recipient stands.
type QueueState string

// The states of a recipient in the queue.
const (
	StateActive   QueueState = "active"   // in AQ: waits for a route or a connection
	StateInFlight QueueState = "inflight" // in AQ: a delivery attempt runs
	StateDeferred QueueState = "deferred" // in DEFEDB until NextTry
	StateHeld     QueueState = "hold"     // in DEFEDB until an operator releases it
	StateAside    QueueState = "aside"    // its record cannot be decoded; it is kept, and not touched
)

// ListQ asks QMGR for the queue's entries, one per recipient, in order of
// transaction and recipient index.
type ListQ struct {
	// After: go on behind this recipient id; "" from the start.
	After string
	// Max entries in the answer; the queue has a bound of its own.
	Max int
}

// ListA answers ListQ. More says that entries follow behind the last one.
type ListA struct {
	Entries []ListEntry
	More    bool
	// Err says why the listing is not complete; "" if it is.
	Err string
}

// ListEntry is one recipient in the queue.
type ListEntry struct {
	TA       smtp.ID
	Index    int // of the recipient in its transaction
	State    QueueState
	Arrival  time.Time
	Size     int64
	Sender   smtp.Path
	Rcpt     smtp.Path
	Dest     string // destination of the last route, or ""
	NextTry  time.Time
	Attempts int
	Reason   string // why it waits: the last reply, a full window, a route in progress
}

// StatusQ asks for a snapshot of a module.
type StatusQ struct {
	// Connections: of the connections of SMTPS or SMTPC, too, at most so many.
	Connections int
	// Close names a connection that is to be closed first; StatusA.Closed says whether there was one.
	Close string
}

// StatusA is a snapshot of a module: named values for meta1 ctl status, in the
// order in which they are to be shown.
type StatusA struct {
	Module string
	Values []StatusValue
	// Connections are some of those that are open.
	Connections []Connection
	Closed      bool
}

// Connection is one connection with a client, or with a host.
type Connection struct {
	ID    string    // ss_se of SMTPS, da_se of SMTPC; "" while it has none
	Peer  string    // address of the client, or the hop
	Name  string    // of the client: its verified name, else its EHLO
	User  string    // who authenticated, or as whom we did
	TLS   string    // version of TLS, "" without
	State string    // phase of the dialogue of SMTPS; busy or idle of SMTPC
	Since time.Time // of the state
	Begun time.Time // of the connection
	// Messages are those that were accepted by SMTPS, or begun by SMTPC.
	Messages int64
}

// StatusValue is one line of a snapshot: a number, or a text.
type StatusValue struct {
	Name   string
	Number int64
	Text   string // if not "", the value is this text and not the number
}
