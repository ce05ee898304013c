package resolver

import (
	"strings"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// senderLogin checks that the client may use the sender (option sender_login, as
// Postfix's smtpd_sender_login_maps with reject_sender_login_mismatch): an account only
// the senders whose entry names it, and who did not authenticate only those without an
// entry, unless the session may relay because of what else is known of the client.
func (c *checker) senderLogin() bool {
	from, account := c.q.Mail.From, c.q.Client.Auth.User
	name := c.rules.SenderLogin
	step := msg.Step{Check: "sender_login", Map: name, Key: from.Addr()}
	m := c.set.maps[name]
	if m == nil {
		step.Effect = "the map cannot be used"
		return c.reject(step, smtp.NewReply(451, "4.3.0", "sender_login map lookup failed"))
	}
	if m.Blocking() && c.wait() {
		return false
	}
	key, _, value, res := maps.FindAddress(c.ctx, m, "", c.split(c.set, from), maps.AllAddress&^maps.LocalPart)
	if res.Failed() {
		step.Effect = res.String()
		return c.reject(step, smtp.NewReply(451, "4.3.0", "sender_login map lookup failed"))
	}
	if res == maps.OK {
		step.Key, step.Value = key, value
	}
	switch {
	case account == "" && res != maps.OK:
		step.Effect = "nobody's sender"
	case account == "" && c.q.Relaying:
		step.Effect = "the session may relay without AUTH"
	case account == "":
		step.Effect = "the sender is for those who authenticate"
		return c.reject(step, smtp.NewReply(553, "5.7.1", "Sender address needs authentication"))
	case owns(value, account):
		step.Effect = "the sender is the account's"
	default:
		step.Effect = "the sender is not that of account " + account
		return c.reject(step, smtp.NewReply(553, "5.7.1", "Sender address is not yours"))
	}
	c.step(step)
	return false
}

// owns reports whether a list of accounts, with blanks or commas between, has one.
func owns(list, account string) bool {
	for _, name := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		if maps.Lower(name) == maps.Lower(account) {
			return true
		}
	}
	return false
}
