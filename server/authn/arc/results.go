package arc

import (
	"strings"

	"meta1/server/authn"
	"meta1/server/dkim"
)

// own are the results of this host for a message.
type own struct {
	payload string // authserv-id and results, as they stand behind i=
	chain   string // the result for ARC, "" for none
}

// ownResults gathers the Authentication-Results: fields above the first Received: field, which this
// host made. Those of another authserv-id than the first one's, which a filter may have added, are
// left out: a set speaks for one (RFC 8617 section 5.1).
func ownResults(h dkim.Header, host string) own {
	o, id, some := own{}, "", false
	for _, f := range h {
		if f.Name == "received" {
			break
		}
		if f.Name != "authentication-results" {
			continue
		}
		r, err := authn.Parse(f.Value())
		switch {
		case err != nil:
			continue
		case id == "":
			id, o.payload = strings.ToLower(r.ID), spaced(strings.TrimRight(f.Value(), "; \t\r\n"))
		case strings.ToLower(r.ID) != id:
			continue
		default: // what is behind the authserv-id
			_, results, _ := strings.Cut(string(authn.Append(nil, "x", r.Results)), ";")
			o.payload += ";" + strings.TrimRight(results, "\r\n")
		}
		some = some || len(r.Results) > 0
		if all := authn.Of(r.Results, authn.ARC); len(all) > 0 && o.chain == "" {
			o.chain = all[0].Value
		}
	}
	switch {
	case id == "":
		o.payload = " " + host + "; none"
	case !some && !strings.Contains(o.payload, ";"):
		o.payload += "; none"
	}
	return o
}

// spaced is text with white space in front.
func spaced(s string) string {
	if s == "" || strings.ContainsAny(s[:1], " \t\r") {
		return s
	}
	return " " + s
}
