package queue

import (
	"reflect"

	"meta1/mta/msg"
)

// lookBack bounds the recipients of a message that are passed over in search of those
// that may share a delivery.
const lookBack = 8

// together tells whether recipients with these entries of smtpc_rcpt_conf: may share a
// transaction: only if the entries agree in what holds for all of it. That is the class
// of the session, and requirements whose violation ends the transaction and not the
// recipient alone (README 3.11.1); without violation the option of smtpc decides, which
// may say so.
func together(a, b *msg.Conf) bool {
	if feature(a) != feature(b) {
		return false
	}
	return !endsAll(a) && !endsAll(b) || reflect.DeepEqual(a, b)
}

func feature(c *msg.Conf) string {
	if c == nil {
		return ""
	}
	return c.SessionFeature
}

func endsAll(c *msg.Conf) bool {
	return c != nil && c.TLS != nil && (c.TLS.Delay || c.TLS.Violation == "" || c.TLS.Violation == "abort")
}

// rcptConfs are the entries of recipients, nil if none has one.
func rcptConfs(rcpts []*rcpt) []*msg.Conf {
	var list []*msg.Conf
	for i, r := range rcpts {
		if r.conf == nil {
			continue
		}
		if list == nil {
			list = make([]*msg.Conf, len(rcpts))
		}
		list[i] = r.conf
	}
	return list
}
