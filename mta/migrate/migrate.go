package migrate

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"meta1/mta/migrate/postfix"
)

// Options says how a configuration is translated.
type Options struct {
	// Hostname stands for myhostname where that is not set.
	Hostname string
	// Passwd is the file whose login names are the local users of Postfix; /etc/passwd.
	Passwd string
}

// File is a file that the translation has made.
type File struct {
	Name   string // without a directory
	Text   string
	Secret bool // it has passwords: mode 0600, and it is not to be printed
}

// Result is a translated configuration. Files has meta1.conf first.
type Result struct {
	Files  []File
	Report Report
}

// Postfix translates a configuration. The error is one that Postfix has, too: a value that cannot be
// expanded.
func Postfix(c *postfix.Config, o Options) (*Result, error) {
	m := newMigrator(c, o)
	if err := m.expandAll(); err != nil {
		return nil, err
	}
	m.global()
	m.domains()
	m.recipients()
	m.routes()
	m.networks()
	m.servers()
	m.client()
	m.queue()
	m.unsupported()
	return m.result(), nil
}

// migrator is one translation.
type migrator struct {
	c    *postfix.Config
	opt  Options
	root *section

	mt, access, accessRE, aliases, users, accounts, senders, qmgr *mapFile

	marks map[place]*mark
	rows  *Table
	defs  []string // differences that no parameter is set for
	next  []string

	hostname, origin string
	mydest           []string // the domains of local(8)
	aliasDomains     []string // virtual alias domains
	mailboxDomains   []string // virtual mailbox domains
	lmtpSocket       string   // what LMTP_socket is
	hasLDA           bool
	local            bool // some domain is local for meta1
}

// place is where a parameter is set.
type place struct {
	name string
	file string
	line int
	over string // the service
}

// mark is what became of the parameter that is set at a place.
type mark struct {
	group Group
	to    []string
	notes []string
}

func newMigrator(c *postfix.Config, o Options) *migrator {
	if o.Passwd == "" {
		o.Passwd = "/etc/passwd"
	}
	return &migrator{
		c: c, opt: o, root: &section{}, marks: map[place]*mark{}, rows: NewTable(),
		mt:       newMap("mt", "mailertable: where mail goes (docs/maps.md)."),
		access:   newMap("access", "Access map: who may send, and to whom (docs/maps.md)."),
		accessRE: newMap("access.re", "The patterns of the access map."),
		aliases:  newMap("aliases", "Aliases: what an address stands for. Keys are whole addresses."),
		users:    newMap("local_users", "Addresses of local domains that exist."),
		accounts: &mapFile{name: "accounts", about: "Accounts at other hosts. Nobody but root and the account of meta1 may read this.", secret: true, seen: map[string]int{}},
		senders:  newMap("senders", "Who may use which sender: the address, then accounts."),
		qmgr:     newMap("qmgr_conf", "Limits and features by host, client and domain (docs/maps.md)."),
	}
}

// expandAll finds values that cannot be expanded, before anything is translated.
func (m *migrator) expandAll() error {
	for i := range m.c.Main {
		s := &m.c.Main[i]
		if _, err := m.c.Expand(nil, s.Value); err != nil {
			return fmt.Errorf("%s: %s: %w", s.Where(), s.Name, err)
		}
	}
	for i := range m.c.Services {
		for j := range m.c.Services[i].Overrides {
			s := &m.c.Services[i].Overrides[j]
			if _, err := m.c.Expand(&m.c.Services[i], s.Value); err != nil {
				return fmt.Errorf("%s: %s: %w", s.Where(), s.Name, err)
			}
		}
	}
	return nil
}

// value is the expanded value of a parameter, with blanks between its words.
func (m *migrator) value(s *postfix.Service, name string) string {
	v, _ := m.c.Value(s, name) // expandAll has seen the errors
	return strings.Join(strings.Fields(v), " ")
}

// list divides the value of a parameter.
func (m *migrator) list(s *postfix.Service, name string) []string {
	l, err := postfix.Split(m.value(s, name))
	if err != nil {
		m.note(s, name, NotCarried, err.Error())
	}
	return l
}

// isSet reports whether a file sets a parameter.
func (m *migrator) isSet(s *postfix.Service, name string) bool {
	_, ok := m.c.Set(s, name)
	return ok
}

// yes reports whether a parameter is on.
func (m *migrator) yes(s *postfix.Service, name string) bool {
	return strings.EqualFold(m.value(s, name), "yes")
}

// why says where the value of a parameter comes from, for comments.
func (m *migrator) why(s *postfix.Service, name string) string {
	if set, ok := m.c.Set(s, name); ok {
		return set.Where() + " " + name
	}
	return "Postfix's default of " + name
}

// done notes that a parameter was carried over.
func (m *migrator) done(s *postfix.Service, name, to string) { m.mark(s, name, Carried, to, "") }

// note notes what differs, or why a parameter was not carried over.
func (m *migrator) note(s *postfix.Service, name string, g Group, note string) {
	m.mark(s, name, g, "", note)
}

// mark notes what became of a parameter where it is set; of several for one place the worst group
// holds. One that no file sets has no place in the report.
func (m *migrator) mark(s *postfix.Service, name string, g Group, to, note string) {
	set, ok := m.c.Set(s, name)
	if !ok {
		return
	}
	k := placeOf(s, &set)
	old := m.marks[k]
	if old == nil {
		old = &mark{group: g}
		m.marks[k] = old
	}
	if g.rank() > old.group.rank() {
		old.group = g
	}
	if to != "" && !slices.Contains(old.to, to) {
		old.to = append(old.to, to)
	}
	if note != "" && !slices.Contains(old.notes, note) {
		old.notes = append(old.notes, note)
	}
}

// placeOf is the place of a setting; the service matters if it overrides main.cf.
func placeOf(s *postfix.Service, set *postfix.Setting) place {
	k := place{name: set.Name, file: filepath.Base(set.File), line: set.Line}
	if k.file == "master.cf" && s != nil {
		k.over = s.ID()
	}
	return k
}

// differs adds a difference to Postfix for which no parameter is set.
func (m *migrator) differs(format string, args ...any) {
	if t := fmt.Sprintf(format, args...); !slices.Contains(m.defs, t) {
		m.defs = append(m.defs, t)
	}
}

// todo adds a step before meta1 takes Postfix's place.
func (m *migrator) todo(format string, args ...any) {
	if t := fmt.Sprintf(format, args...); !slices.Contains(m.next, t) {
		m.next = append(m.next, t)
	}
}
