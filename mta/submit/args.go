package submit

import "strings"

// Mode is what a sendmail(8) command line asks for.
type Mode string

// The modes. Those but ModeSubmit, ModeSMTP and ModeVerify are other commands of meta1.
const (
	ModeSubmit     Mode = "submit"     // -bm, or no -b at all
	ModeSMTP       Mode = "smtp"       // -bs
	ModeVerify     Mode = "verify"     // -bv
	ModeList       Mode = "mailq"      // -bp
	ModeNewaliases Mode = "newaliases" // -bi, -I
	ModeFlush      Mode = "flush"      // -q
)

// ParseArgs reads a command line as sendmail(8) has it, without the name of the
// program: letters that may be run together with their values ("-oi", "-fuser@host")
// and recipients. Flags that change nothing here (-oem, -odb, -m, …) are taken and
// dropped, so that programs that give them go on to work; flags that nobody has, and the modes of a
// daemon, are refused. An error is an *Error with ExUsage.
func ParseArgs(args []string) (Options, Mode, error) {
	a := arguments{rest: args, mode: ModeSubmit}
	for len(a.rest) > 0 {
		arg := a.rest[0]
		a.rest = a.rest[1:]
		switch {
		case arg == "--":
			a.o.Rcpts = append(a.o.Rcpts, a.rest...)
			a.rest = nil
		case len(arg) < 2 || arg[0] != '-':
			a.o.Rcpts = append(a.o.Rcpts, arg)
		default:
			if err := a.flags(arg); err != nil {
				return Options{}, "", err
			}
		}
	}
	return a.o, a.mode, nil
}

// arguments is a command line that is being read.
type arguments struct {
	rest []string
	o    Options
	mode Mode
}

// flags reads one argument of letters.
func (a *arguments) flags(arg string) error {
	for i := 1; i < len(arg); i++ {
		value := func() (string, error) {
			v := arg[i+1:]
			i = len(arg)
			if v != "" {
				return v, nil
			}
			if len(a.rest) == 0 {
				return "", fail(ExUsage, "option %s needs a value", arg)
			}
			v, a.rest = a.rest[0], a.rest[1:]
			return v, nil
		}
		if err := a.letter(arg[i], arg[i+1:], value); err != nil {
			return err
		}
	}
	return nil
}

// letter reads one letter. attached is what follows it in the same argument; value
// takes that, or the next argument.
func (a *arguments) letter(c byte, attached string, value func() (string, error)) (err error) {
	switch c {
	case 't':
		a.o.FromHeader = true
	case 'i':
		a.o.IgnoreDots = true
	case 'f', 'r':
		a.o.Sender, err = value()
	case 'F':
		a.o.FullName, err = value()
	case 'N':
		a.o.Notify, err = value()
	case 'R':
		a.o.Ret, err = value()
	case 'V':
		a.o.EnvID, err = value()
	case 'I':
		a.mode = ModeNewaliases
	case 'q':
		a.mode = ModeFlush
		if attached != "" {
			_, err = value() // an interval or a selection
		}
	case 'b':
		var v string
		if v, err = value(); err == nil {
			err = a.setMode(v)
		}
	case 'o':
		var v string
		if v, err = value(); v == "i" {
			a.o.IgnoreDots = true
		}
	case 'v':
		a.o.Verbose = true
	case 'X':
		var v string
		if v, err = value(); err == nil && strings.HasPrefix(v, "V") {
			err = a.setVERP(v[1:])
		}
	case 'c', 'G', 'm', 'n', 's', 'U', 'x': // no values, and nothing to do
	case 'A', 'B', 'C', 'd', 'D', 'e', 'h', 'L', 'M', 'O', 'p':
		_, err = value()
	default:
		return fail(ExUsage, "unknown option -%s", printable(string(rune(c))))
	}
	return err
}

func (a *arguments) setMode(v string) error {
	switch v {
	case "m":
		a.mode = ModeSubmit
	case "s":
		a.mode = ModeSMTP
	case "v":
		a.mode = ModeVerify
	case "p":
		a.mode = ModeList
	case "i":
		a.mode = ModeNewaliases
	default:
		return fail(ExUsage, "mode -b%s is not supported: meta1 serve is what runs in the background", printable(v))
	}
	return nil
}

// setVERP takes -XV, behind which may stand the two delimiters of Postfix. Those of meta1 are in its configuration.
func (a *arguments) setVERP(delimiters string) error {
	if len(delimiters) != 0 && len(delimiters) != 2 {
		return fail(ExUsage, "-XV takes two delimiters, not %q", printable(delimiters))
	}
	a.o.VERP = true
	return nil
}

// Usage is a short text for a wrong command line.
func Usage() string {
	return strings.Join([]string{
		"usage: sendmail [-t] [-i] [-f sender] [-F name] [-N notify] [-R ret] [-V envid] [-XV] [-v] [recipient ...]",
		"       the message is read from standard input",
		"       sendmail -bs | -bv address ... | -bp | -bi | -q",
	}, "\n")
}
