// Command typecheck says whether the module and its tests would compile for other platforms.
//
// It reads the source of every package, dependencies included, as the compiler would for that
// system and architecture, and makes no code: a tenth of the work of "make cross", and what differs
// between platforms (files, names, types) is a matter of types. Without cgo, as we release.
//
//	typecheck GOOS/GOARCH ...
package main

import (
	"fmt"
	"go/token"
	"os"
	"strings"

	"golang.org/x/tools/go/packages"
)

func main() {
	bad := false
	for _, platform := range os.Args[1:] {
		faults, err := check(platform)
		if err != nil {
			fmt.Fprintf(os.Stderr, "typecheck %s: %v\n", platform, err)
			os.Exit(2)
		}
		for _, f := range faults {
			fmt.Printf("%s: %s\n", platform, f)
		}
		bad = bad || len(faults) > 0
	}
	if bad {
		os.Exit(1)
	}
}

// check returns what the compiler would complain of for platform, "GOOS/GOARCH".
func check(platform string) ([]string, error) {
	system, arch, ok := strings.Cut(platform, "/")
	if !ok {
		return nil, fmt.Errorf("expected GOOS/GOARCH")
	}
	roots, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports |
			packages.NeedDeps | packages.NeedTypes | packages.NeedSyntax | packages.NeedModule,
		Env:   append(os.Environ(), "GOOS="+system, "GOARCH="+arch, "CGO_ENABLED=0"),
		Fset:  token.NewFileSet(),
		Tests: true,
	}, "./...")
	if err != nil {
		return nil, err
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("no package is here")
	}
	var faults []string
	packages.Visit(roots, nil, func(p *packages.Package) {
		for _, e := range p.Errors {
			faults = append(faults, e.Error())
		}
	})
	return faults, nil
}
