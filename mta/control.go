package mta

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"meta1/confparse"
	"meta1/mta/access"
	"meta1/mta/api"
	"meta1/mta/console"
	"meta1/mta/control"
	"meta1/mta/exit"
	"meta1/mta/msg"
)

// loadControl reads the tokens of the API over TCP. It is called before the privileges are dropped.
func (m *mta) loadControl() error {
	use, err := m.controlKeys(&m.conf.Control)
	if err != nil {
		return exit.With(exit.Config, err)
	}
	use()
	return nil
}

// verifyControl checks the files with tokens of the API over TCP, and warns of those that everybody
// may read.
func verifyControl(c *Config, result *confparse.Result, files *tlsFiles) (errs confparse.Errors) {
	for option, path := range map[string]string{"token_file": c.Control.HTTP.TokenFile, "read_token_file": c.Control.HTTP.ReadTokenFile} {
		if path == "" {
			continue
		}
		at := forHTTP + "/" + option
		content, err := files.token(path)
		if err == nil {
			_, err = access.ParseTokens(content)
		}
		if err != nil {
			errs = append(errs, result.Diagnose(confparse.SeverityError, at, "the tokens in %s cannot be used: %v", path, err))
		} else if mode, err := modeOf(path); err == nil && mode&0o007 != 0 {
			result.Warnings = append(result.Warnings, result.Diagnose(confparse.SeverityWarning, at, "%s holds tokens, and everybody may read or write it (mode %04o)", path, mode.Perm()))
		}
	}
	return errs
}

// controlKeys reads the tokens of the API over TCP. use has it take them, with their configuration.
func (m *mta) controlKeys(c *access.Config) (use func(), err error) {
	tokens := func(option, path string) (access.Tokens, error) {
		if path == "" {
			return nil, nil
		}
		content, err := m.readToken(path)
		if err != nil {
			return nil, fmt.Errorf("%s of section control/http: %w", option, err)
		}
		t, err := access.ParseTokens(content)
		if err != nil {
			return nil, fmt.Errorf("%s of section control/http: %s: %w", option, path, err)
		}
		return t, nil
	}
	change, err := tokens("token_file", c.HTTP.TokenFile)
	if err != nil {
		return nil, err
	}
	read, err := tokens("read_token_file", c.HTTP.ReadTokenFile)
	if err != nil {
		return nil, err
	}
	return func() { m.network.Set(c.HTTP, read, change, m.conf.Hostname) }, nil
}

// localDoor is the door of the Unix socket with the configuration of the last reload.
func (m *mta) localDoor(r *http.Request) access.Who {
	return m.current().conf.Control.Local()(r)
}

// securing is a listener of the API over TCP, whose connections have TLS if that is configured when they come.
type securing struct {
	net.Listener
	m *mta
}

// Accept takes a connection. Its handshake, if there is to be one, has not begun.
func (l *securing) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	p := l.m.provider(forHTTP)
	if err != nil || p == nil {
		return conn, err
	}
	return tls.Server(conn, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := p.ServerConfig().Clone()
		c.NextProtos = []string{"http/1.1"}
		return c, nil
	}}), nil
}

// controlHandler serves the API over TCP.
func (m *mta) controlHandler() http.Handler {
	m.network.Describe = func(r *http.Request) *msg.TLS {
		p := m.provider(forHTTP)
		if p == nil { // TLS has gone while the connection was open
			return nil
		}
		return p.Describe(r.TLS)
	}
	alone := control.Handler(m, m.network.Door, m.log)
	withConsole := console.Handler(alone, m.network.Foreign)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.current().conf.Control.HTTP.Console {
			withConsole.ServeHTTP(w, r)
		} else {
			alone.ServeHTTP(w, r)
		}
	})
}

// makeAPI makes what answers by the ports of the modules.
func (m *mta) makeAPI() {
	m.API = api.New(api.Deps{
		List: m.ports.List.Ask, Hosts: m.Hosts, Now: time.Now,
		Gate: &m.ports.Gate, Throttles: &m.ports.Throttles, Stop: m.beginStop, Log: m.log,
		Handover: &m.ports.Handover, CheckPeer: m.checkPeer,
		Flush: func(ctx context.Context) error {
			_, err := m.operateAll(ctx, msg.OpFlush)
			return err
		},
		Reroute: func(ctx context.Context) (int, error) { return m.operateAll(ctx, msg.OpReroute) },
		Modules: func(ctx context.Context, q msg.StatusQ) map[string]msg.StatusA {
			all := map[string]msg.StatusA{}
			for _, u := range m.tree.Status() {
				if a, err := m.askFor(ctx, u.Name, q); err == nil {
					all[u.Name] = a
				}
			}
			return all
		},
		LogFiles: func() ([]string, error) {
			now, _, err := LogFiles(m.result.File)
			return now, err
		},
	}, m.started)
}

// operateAll does something to all recipients, and tells how many could not be reached.
func (m *mta) operateAll(ctx context.Context, op msg.Operation) (busy int, err error) {
	a, err := m.ports.Operate.Ask(ctx, msg.OperateQ{Op: op})
	if err == nil && a.Err != "" {
		err = errors.New(a.Err)
	}
	return a.Busy, err
}

// checkPeer says why mail cannot be handed over to an MTA: its name cannot be read, or leads nowhere now.
func (m *mta) checkPeer(ctx context.Context, peer string) error {
	a, err := m.ports.Route.Ask(ctx, msg.RouteQ{Via: peer})
	if err == nil && len(a.Hops) == 0 {
		err = fmt.Errorf("mail cannot be handed over to %q: %s", peer, a.Reply.Text())
	}
	return err
}

// Config is the configuration in effect: that of the start, with what reloads have changed.
func (m *mta) Config(_ context.Context, defaults bool) []confparse.Shown {
	list := []confparse.Shown{}
	m.current().result.Each(func(s *confparse.Section, v *confparse.Setting) {
		if v.IsSet || defaults {
			list = append(list, v.Shown(s))
		}
	})
	return list
}
