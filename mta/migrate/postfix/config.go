package postfix

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// Setting is one parameter as a file sets it.
type Setting struct {
	Name, Value string
	File        string // main.cf or master.cf, with its directory
	Line        int    // the first line of it, from 1
}

// Where is file and line, as in errors.
func (s *Setting) Where() string { return fmt.Sprintf("%s:%d", filepath.Base(s.File), s.Line) }

// Service is an entry of master.cf.
type Service struct {
	Name, Type string // smtp and inet; the type pass is that of a server behind postscreen
	Chroot     bool   // whether it runs in the queue directory, where absolute paths begin then
	MaxProc    string // the limit of processes; - for the default
	Command    string // smtpd, smtp, lmtp, postscreen, pipe, ...
	Args       []string
	Overrides  []Setting // by -o; of several for one name the last one holds
	Line       int
}

// ID is what postconf -M calls the service: smtp/inet.
func (s *Service) ID() string { return s.Name + "/" + s.Type }

// Config is what main.cf and master.cf say.
type Config struct {
	Dir      string
	Main     []Setting // of several for one name the last one holds
	Services []Service
	// Defaults are the values of parameters that nobody sets; New fills it with those of Postfix 3.7.
	Defaults map[string]string
}

// Load reads main.cf and master.cf of a directory. Both must be there. An error names file and line.
func Load(dir string) (*Config, error) {
	c := New()
	c.Dir = dir
	main, master := filepath.Join(dir, "main.cf"), filepath.Join(dir, "master.cf")
	if err := readFile(main, maxConf, func(l line) error { return c.addMain(main, l) }); err != nil {
		return nil, err
	}
	if err := readFile(master, maxConf, func(l line) error { return c.addMaster(master, l) }); err != nil {
		return nil, err
	}
	return c, nil
}

// Parse reads main.cf and master.cf from readers, as Load does from files.
func Parse(main, master io.Reader) (*Config, error) {
	c := New()
	if err := readLines(main, maxConf, func(l line) error { return c.addMain("main.cf", l) }); err != nil {
		return nil, fmt.Errorf("main.cf: %w", err)
	}
	if err := readLines(master, maxConf, func(l line) error { return c.addMaster("master.cf", l) }); err != nil {
		return nil, fmt.Errorf("master.cf: %w", err)
	}
	return c, nil
}

// New is a configuration in which nothing is set.
func New() *Config { return &Config{Defaults: defaults()} }

func (c *Config) addMain(file string, l line) error {
	if len(c.Main) >= maxSettings {
		return fmt.Errorf("line %d: more than %d parameters", l.number, maxSettings)
	}
	s, err := setting(l.text)
	if err != nil {
		return fmt.Errorf("line %d: %w", l.number, err)
	}
	s.File, s.Line = file, l.number
	c.Main = append(c.Main, s)
	return nil
}

// setting reads name = value.
func setting(text string) (Setting, error) {
	name, value, ok := strings.Cut(text, "=")
	name = strings.TrimSpace(name)
	switch {
	case !ok:
		return Setting{}, fmt.Errorf("%.60q has no = behind the name of the parameter", firstWord(text))
	case name == "" || strings.ContainsAny(name, " \t\r\n"):
		return Setting{}, fmt.Errorf("%.60q is not the name of a parameter", name)
	}
	return Setting{Name: name, Value: strings.TrimSpace(value)}, nil
}

// firstWord is what may be shown of a line that cannot be read: what follows may be a secret.
func firstWord(text string) string {
	w, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	return w
}

func (c *Config) addMaster(file string, l line) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("line %d: %s", l.number, fmt.Sprintf(format, args...))
	}
	if len(c.Services) >= maxSettings {
		return fail("more than %d services", maxSettings)
	}
	fields, err := fields(l.text)
	if err != nil {
		return fail("%v", err)
	}
	if len(fields) < 8 {
		return fail("an entry has 8 fields, and this one has %d", len(fields))
	}
	s := Service{Name: fields[0], Type: fields[1], Chroot: fields[4] == "y", MaxProc: fields[6], Command: fields[7], Line: l.number}
	args := fields[8:]
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-o") || s.Command == "pipe" {
			s.Args = append(s.Args, arg)
			continue
		}
		text := arg[2:]
		if text == "" {
			if i++; i == len(args) {
				return fail("-o without name=value")
			}
			text = args[i]
		}
		o, err := setting(unbrace(text))
		if err != nil {
			return fail("-o: %v", err)
		}
		o.File, o.Line = file, l.number
		s.Overrides = append(s.Overrides, o)
	}
	c.Services = append(c.Services, s)
	return nil
}

// unbrace takes the braces of { text } away.
func unbrace(s string) string {
	if len(s) >= 2 && s[0] == '{' && s[len(s)-1] == '}' {
		return strings.TrimSpace(s[1 : len(s)-1])
	}
	return s
}

// Set reports where a parameter is set: by the service's overrides, if there is one, else by
// main.cf. ok is false if it is not, so that its default holds.
func (c *Config) Set(s *Service, name string) (Setting, bool) {
	if s != nil {
		for i := len(s.Overrides) - 1; i >= 0; i-- {
			if s.Overrides[i].Name == name {
				return s.Overrides[i], true
			}
		}
	}
	for i := len(c.Main) - 1; i >= 0; i-- {
		if c.Main[i].Name == name {
			return c.Main[i], true
		}
	}
	return Setting{}, false
}

// raw is the value of a parameter before expansion.
func (c *Config) raw(s *Service, name string) (string, bool) {
	if set, ok := c.Set(s, name); ok {
		return set.Value, true
	}
	v, ok := c.Defaults[name]
	return v, ok
}

// Value is the expanded value of a parameter as a service sees it; s is nil for what main.cf alone
// says. A parameter that nobody knows is empty.
func (c *Config) Value(s *Service, name string) (string, error) {
	v, _ := c.raw(s, name)
	out, err := c.Expand(s, v)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}
