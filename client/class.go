package client

import (
	"crypto/x509"
	"time"

	"meta1/client/auth"
	"meta1/client/socks"
	"meta1/confparse"
	"meta1/mta/msg"
	"meta1/mta/tlsconf"
)

// class is how sessions are held: as the flags of section smtpc say, or as a section
// session_features does, which changes some of them (README 3.11, item 5, and 8.6,
// item 3).
type class struct {
	name         string // "" for that of section smtpc
	smtps        bool   // implicit TLS
	starttls     bool   // STARTTLS is used if it is offered
	tls          *tlsconf.Provider
	timing       bool
	readQuit     bool
	separateQuit bool
	talkToMyself bool
	chunking     bool         // BDAT may be used
	auth         *auth.Config // nil: nothing is authenticated
	// What else a connection was made with, so that a reload knows which ones are as before.
	section tlsconf.Section
	roots   *x509.CertPool
	proxy   *socks.Config // nil: none

	retired bool // a reload has put another in its place; guarded by pool.mu
}

// leavingFor is how long a class that a reload has taken out is there for deliveries that were decided on before: QMGR learns of
// the reload a moment later than SMTPC. It is short, since an entry of a map that still names the class is a mistake to be told.
const leavingFor = time.Minute

// leaving is a class that a reload has taken out.
type leaving struct {
	*class
	until time.Time
}

// class is the class of a name; nil: there is none.
func (c *Client) class(name string, now time.Time) *class {
	if cl := c.classes[name]; cl != nil {
		return cl
	}
	if was, ok := c.leaving[name]; ok && now.Before(was.until) {
		return was.class
	}
	return nil
}

// leave notes the classes that a former Client has and that are not in this one.
func (c *Client) leave(former *Client, now time.Time) {
	c.leaving = map[string]leaving{}
	for name, was := range former.leaving {
		if c.classes[name] == nil && now.Before(was.until) {
			c.leaving[name] = was
		}
	}
	for name, cl := range former.classes {
		if c.classes[name] == nil {
			c.leaving[name] = leaving{cl, now.Add(leavingFor)}
		}
	}
}

// classes are the class of section smtpc under "", and those of its session_features.
func (c *Config) classes(deps *Deps) map[string]*class {
	general := class{
		smtps: c.SMTPS, starttls: true, tls: deps.TLS,
		timing: c.Timing, readQuit: c.ReadQuitReply,
		separateQuit: c.SeparateFinalDotAndQuit, talkToMyself: c.TalkToMyself,
		chunking: c.Chunking != chunkingNever,
		section:  c.TLS, roots: deps.Roots,
	}
	if c.ProxyPresent {
		general.proxy = &c.Proxy
	}
	if c.AuthPresent {
		general.auth = &c.Auth
	}
	all := map[string]*class{"": &general}
	for i := range c.SessionFeatures {
		f := &c.SessionFeatures[i]
		all[f.Name] = &class{
			name:         f.Name,
			tls:          general.tls,
			smtps:        confparse.HasFlag(f.Flags, "smtps", general.smtps),
			starttls:     confparse.HasFlag(f.Flags, "starttls", general.starttls),
			timing:       confparse.HasFlag(f.Flags, "timing", general.timing),
			readQuit:     confparse.HasFlag(f.Flags, "read_QUIT_reply", general.readQuit),
			separateQuit: confparse.HasFlag(f.Flags, "separate_final_dot_and_QUIT", general.separateQuit),
			chunking:     confparse.HasFlag(f.Flags, "chunking", general.chunking),
			talkToMyself: confparse.HasFlag(f.Flags, "talk_to_myself", general.talkToMyself),
			section:      f.TLS.Over(c.TLS), roots: general.roots, proxy: general.proxy,
		}
		all[f.Name].auth = c.authOf(f)
		if p := deps.TLSClasses[f.Name]; p != nil {
			all[f.Name].tls = p
		}
	}
	return all
}

// className is the class that the entries of a request select: that of a recipient,
// else that of the host. QMGR gives no two recipients of different classes.
func className(q *msg.DeliverQ) string {
	for _, rc := range q.RcptConf {
		if rc != nil && rc.SessionFeature != "" {
			return rc.SessionFeature
		}
	}
	if q.SessionConf != nil {
		return q.SessionConf.SessionFeature
	}
	return ""
}

// authOf is the section auth of a class; nil for none.
func (c *Config) authOf(f *SessionFeature) *auth.Config {
	switch {
	case !confparse.HasFlag(f.Flags, "auth", true):
		return nil
	case f.AuthPresent:
		return &f.Auth
	case c.AuthPresent:
		return &c.Auth
	}
	return nil
}
