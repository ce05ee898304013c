package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"meta1/mta/control"
	"meta1/mta/settings"
	"meta1/mta/submit"
)

func sendmailCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "sendmail [flags] [recipient ...]", Short: "Send a message from standard input", DisableFlagParsing: true,
		Long: `sendmail takes a message as sendmail(8) does and hands it to the SMTP server of the running
meta1. If that does not run, or takes nothing for now, the message is left in the maildrop, from
which meta1 takes it up later. The exit status (sysexits) says whether the message was taken or kept.

  -t            take recipients from To, Cc and Bcc, too; Bcc is taken out
  -i, -oi       a line of a single dot does not end the message
  -f sender     envelope sender; <> for none
  -F name       full name for a From field that is added
  -N, -R, -V    DSN parameters: notify, return, envelope id
  -XV           a sender that names the recipient in each copy (VERP)
  -v            show the dialogue with the server
  -bs           speak SMTP on standard input and output
  -bv           ask the server whether it would take the recipients; send nothing
  -bp           list the queue, as mailq does
  -bi           read the maps anew, as ctl reload does
  -q            try everything in the queue now, as queue flush --all does
  -C file       configuration by which the running meta1 is found
  --server addr host:port or path of a socket, instead of asking meta1; then there is no maildrop

Other flags of sendmail(8) are accepted and change nothing; what is no flag of it is refused.
docs/sendmail.md tells more.`,
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
	case submit.ModeSMTP:
		return speakSMTP(c.Context(), e, own)
	case submit.ModeVerify:
		return verifyAddresses(c, e, o, own)
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
	return runArgs(c, strings.Fields(command), file)
}

func runArgs(c *cobra.Command, args []string, file string) error {
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

// loginName is the name of who calls us.
func loginName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

// errNoServer says that the running meta1 takes no mail.
var errNoServer = errors.New("meta1 has no SMTP server (section smtps)")

// found is where mail can be handed over.
type found struct {
	addr     string // of the server; "": none is known
	host     string // its name
	maildrop string // "": there is none
	err      error  // why no server is known
}

// findServer says where the running meta1 takes mail and what it is called, and where mail is left for it. Who may not
// ask it finds that in the configuration, and so does
// who names a server: then the message must look as if it came from this one.
func findServer(ctx context.Context, own ownOptions) (f found) {
	to := target{file: own.file}
	var s control.Status
	if own.server == "" {
		f.err = to.ask(func(k *control.Client) (err error) {
			s, err = k.Status(ctx)
			return err
		})
	}
	var conf settings.Found
	if file := to.config(); file != "" {
		conf, _ = settings.Find(file) // to.ask has said why it cannot be read
	}
	f.host = cmp.Or(s.Hostname, conf.Hostname)
	if f.host == "" {
		f.host = settings.OwnHostname(ctx)
	}
	if own.server != "" {
		f.addr = own.server
		return f
	}
	f.maildrop = conf.Maildrop
	if f.err == nil {
		for _, l := range s.Listen {
			if section, _, _ := strings.Cut(l.Section, " "); section == "smtps" {
				f.addr = reachable(l)
				return f
			}
		}
		f.err = errNoServer
		return f
	}
	if len(conf.Servers) > 0 {
		f.addr = reachable(control.Socket{Network: "tcp", Address: conf.Servers[0]})
	}
	return f
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
