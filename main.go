// Meta1 is a mail transfer agent: a gateway and relay that speaks SMTP and LMTP.
// Run it without arguments to see its commands.
package main

import (
	"os"

	"meta1/mta/cli"
)

// version is set by the linker.
var version = "devel"

func main() {
	os.Exit(cli.Main(cli.Env{
		Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: version, Exit: os.Exit,
	}))
}
