package cli

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"meta1/maps"
	"meta1/mta/exit"
	"meta1/server/auth"
)

// passwordLineMax bounds a password that is read, in bytes.
const passwordLineMax = 4096

func passwdCommand(e *Env) *cobra.Command {
	var file string
	var schemes []string
	var stdin, remove bool
	c := &cobra.Command{
		Use: "passwd [--update FILE] [--scheme NAME] [--stdin] ACCOUNT", Short: "Make an entry of a password map", Args: exactArgs(1),
		Long: `passwd asks for the password of an account, twice and without echo, and prints the line
that a password map has for it (option password_map; docs/auth.md describes the forms).
With --stdin it reads the password from the first line of standard input.

With --update it writes the line to FILE, the text of a map, in place of the one that the
account has there, or at the end. The file must exist; it keeps its owner and mode, and is
replaced in one step. A map of type text takes effect with meta1 ctl reload; one of type
hash or cdb must be made of the text first (meta1 createmap). With --remove the line of the
account goes.

The schemes are ` + strings.Join(auth.Schemes(), ", ") + `. scram-sha-256, the default,
serves SCRAM-SHA-256, PLAIN and LOGIN; argon2id and bcrypt serve PLAIN and LOGIN alone; plain
is needed for CRAM-MD5. Several may be given. external is for accounts without a password,
which EXTERNAL knows by their certificate.`,
		RunE: func(_ *cobra.Command, args []string) error {
			account, err := auth.PrepareName(args[0])
			if err != nil {
				return &usageError{fmt.Errorf("%q: %w", args[0], err)}
			}
			if remove && file == "" {
				return &usageError{errors.New("--remove needs --update")}
			}
			value := ""
			if !remove {
				if value, err = newSecret(e, stdin, schemes); err != nil {
					return err
				}
			}
			if file == "" {
				_, err = fmt.Fprintf(e.Stdout, "%s\t%s\n", account, value)
				return err
			}
			if err := maps.SetEntry(file, account, value); err != nil {
				return &statusError{exit.IOErr, err}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&file, "update", "u", "", "write to this text of a map")
	c.Flags().StringSliceVarP(&schemes, "scheme", "s", auth.Schemes()[:1], "how the password is kept")
	c.Flags().BoolVar(&stdin, "stdin", false, "read the password from standard input")
	c.Flags().BoolVar(&remove, "remove", false, "remove the account, with --update")
	_ = c.MarkFlagFilename("update") // fails only for a flag that does not exist
	return c
}

// newSecret asks for a password and makes an entry of it.
func newSecret(e *Env, stdin bool, schemes []string) (string, error) {
	password := ""
	var err error
	switch {
	case len(schemes) == 1 && schemes[0] == "external":
	case stdin:
		password, err = readPassword(e.Stdin)
	case !term.IsTerminal(int(e.Stdin.Fd())):
		err = errors.New("standard input is no terminal: --stdin reads the password from it all the same")
	default:
		password, err = askPassword(e)
	}
	if err != nil {
		return "", &usageError{err}
	}
	value, err := auth.MakeSecret(rand.Reader, password, schemes...)
	if err != nil {
		return "", &usageError{err}
	}
	return value, nil
}

// readPassword reads the first line.
func readPassword(in io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(in, passwordLineMax+1)).ReadString('\n')
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return "", fmt.Errorf("reading the password: %w", err)
	case len(line) > passwordLineMax:
		return "", errors.New("the password is too long")
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// askPassword asks twice, without echo.
func askPassword(e *Env) (string, error) {
	var answers [2]string
	for i, question := range []string{"Password: ", "Once more: "} {
		fmt.Fprint(e.Stderr, question)
		answer, err := term.ReadPassword(int(e.Stdin.Fd()))
		fmt.Fprintln(e.Stderr)
		if err != nil {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		answers[i] = string(answer)
	}
	if answers[0] != answers[1] {
		return "", errors.New("the two passwords differ")
	}
	return answers[0], nil
}
