package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"meta1/confparse"
	"meta1/mta"
	"meta1/mta/control"
	"meta1/mta/submit"
)

func sendmailCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "sendmail [flags] [recipient ...]", Short: "Send a message from standard input", DisableFlagParsing: true,
		Long: `sendmail takes a message as sendmail(8) does and hands it to the SMTP server of the running
meta1. It keeps no queue of its own: the exit status says whether the message was taken.

  -t            take recipients from To, Cc and Bcc, too
  -i, -oi       a line of a single dot does not end the message
  -f sender     envelope sender; <> for none
  -F name       full name for a From field that is added
  -N, -R, -V    DSN parameters: notify, return, envelope id
  -bp           list the queue, as mailq does
  -bi           read the maps anew, as ctl reload does
  -q            try everything in the queue now, as queue flush --all does
  -C file       configuration by which the running meta1 is found
  --server addr host:port or path of a socket, instead of asking meta1

Other flags of sendmail(8) are accepted and change nothing.`,
		RunE: func(c *cobra.Command, args []string) error { return sendmail(c, e, args) },
	}
}

func sendmail(c *cobra.Command, e *Env, args []string) error {
	own, args, err := ownFlags(args)
	if err != nil {
		return err
	}
	if own.help {
		return c.Help()
	}
	o, mode, err := submit.ParseArgs(args)
	if err != nil {
		return &statusError{submit.ExitCode(err), fmt.Errorf("%w\n%s", err, submit.Usage())}
	}
	switch mode {
	case submit.ModeSubmit:
		return submitMessage(c.Context(), e, o, own)
	case submit.ModeList:
		return run(c, "mailq", own.file)
	case submit.ModeNewaliases:
		return run(c, "ctl reload", own.file)
	default:
		return run(c, "queue flush --all", own.file)
	}
}

// run runs another command of meta1.
func run(c *cobra.Command, command, file string) error {
	args := strings.Fields(command)
	if file != "" {
		args = append(args, "-f", file)
	}
	root := c.Root()
	root.SetArgs(args)
	return root.ExecuteContext(c.Context())
}

// ownOptions are the options of meta1 sendmail that sendmail(8) does not have, or has
// for a configuration of its own.
type ownOptions struct {
	file, server string
	help         bool
}

// ownFlags takes the options of ours out of the arguments.
func ownFlags(args []string) (own ownOptions, rest []string, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		name, value, attached := strings.Cut(arg, "=")
		switch {
		case arg == "--":
			return own, append(rest, args[i:]...), nil
		case arg == "--help":
			own.help = true
		case arg == "-C" || arg == "--server":
			if i++; i == len(args) {
				return own, nil, &usageError{fmt.Errorf("%s needs a value", arg)}
			}
			own.set(arg, args[i])
		case attached && name == "--server":
			own.set(name, value)
		case strings.HasPrefix(arg, "-C"):
			own.set("-C", arg[2:])
		default:
			rest = append(rest, arg)
		}
	}
	return own, rest, nil
}

func (o *ownOptions) set(name, value string) {
	if name == "-C" {
		o.file = value
	} else {
		o.server = value
	}
}

func submitMessage(ctx context.Context, e *Env, o submit.Options, own ownOptions) error {
	if len(o.Rcpts) == 0 && !o.FromHeader {
		return &statusError{submit.ExUsage, fmt.Errorf("no recipients\n%s", submit.Usage())}
	}
	o.Input, o.Addr, o.User = e.Stdin, own.server, loginName()
	if o.Addr == "" {
		var err error
		if o.Addr, o.Hostname, err = findServer(ctx, own.file); err != nil {
			return &statusError{mta.ExTempFail, err}
		}
	}
	if o.Hostname == "" {
		o.Hostname = plainHostname()
	}
	if err := submit.Submit(ctx, o); err != nil {
		return &statusError{submit.ExitCode(err), fmt.Errorf("message not sent: %w", err)}
	}
	return nil
}

// loginName is the name of who calls us.
func loginName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

func plainHostname() string {
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "localhost"
}

// errNoServer says that the running meta1 takes no mail.
var errNoServer = errors.New("meta1 has no SMTP server (section smtps)")

// findServer asks the running meta1 where it takes mail and what it is called. Who
// may not ask, or if it does not run, finds the address in the configuration.
func findServer(ctx context.Context, file string) (addr, host string, err error) {
	var s control.Status
	err = withClient(file, func(k *control.Client) (err error) {
		s, err = k.Status(ctx)
		return err
	})
	if err != nil {
		if addr, ok := configuredServer(file); ok {
			return addr, "", nil
		}
		return "", "", err
	}
	for _, l := range s.Listen {
		if section, _, _ := strings.Cut(l.Section, " "); section == "smtps" {
			return reachable(l), s.Hostname, nil
		}
	}
	return "", "", errNoServer
}

// configuredServer is the first address of a section smtps of the configuration.
func configuredServer(file string) (string, bool) {
	if file == "" {
		file = configFile()
	}
	if file == "" {
		return "", false
	}
	c, _, err := mta.Load(file, confparse.LoadOptions{})
	if err != nil {
		return "", false
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
			return reachable(control.Socket{Network: "tcp", Address: net.JoinHostPort(host, strconv.Itoa(l.Port))}), true
		}
	}
	return "", false
}

// reachable is the address to connect to from this host: a socket that is bound to
// all addresses is bound to the loopback address as well.
func reachable(l control.Socket) string {
	host, port, err := net.SplitHostPort(l.Address)
	if l.Network == "unix" || err != nil {
		return l.Address
	}
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}
