// Package verdict says what the answer to an attempt means: for the host that was tried, and for each
// recipient. It is pure, and knows neither messages nor what is done about it.
package verdict

import (
	"slices"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/sched"
)

// Attempt is a delivery attempt that has ended.
type Attempt struct {
	Hop   *msg.Hop
	Rcpts int
	Conf  []*msg.Conf   // of each recipient; nil if none has one
	A     *msg.DeliverA // the answer of SMTPC
	Err   error         // SMTPC did not answer, though it took the question; nil if it did
	Down  bool          // SMTPC does not run, or has ended meanwhile
}

// Host is what it says of its host.
func (t *Attempt) Host() sched.Result {
	a := t.A
	res := sched.Result{Reused: t.Err == nil && a.Reused, Keeps: t.Err == nil && !t.Down && !a.HostFailed && a.Stage > msg.DeliverConnect}
	if t.Err == nil && !t.Down {
		res.TLS = t.tls()
		switch {
		case a.NoNetwork:
			res.Reach = sched.NoNetwork
		case a.NoAnswer:
			res.Reach = sched.NoAnswer
		case a.Stage > msg.DeliverConnect && a.Session != "":
			res.Reach = sched.Reached
		}
		if !a.SlowDown.IsZero() {
			res.SlowDown = a.SlowDown.String()
		}
	}
	switch {
	case t.Down, t.Err == nil && !a.HostFailed && a.HostBusy == 0 && a.Stage == msg.DeliverConnect:
		res.Verdict = sched.NotTried
	case t.Err != nil:
		res.Verdict = sched.Unknown
	case a.HostBusy > 0:
		res.Verdict, res.Others, res.Reason = sched.TooMany, a.HostBusy, t.hostReply().String()
	case a.HostFailed:
		res.Verdict, res.Reason = sched.HostFailed, t.hostReply().String()
	default:
		res.Verdict = sched.Served
	}
	return res
}

// tls is the TLS of the session, zero if there was none.
func (t *Attempt) tls() msg.HostTLS {
	a := t.A
	switch {
	case a.Session == "" || a.Stage < msg.DeliverMail:
		return msg.HostTLS{}
	case a.TLS.Level == msg.TLSNone:
		return msg.HostTLS{Version: "none"}
	case a.TLS.Level == msg.TLSVerified && t.Hop.STS == msg.STSEnforce:
		return msg.HostTLS{Version: a.TLS.Version, Verify: "MTA-STS"}
	}
	return msg.HostTLS{Version: a.TLS.Version, Verify: a.TLS.Level.String()}
}

// hostReply is a reply that tells what is wrong with the host: one for a recipient without
// requirements, which SMTPC may have answered for itself.
func (t *Attempt) hostReply() smtp.Reply {
	for i := range t.Rcpts {
		if conf := t.Conf; conf == nil || conf[i] == nil || conf[i].TLS == nil {
			return t.Reply(i)
		}
	}
	return t.Reply(0)
}

// Refused reports whether temporary failures are those of an SMTP host that refused the mail
// before it got the content. Then one more host of the route is tried (RFC 5321 section 5.1,
// and Postfix's smtp_mx_session_limit of two): the first may be the only one with a full disk,
// or with a broken table of users. A host that failed as a whole does not count: all others
// are tried, up to hosts_per_attempt_max.
func (t *Attempt) Refused() bool {
	a := t.A
	if t.Err != nil || a.HostFailed || a.Unknown || t.Hop.Protocol != msg.ProtoSMTP || a.Stage < msg.DeliverMail {
		return false
	}
	// After the content all recipients share one reply: if one was positive, the others were
	// refused before.
	return a.Stage < msg.DeliverDot || slices.ContainsFunc(a.Rcpts, smtp.Reply.Accepted)
}

// Reply is what became of recipient i.
func (t *Attempt) Reply(i int) smtp.Reply {
	if t.Err != nil || i >= len(t.A.Rcpts) || t.A.Rcpts[i].IsZero() {
		text := "the delivery agent gave no answer"
		if t.Err != nil {
			text += ": " + t.Err.Error()
		}
		return smtp.NewReply(451, "4.3.0", text)
	}
	return t.A.Rcpts[i]
}

// Remote names the host that gave the replies, "" if the client gave them itself.
func (t *Attempt) Remote() string {
	hop := t.Hop
	switch {
	case t.A.HostFailed || t.A.Own || t.Err != nil || t.A.Stage < msg.DeliverMail:
		return ""
	case hop.Socket != "":
		return hop.Socket
	case hop.Host != "":
		return hop.Host
	default:
		return "[" + hop.Addr.Addr().String() + "]"
	}
}
