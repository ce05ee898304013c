package maillog

import (
	"time"
)

// Account is what a log tells of one message.
type Account struct {
	Accepted *Acceptance         `json:"accepted,omitempty"` // nil: the log does not tell
	Attempts []Attempt           `json:"attempts"`
	Outcomes map[string]*Outcome `json:"outcomes"` // by recipient id (rcpt_id)
}

// Acceptance is who brought the message, and as whom.
type Acceptance struct {
	Time   time.Time         `json:"time"`
	Fields map[string]string `json:"fields"` // client_ip, client_name, ehlo, user, mail, msgid and so on
}

// Attempt is one attempt to deliver it to one recipient.
type Attempt struct {
	Time  time.Time `json:"time"`
	Rcpt  string    `json:"rcpt"`
	Relay string    `json:"relay,omitempty"`
	Stage string    `json:"stage,omitempty"` // how far the dialogue came
	Reply string    `json:"reply"`
	Took  string    `json:"took,omitempty"` // seconds
	TLS   string    `json:"tls,omitempty"`  // version and cipher of the connection
}

// Outcome is the last thing that the queue says of a recipient.
type Outcome struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"` // delivered, deferred, and so on
	Rcpt  string    `json:"rcpt"`
	Reply string    `json:"reply,omitempty"`
	Ended bool      `json:"ended"` // the recipient is no longer in the queue
}

// sessionFields are those that say who brought a message.
var sessionFields = [...]string{
	"client_ip", "client_name", "client_resolve", "ehlo", "user", "mech", "relay", "check", "map", "key", "value", "starttls",
	"cipher", "verify", "cert_subject", "mail", "msgid", "size", "proxy", "orig_addr", "orig_name",
}

// Tell makes an account of the lines of a story about the transaction ta.
func Tell(ta string, lines []Line) Account {
	a := Account{Attempts: []Attempt{}, Outcomes: map[string]*Outcome{}}
	own := map[string]string{} // of the session that brought it
	tls := map[string]string{} // by session of the client
	for i := range lines {
		l := &lines[i]
		module, event, rcptID := l.Get("module"), l.Get("event"), l.Get("rcpt_id")
		isOwn := messageOf(l) == ta
		switch {
		case module == "smtps" && (messageOf(l) == "" || isOwn):
			for _, name := range sessionFields {
				if v := l.Get(name); v != "" && event != "refused" {
					own[name] = v
				}
			}
			if event == "message" && isOwn {
				a.Accepted = &Acceptance{Time: l.Time, Fields: own}
			}
		case module == "smtpc" && l.Get("starttls") != "":
			tls[l.Get("da_se")] = l.Get("starttls") + " " + l.Get("cipher")
		case module == "smtpc" && isOwn && l.Get("relay") != "" && l.Get("reply") != "":
			a.Attempts = append(a.Attempts, Attempt{
				Time: l.Time, Rcpt: l.Get("rcpt"), Relay: l.Get("relay"), Stage: l.Get("where"), Reply: l.Get("reply"),
				Took: l.Get("xdelay"), TLS: tls[l.Get("da_se")],
			})
		case isOwn && rcptID != "":
			a.Outcomes[rcptID] = &Outcome{
				Time: l.Time, Event: event, Rcpt: l.Get("rcpt"), Reply: l.Get("reply"), Ended: l.Get("stat") == "0" || event == "replaced",
			}
		}
	}
	return a
}
