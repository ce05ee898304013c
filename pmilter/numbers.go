package pmilter

import (
	"fmt"
	"strings"
)

// Versions of this library (README 15.1.12, sm_pmfi_version). A program that was made for
// another major version must be compiled anew.
const (
	Major = 1
	Minor = 0
	Patch = 0
)

// Versions of the wire form. The two sides take the highest that both know.
const (
	VersionMin = 1
	VersionMax = 1
)

// Bounds. Lengths are in bytes.
const (
	// FrameMax bounds what follows the length of a frame.
	FrameMax = 128 << 10
	// ChunkSize is PMILTER_CHUNK_SIZE: a chunk of a message is smaller.
	ChunkSize = 64 << 10
	// TextMax bounds a text: an address, a header field with its folds, a reply.
	TextMax = 64<<10 - 1
	// MacrosMax is PM_MACROS_MAX: macros at one stage.
	MacrosMax = 32
	// MacroValueMax bounds the value of a macro; a longer one is cut.
	MacroValueMax = 1024
	// ArgsMax bounds the parameters of MAIL or RCPT.
	ArgsMax = 64
	// ChangesMax bounds the changes of one message.
	ChangesMax = 10000
	// ChangeBytesMax bounds them in all.
	ChangeBytesMax = 4 << 20
	// RepliesMax bounds the replies of one message: the recipients that it may have for PRDR.
	RepliesMax = 10000
	// SessionsMax bounds the sessions of a connection.
	SessionsMax = 10000
)

// Cap is a set of capabilities (SM_SCAP_PM_*): which steps of the dialogue are sent, and how.
type Cap uint32

// The capabilities.
const (
	CapConnect Cap = 1 << iota // SM_SCAP_PM_CNNCT
	CapHelo                    // SM_SCAP_PM_EHLO
	CapMail                    // SM_SCAP_PM_MAIL
	CapRcpt                    // SM_SCAP_PM_RCPT
	CapData                    // SM_SCAP_PM_DATA
	CapMsg                     // SM_SCAP_PM_MSG
	CapEOM                     // SM_SCAP_PM_EOM
	CapUnknown                 // SM_SCAP_PM_UNKN
	// CapRcptStatus sends recipients that were refused, too (SM_SCAP_PM_RCPT_ST).
	CapRcptStatus
	// CapMsgCode lets a chunk of a message decide (SM_SCAP_PM_MSG_RC).
	CapMsgCode

	CapAll = CapMsgCode<<1 - 1
)

// Fct is a set of functions that change a message.
type Fct uint32

// The functions.
const (
	FctMailReplace Fct = 1 << iota // sm_pmfi_mail_rplc
	FctRcptAdd                     // sm_pmfi_rcpt_add
	FctRcptDel                     // sm_pmfi_rcpt_del
	FctHeader                      // sm_pmfi_hdr_mod
	FctReplace                     // SMTP_R_RPLCMSG
	FctReplies                     // sm_pmfi_setreplies
	FctHold                        // ours: the message is accepted and held in the queue

	FctAll = FctHold<<1 - 1
)

// Feat is a set of features of the server.
type Feat uint32

// FeatPRDR: clients may ask for a reply for each recipient.
const FeatPRDR Feat = 1

// Code is what a callback returns (sfsistat_T, SMTP_R_*): one of the names here, or the code
// of an SMTP reply from 400 to 599.
type Code uint16

// The codes. 421 is SMTP_R_SSD.
const (
	Continue Code = 1   // SMTP_R_CONT: go on
	Accept   Code = 2   // SMTP_R_ACCEPT: go on, and ask no more about the session or the transaction
	Discard  Code = 3   // SMTP_R_DISCARD: accept, and drop
	Replace  Code = 4   // SMTP_R_RPLCMSG, of EOM alone: the callback MsgRplc has a new message
	OK       Code = 250 // SMTP_R_OK: go on
	SSD      Code = 421 // SMTP_R_SSD: end the session
	Temp     Code = 451 // SMTP_R_TEMP: refuse for now
	Perm     Code = 550 // SMTP_R_PERM: refuse

	quickBit Code = 1 << 15
)

// Quick modifies a code (SMTP_R_SET_QUICK): a refusal is not delayed to RCPT although the
// server has delay_checks; OK and Accept override refusals that were delayed, and at Connect
// further checks; Discard of a recipient is one of the transaction (README 3.9.3).
func Quick(c Code) Code { return c | quickBit }

// IsQuick reports whether Quick has modified the code.
func (c Code) IsQuick() bool { return c&quickBit != 0 }

// Plain is the code without Quick.
func (c Code) Plain() Code { return c &^ quickBit }

// Refuses reports a code that is an SMTP reply from 400 to 599.
func (c Code) Refuses() bool { p := c.Plain(); return p >= 400 && p <= 599 }

// valid reports a code that the callback for a command may return.
func (c Code) valid(f FrameType) bool {
	switch p := c.Plain(); p {
	case Continue, Accept, Discard, OK:
		return true
	case Replace:
		return f == FrameEOM
	}
	return c.Refuses()
}

// String is the code in words, or its number.
func (c Code) String() string {
	word := ""
	switch p := c.Plain(); p {
	case Continue:
		word = "continue"
	case Accept:
		word = "accept"
	case Discard:
		word = "discard"
	case Replace:
		word = "replace"
	case OK:
		word = "ok"
	default:
		word = fmt.Sprint(uint16(p))
	}
	if c.IsQuick() {
		return "quick:" + word
	}
	return word
}

