package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"meta1/maps"
	"meta1/mta/exit"
	"meta1/resolver/access"
	"meta1/resolver/alias"
	"meta1/resolver/mailertable"
)

func createmapCommand(e *Env) *cobra.Command {
	var path, query, typ string
	var lists []string
	var dump bool
	var o maps.CreateOptions
	c := &cobra.Command{
		Use: "createmap -F FILE [source] | -d FILE | -q KEY FILE", Short: "Make a map file from its text", Args: maxArgs(1),
		Long: `createmap makes the map FILE from lines "key value", or from the output of
Berkeley DB's db_dump. It reads the source file, or standard input. If any line is wrong
nothing is written; otherwise readers see the old map or the new one at any moment.

With --type access, aliases or mailertable it also refuses entries that such a map cannot
use or that can have no effect, each with its line. The tags of DNS lists, which an access
map may have, are named with --dnsbl-tag. docs/maps.md describes the maps.

FILE is a cdb file, whatever its name is; .db and .cdb are what the configuration expects
of the name of a map that it does not declare. A colon at the end of a key is dropped.

With -d it prints the map FILE as text, with -q the value of one key.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if looks := dump || query != ""; looks && path == "" && len(args) == 1 {
				path = args[0]
			}
			var err error
			if o.Check, err = entryCheck(typ, lists); err != nil {
				return &usageError{err}
			}
			switch {
			case path == "":
				return &usageError{errors.New("createmap needs -F and the name of the map file")}
			case dump:
				return dumpMap(e.Stdout, path)
			case query != "":
				return queryMap(e.Stdout, path, query)
			}
			return createMap(e, path, args, o)
		},
	}
	c.Flags().StringVarP(&path, "map", "F", "", "the map file")
	c.Flags().StringVarP(&typ, "type", "t", "", "what the map is for: access, aliases or mailertable")
	c.Flags().StringSliceVar(&lists, "dnsbl-tag", nil, "a tag of a DNS list, with --type access")
	c.Flags().BoolVarP(&o.CaseSensitive, "case-sensitive", "k", false, "keep upper case in keys")
	c.Flags().BoolVar(&o.Verbatim, "verbatim", false, "keep a colon at the end of a key")
	c.Flags().BoolVarP(&dump, "dump", "d", false, "print the map file as text")
	c.Flags().StringVarP(&query, "query", "q", "", "print the value of this key; exit status 1 if there is none")
	return c
}

// entryCheck is the check of the entries of a map of a type; nil for none. hash and cdb,
// which are one format, ask for none.
func entryCheck(typ string, lists []string) (func(maps.Entry) error, error) {
	var check func(key, value string) error
	switch typ {
	case "", "hash", "cdb":
		return nil, nil
	case "access":
		tags := access.Tags(lists...)
		check = func(key, value string) error { return access.CheckEntry(tags, key, value) }
	case "aliases":
		check = alias.CheckEntry
	case "mailertable":
		check = mailertable.CheckEntry
	default:
		return nil, fmt.Errorf("createmap knows no maps of type %q, only access, aliases and mailertable", typ)
	}
	return func(e maps.Entry) error {
		if err := check(e.Key, e.Value); err != nil {
			return fmt.Errorf("%q: %s", e.Key, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		return nil
	}, nil
}

func maxArgs(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error { return usage(cobra.MaximumNArgs(n)(c, args)) }
}

func createMap(e *Env, path string, args []string, o maps.CreateOptions) error {
	in, source := io.Reader(e.Stdin), "standard input"
	if len(args) == 1 {
		f, err := os.Open(args[0])
		if err != nil {
			return &statusError{exit.IOErr, err}
		}
		defer f.Close()
		in, source = f, args[0]
	}
	o.Source = source
	made, err := maps.Create(path, in, o)
	if err != nil {
		return &statusError{exit.DataErr, err}
	}
	fmt.Fprintf(e.Stdout, "%s: %d entries, %d bytes\n", plain(path), made.Entries, made.Bytes)
	return nil
}

func dumpMap(out io.Writer, path string) error {
	b := bufio.NewWriter(out)
	err := maps.Dump(path, b)
	if flush := b.Flush(); err == nil {
		err = flush
	}
	if err != nil {
		return &statusError{exit.IOErr, err}
	}
	return nil
}

func queryMap(out io.Writer, path, key string) error {
	value, found, err := maps.Query(path, key)
	switch {
	case err != nil:
		return &statusError{exit.IOErr, err}
	case !found:
		return &statusError{1, nil}
	}
	_, err = fmt.Fprintln(out, value)
	return err
}
