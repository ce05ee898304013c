package client

import (
	"meta1/confparse"
	"meta1/mta/msg"
)

// class is how sessions are held: as the flags of section smtpc say, or as a section
// session_features does, which changes some of them (README 3.11, item 5, and 8.6,
// item 3).
type class struct {
	name         string // "" for that of section smtpc
	smtps        bool   // the class demands implicit TLS
	timing       bool
	readQuit     bool
	separateQuit bool
	talkToMyself bool
}

// classes are the class of section smtpc under "", and those of its session_features.
// The flag smtps of section smtpc is not in effect, so it does not count here.
func (c *Config) classes() map[string]*class {
	general := class{
		timing: c.Timing, readQuit: c.ReadQuitReply,
		separateQuit: c.SeparateFinalDotAndQuit, talkToMyself: c.TalkToMyself,
	}
	all := map[string]*class{"": &general}
	for i := range c.SessionFeatures {
		f := &c.SessionFeatures[i]
		all[f.Name] = &class{
			name:         f.Name,
			smtps:        confparse.HasFlag(f.Flags, "smtps", false),
			timing:       confparse.HasFlag(f.Flags, "timing", general.timing),
			readQuit:     confparse.HasFlag(f.Flags, "read_QUIT_reply", general.readQuit),
			separateQuit: confparse.HasFlag(f.Flags, "separate_final_dot_and_QUIT", general.separateQuit),
			talkToMyself: confparse.HasFlag(f.Flags, "talk_to_myself", general.talkToMyself),
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