// Stage says with which command macros are sent (PM_SMST_*).
type Stage uint8

// The stages.
const (
	StageConnect Stage = iota // PM_SMST_CONNECT
	StageHelo                 // PM_SMST_EHLO
	StageMail                 // PM_SMST_MAIL
	StageRcpt                 // PM_SMST_RCPT
	StageData                 // PM_SMST_DATA
	StageDot                  // PM_SMST_DOT
	Stages                    // how many there are
)

// String is the name of the stage in lower case.
func (s Stage) String() string {
	if s >= Stages {
		return fmt.Sprintf("stage %d", uint8(s))
	}
	return [...]string{"connect", "helo", "mail", "rcpt", "data", "dot"}[s]
}

// Macro is a symbol of the MTA (PMM_*).
type Macro uint32

// The macros of README 15.1.6 in its order, then ours.
const (
	MacroEnd            Macro = iota // PMM_END; no macro
	MacroSrvHostname                 // hostname of the server
	MacroSeID                        // session id
	MacroClientResolve               // OK, FAIL or TEMP
	MacroMailTAID                    // transaction id
	MacroDotMsgID                    // Message-Id
	MacroTLSVersion                  // such as TLSv1.3
	MacroTLSCipherSuite              // as Go and RFC 8446 name it
	MacroTLSCipherBits               // key length
	MacroTLSAlgBits                  // the same: there are no ciphers for export any more
	MacroTLSVrfy                     // result of the verification of the client's certificate
	MacroTLSCertSubject              // its subject
	MacroTLSCertIssuer               // its issuer
	MacroTLSCNSubject                // CN of its subject
	MacroTLSCNIssuer                 // CN of its issuer
	MacroAuthType                    // mechanism of AUTH
	MacroAuthAuthen                  // user
	MacroAuthAuthor                  // AUTH= of MAIL

	// MacroDaemonName is the name of the section smtps. It and the following are ours.
	MacroDaemonName Macro = iota + 100 - 18
	MacroDaemonAddr       // address that the client is connected to
	MacroDaemonPort       // its port
	MacroVersion          // program and version of the server
	MacroProtocol         // SMTP, ESMTP, ESMTPS, …
	MacroClientPtr        // name of the client's address, verified or not; "unknown" for none
)

// macroNames are the names in lower case, without PMM_.
func macroNames() map[Macro]string {
	return map[Macro]string{
		MacroSrvHostname: "srvhostname", MacroSeID: "seid", MacroClientResolve: "client_resolve", MacroMailTAID: "mail_taid",
		MacroDotMsgID: "dot_msgid", MacroTLSVersion: "tls_version", MacroTLSCipherSuite: "tls_cipher_suite",
		MacroTLSCipherBits: "tls_cipher_bits", MacroTLSAlgBits: "tls_alg_bits", MacroTLSVrfy: "tls_vrfy",
		MacroTLSCertSubject: "tls_cert_subject", MacroTLSCertIssuer: "tls_cert_issuer", MacroTLSCNSubject: "tls_cn_subject",
		MacroTLSCNIssuer: "tls_cn_issuer", MacroAuthType: "auth_type", MacroAuthAuthen: "auth_authen", MacroAuthAuthor: "auth_author",
		MacroDaemonName: "daemon_name", MacroDaemonAddr: "daemon_addr", MacroDaemonPort: "daemon_port", MacroVersion: "version",
		MacroProtocol: "protocol", MacroClientPtr: "client_ptr",
	}
}

// Macros are all macros in the order of their numbers.
func Macros() []Macro {
	list := make([]Macro, 0, MacrosMax)
	for m := MacroSrvHostname; m <= MacroClientPtr; m++ {
		if m <= MacroAuthAuthor || m >= MacroDaemonName {
			list = append(list, m)
		}
	}
	return list
}

// String is the name by which MacroByName finds it: that of C without PMM_, in lower case.
func (m Macro) String() string {
	if name, ok := macroNames()[m]; ok {
		return name
	}
	return fmt.Sprintf("macro %d", uint32(m))
}

// MacroByName finds a macro by its name, in any case, with or without PMM_.
func MacroByName(name string) (m Macro, ok bool) {
	name = strings.TrimPrefix(strings.ToLower(name), "pmm_")
	for m, n := range macroNames() {
		if n == name {
			return m, true
		}
	}
	return MacroEnd, false
}

// HeaderMod is a kind of modification of the header (SM_HDRMOD_T_*).
type HeaderMod uint8

// The kinds. Positions are those of README 15.1.9: 1 is the first field of the message as it
// came to the program, 0 the Received: that the server has put on top. They stay the same
// whatever is modified before.
const (
	HeaderPrepend HeaderMod = iota + 1 // above everything, Received: included; has no position
	HeaderInsert                       // before the field at the position; behind the last if there is none
	HeaderReplace                      // in place of the field at the position
	HeaderRemove                       // the field at the position; it has no text
	HeaderAppend                       // behind the last field; has no position
)

// String is the kind in lower case.
func (h HeaderMod) String() string {
	if h < HeaderPrepend || h > HeaderAppend {
		return fmt.Sprintf("modification %d", uint8(h))
	}
	return [...]string{"prepend", "insert", "replace", "remove", "append"}[h-1]
}
