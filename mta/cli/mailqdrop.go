package cli

import (
	"meta1/mta/control"
	"meta1/mta/maildrop"
	"meta1/mta/msg"
	"meta1/mta/settings"
)

// stateMaildrop is the state of what meta1 has not taken up yet.
const stateMaildrop = msg.QueueState("maildrop")

// maildrop is the directory in which mail is left for the meta1 that is asked; "" if there is none.
func (t *target) maildrop() string {
	file := t.config()
	if file == "" || t.socket != "" {
		return ""
	}
	f, _ := settings.Find(file) // it was told already why it cannot be read
	return f.Maildrop
}

// addMaildrop adds the messages of a directory that can be listed, and says how many there are.
func (l *lister) addMaildrop(dir string) (n int, err error) {
	if dir == "" {
		return 0, nil
	}
	all, err := maildrop.Waiting(dir)
	if err != nil {
		return 0, nil // it does not exist, or is not for us to see
	}
	for _, m := range all {
		for _, r := range m.Rcpts {
			e := control.Entry{TA: m.ID, Sender: m.Sender, Rcpt: r, Arrival: m.Time, Size: int64(m.Size), State: stateMaildrop}
			if err := l.add(e); err != nil {
				return n, err
			}
		}
		n++
	}
	return n, nil
}
