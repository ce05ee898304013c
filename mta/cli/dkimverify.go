package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"meta1/confparse"
	"meta1/mta"
	"meta1/mta/exit"
	"meta1/mta/settings"
	"meta1/server/dkim"
)

func dkimVerifyCommand(e *Env) *cobra.Command {
	var conf string
	c := &cobra.Command{
		Use: "verify [FILE]", Short: "Verify the signatures of a message", Args: maxArgs(1),
		Long: `verify reads a message from FILE or standard input, asks the name servers of section smar.DNS of
the configuration for the keys, and prints a line for each DKIM-Signature: field, of which the first
` + fmt.Sprint(dkim.MaxSignatures) + ` count: the result in the words of RFC 8601, what signed, and what is wrong. Lines of the
message may end in LF or CR LF.

Exit status: 0 if a signature is good, 1 if none is, 74 if the message cannot be read, 78 for a wrong
configuration.`,
		RunE: func(c *cobra.Command, args []string) error {
			config, result, err := settings.Load(conf, confparse.LoadOptions{})
			if err != nil {
				return err
			}
			in := io.Reader(e.Stdin)
			if len(args) > 0 {
				f, err := os.Open(args[0])
				if err != nil {
					return &statusError{exit.IOErr, err}
				}
				defer f.Close()
				in = f
			}
			results, err := mta.VerifyDKIM(c.Context(), config, result, &crlfReader{in: bufio.NewReader(in)})
			if err != nil {
				return &statusError{exit.IOErr, err}
			}
			return showResults(e, results)
		},
	}
	configFlag(c, &conf, orEnv("META1_CONF", settings.DefaultFile))
	return c
}

// errNotVerified is the end of a verification that has told the results.
var errNotVerified = &statusError{1, errors.New("no signature is good")}

func showResults(e *Env, results []dkim.Result) error {
	var end error = errNotVerified
	for _, r := range results {
		line := fmt.Sprintf("%s d=%s s=%s a=%s", r.Verdict, r.Domain, r.Selector, r.Algorithm)
		if r.Reason != "" {
			line += ": " + r.Reason
		}
		if r.Test {
			line += " (the domain only tries DKIM)"
		}
		if r.Verdict == dkim.Pass {
			end = nil
		}
		if _, err := fmt.Fprintln(e.Stdout, line); err != nil {
			return err
		}
	}
	return end
}

// crlfReader reads lines that end in LF or CR LF, and gives them with CR LF.
type crlfReader struct {
	in   *bufio.Reader
	rest []byte
	cr   bool // the last byte read was a CR
}

func (r *crlfReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		line, err := r.in.ReadSlice('\n')
		if len(line) == 0 {
			return 0, err
		}
		n := len(line)
		switch cr := n > 1 && line[n-2] == '\r' || n == 1 && r.cr; {
		case line[n-1] == '\n' && !cr:
			r.rest = append(bytes.Clone(line[:n-1]), "\r\n"...)
		default:
			r.rest = bytes.Clone(line)
		}
		r.cr = line[n-1] == '\r'
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
