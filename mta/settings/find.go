package settings

import (
	"net"
	"path/filepath"
	"strconv"

	"meta1/confparse"
)

// DefaultSocket is the control socket of a configuration that sets nothing.
const DefaultSocket = DefaultDirectory + "/" + defaultControl

// defaultControl is the default of the option control_socket of qmgr.
const defaultControl = "control"

// Found is what a configuration tells of the meta1 that runs with it.
type Found struct {
	Socket   string   // the control socket; "" if there is none
	Hostname string   // "" for the host's own name
	Servers  []string // where SMTP is served, host:port; host is "" for all addresses
	Maildrop string   // where mail is left for it; "" for nowhere
}

// Find reads a configuration in order to find the meta1 that runs with it. It does so as
// far as the file can be read: one who asks a running meta1 must not be kept away by a
// mistake that somebody has made in its file since it was started. What cannot be
// understood has its default. The error is for a file that cannot be read at all.
func Find(file string) (Found, error) {
	c := &Config{}
	result, err := confparse.Load(confparse.LoadOptions{Partial: true}, file, c.Options())
	if result.Root == nil {
		return Found{}, err
	}
	dir, err := filepath.Abs(Understood(result.Root, "working_directory", DefaultDirectory))
	if err != nil {
		return Found{}, err
	}
	found := Found{Hostname: Understood(result.Root, "hostname", ""), Maildrop: dropOf(result.Root, dir)}
	socket := defaultControl
	for _, s := range result.Root.Subs {
		if s.Keyword == "qmgr" {
			socket = Understood(s, "control_socket", socket)
		}
	}
	if socket != "" {
		found.Socket = Below(dir, socket)
	}
	for _, s := range c.Servers {
		for _, l := range s.Of.Listen {
			if l.Type == "unix" || l.Port == 0 {
				continue
			}
			host := ""
			if l.Address.IsValid() {
				host = l.Address.String()
			}
			found.Servers = append(found.Servers, net.JoinHostPort(host, strconv.Itoa(l.Port)))
		}
	}
	return found, nil
}

// Understood is the value of a string option, or another one if that could not be read.
func Understood(s *confparse.Section, option, otherwise string) string {
	if v := s.Setting(option); v != nil {
		if text, ok := v.Value.(string); ok {
			return text
		}
	}
	return otherwise
}
