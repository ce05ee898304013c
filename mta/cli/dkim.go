package cli

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"meta1/mta"
	"meta1/mta/exit"
	"meta1/mta/settings"
	"meta1/mta/smtp"
	"meta1/server/dkim"
)

func dkimCommand(e *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "dkim", Short: "Make keys for DKIM, compare them with DNS, verify signatures", Args: subcommand,
		Long: `dkim makes keys for signatures (RFC 6376; section DKIM_signing), compares the keys of
the configuration with what DNS has, and verifies the signatures of a message. docs/dkim.md says how
keys come into use and go.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(genkeyCommand(e), dkimCheckCommand(e), dkimVerifyCommand(e))
	return c
}

func genkeyCommand(e *Env) *cobra.Command {
	var file, kind, domain, selector string
	var bits int
	c := &cobra.Command{
		Use: "genkey --domain DOMAIN --output FILE", Short: "Make a key, and print its DNS record", Args: noArgs,
		Long: `genkey makes a key for signatures and writes it to FILE, which must not exist, with mode
0600: PKCS #8 in PEM format. It prints the record that the zone of the domain needs, and the
section of the configuration that uses the key.

An RSA key of 2048 bits is verified everywhere. An Ed25519 key is small and fast, but not every
host verifies it: use it beside an RSA key, not alone. The selector is the day by default:
a new key gets a selector of its own, so that mail under way stays valid.`,
		RunE: func(*cobra.Command, []string) error {
			if selector == "" {
				selector = time.Now().UTC().Format("s20060102") + map[string]string{dkim.KindEd25519: "e"}[kind]
			}
			for _, name := range []string{domain, selector} {
				if err := smtp.CheckDomain(name); err != nil {
					return &usageError{fmt.Errorf("%q is not a domain name in ASCII: %w", name, err)}
				}
			}
			return genkey(e, file, kind, bits, domain, selector)
		},
	}
	f := c.Flags()
	f.StringVarP(&domain, "domain", "d", "", "domain that signs (d=)")
	f.StringVarP(&selector, "selector", "s", "", "selector (s=); default: the day, as in s20270131")
	f.StringVarP(&kind, "type", "t", dkim.KindRSA, "kind of key: rsa or ed25519")
	f.IntVarP(&bits, "bits", "b", dkim.RSAFit, "size of an RSA key")
	f.StringVarP(&file, "output", "o", "", "file to write the key to")
	for _, name := range []string{"domain", "output"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	_ = c.MarkFlagFilename("output")
	return c
}

// genkey makes a key.
func genkey(e *Env, file, kind string, bits int, domain, selector string) error {
	key, text, err := dkim.MakePrivate(kind, bits)
	if err != nil {
		return &usageError{err}
	}
	record, err := dkim.Record(key.Public())
	if err != nil {
		return err
	}
	if err := writeNew(file, text); err != nil {
		return &statusError{exit.CantCreate, err}
	}
	_, err = fmt.Fprintf(e.Stdout, `; DNS
%s

; section DKIM_signing
sign { domain = %s; selector = %s; keyfile = %q; }
`, dkim.ZoneLine(dkim.RecordName(selector, domain), record), domain, selector, file)
	return err
}

// writeNew writes a file that did not exist.
func writeNew(file string, text []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(file) // what is in it is of no use
	}
	return err
}

func dkimCheckCommand(e *Env) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "check [SECTION]", Short: "Compare the keys of the configuration with DNS", Args: maxArgs(1),
		Long: `check reads the keys of all sections DKIM_signing, or of the section smtps that is named ("smtps
MSA"), and asks the name servers of section smar.DNS for their records. It prints a line for each
key: its record, its kind, whether it is in use now, and what is wrong.

Exit status: 0 if DNS has all keys, 1 if it lacks one or has another, 78 for a wrong configuration
or a key that cannot be read.`,
		RunE: func(c *cobra.Command, args []string) error {
			section := ""
			if len(args) > 0 {
				section = args[0]
			}
			conf, result, err := mta.Check(file)
			if err != nil {
				return err
			}
			keys, err := mta.CheckDKIM(c.Context(), conf, result, section)
			if err != nil {
				return &statusError{exit.Config, err}
			}
			return showKeys(e, keys)
		},
	}
	configFlag(c, &file, orEnv("META1_CONF", settings.DefaultFile))
	return c
}

// errKeysDiffer is the end of a check that has told what is wrong.
var errKeysDiffer = &statusError{1, errors.New("DNS and the configuration differ")}

func showKeys(e *Env, keys []mta.DKIMKey) error {
	if len(keys) == 0 {
		return &statusError{exit.Config, errors.New("there is no such section DKIM_signing")}
	}
	var end error
	for _, k := range keys {
		state, verdict := "in use", "good"
		switch {
		case !k.InUse && k.NotBefore != "":
			state = "not in use (not_before " + k.NotBefore + ")"
		case !k.InUse:
			state = "not in use (another key follows it)"
		}
		if k.Problem != "" {
			verdict, end = k.Problem, errKeysDiffer
		}
		if _, err := fmt.Fprintf(e.Stdout, "%s: %s, %s: %s\n", k.Name, k.Kind, state, verdict); err != nil {
			return err
		}
		if k.Problem != "" {
			if _, err := fmt.Fprintf(e.Stdout, "%s\n", dkim.ZoneLine(k.Name, k.Want)); err != nil {
				return err
			}
		}
	}
	return end
}
