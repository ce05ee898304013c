package server

import (
	"meta1/mta/smtp"
	"meta1/server/content"
)

// The replies that do not depend on anything. None repeats what the client sent.
var (
	replyQuit      = smtp.NewReply(221, "2.0.0", "Closing connection")
	replyReset     = smtp.NewReply(250, "2.0.0", "Reset")
	replyNoop      = smtp.NewReply(250, "2.0.0", "Ok")
	replyHelp      = smtp.NewReply(214, "2.0.0", "See RFC 5321: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT")
	replyVrfy      = smtp.NewReply(252, "2.5.2", "Cannot VRFY, but will accept message and attempt delivery")
	replyExpn      = smtp.NewReply(502, "5.7.0", "EXPN is not allowed")
	replySender    = smtp.NewReply(250, "2.1.0", "Sender ok")
	replyRecipient = smtp.NewReply(250, "2.1.5", "Recipient ok")
	replyGoAhead   = smtp.NewReply(354, "", "End data with <CR><LF>.<CR><LF>")
	replyStartTLS  = smtp.NewReply(220, "2.0.0", "Ready to start TLS")
	replyForeign   = smtp.NewReply(554, "5.5.1", "This is not an HTTP server")

	replyUnknown       = smtp.NewReply(500, "5.5.1", "Command unknown")
	replyLineLong      = smtp.NewReply(500, "5.5.2", "Line too long")
	replyBadByte       = smtp.NewReply(500, "5.5.2", "Control character in command")
	replyNoArg         = smtp.NewReply(501, "5.5.4", "No argument allowed")
	replyNeedHelo      = smtp.NewReply(501, "5.5.4", "Domain name required")
	replyBadHelo       = smtp.NewReply(501, "5.5.4", "Invalid domain name")
	replySyntax        = smtp.NewReply(501, "5.5.0", "Syntax error") // README 6.3.1
	replyParam         = smtp.NewReply(501, "5.5.4", "Invalid parameter")
	replyTwice         = smtp.NewReply(501, "5.5.4", "Parameter given twice")
	replyNoParam       = smtp.NewReply(555, "5.5.4", "Parameter unknown")
	replyNoEHLO        = smtp.NewReply(503, "5.5.1", "Send EHLO or HELO first")
	replyNoMail        = smtp.NewReply(503, "5.5.1", "Send MAIL first")
	replyInTransaction = smtp.NewReply(503, "5.5.1", "Not allowed in a transaction")
	replyNested        = smtp.NewReply(503, "5.5.1", "Sender already specified")
	replyNoRcpt        = smtp.NewReply(554, "5.5.1", "No valid recipients")
	replyTheft         = smtp.NewReply(550, "5.7.1", "Identity theft: that is my name") // README 6.3.2

	replyCheckNoService = smtp.NewReply(554, "5.7.0", "Rejected") // in place of 220 and 354
	replyCheckTemporary = smtp.NewReply(451, "4.7.0", "Rejected for now, try again later")
	replyCheckAbort     = smtp.NewReply(421, "4.7.0", "Rejected, closing connection")

	replyRejected    = smtp.NewReply(550, "5.7.0", "Rejected") // README 3.9.3
	replyNoTLS       = smtp.NewReply(502, "5.5.1", "STARTTLS is not offered")
	replyTLSNeeded   = smtp.NewReply(530, "5.7.0", "Must issue a STARTTLS command first") // RFC 3207 section 4
	replyTLSTwice    = smtp.NewReply(503, "5.5.1", "TLS is active already")
	replyTLSBusy     = smtp.NewReply(454, "4.7.0", "TLS not available now, too many handshakes")
	replyManyRcpts   = smtp.NewReply(452, "4.5.3", "Too many recipients")
	replyManyHops    = smtp.NewReply(554, "5.4.6", "Too many hops, mail loop assumed")
	replyPipelining  = smtp.NewReply(554, "5.5.0", "Illegal pipelining")
	replyEarly       = smtp.NewReply(554, "5.5.0", "Data sent before the greeting")
	replyDown        = content.ReplyDown
	replyDownSession = smtp.NewReply(421, "4.3.0", "Service not available, try again later")

	// Those that end a session.
	replyBareCommand      = smtp.NewReply(421, "4.5.2", "Lines must end in CR LF")
	replyTLSFirst         = smtp.NewReply(421, "4.7.0", "TLS must begin with the connection on this port")
	replyTLSRecord        = smtp.NewReply(421, "4.7.0", "TLS begins with STARTTLS on this port")
	replyFlood            = smtp.NewReply(421, "4.5.2", "Line too long")
	replyTimeout          = smtp.NewReply(421, "4.4.2", "Timeout, closing connection")
	replyTooBad           = smtp.NewReply(421, "4.7.0", "Too many bad commands, closing connection")
	replyTooIdle          = smtp.NewReply(421, "4.7.0", "Too many commands without effect, closing connection")
	replyTooInvalid       = smtp.NewReply(421, "4.7.0", "Too many invalid addresses, closing connection")
	replyTooManyRcpts     = smtp.NewReply(421, "4.5.3", "Too many recipients, closing connection")
	replyTooManyTransacts = smtp.NewReply(421, "4.5.3", "Too many transactions, closing connection")
)
