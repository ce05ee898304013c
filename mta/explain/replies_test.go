package explain

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var local = netip.IPv6Loopback()

// said are the replies of the modules, as their sources write them: code, enhanced code and the
// beginning of the text.
func said(t *testing.T) (all []string) {
	t.Helper()
	for _, dir := range []string{"server", "resolver", "queue"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, d os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s := newReply(n); s != "" {
					all = append(all, s)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// newReply is the reply of a call of smtp.NewReply.
func newReply(n ast.Node) string {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) != 3 {
		return ""
	}
	if fun, ok := call.Fun.(*ast.SelectorExpr); !ok || fun.Sel.Name != "NewReply" {
		return ""
	}
	var words []string
	for _, arg := range call.Args {
		for sum, ok := arg.(*ast.BinaryExpr); ok; sum, ok = arg.(*ast.BinaryExpr) {
			arg = sum.X
		}
		switch x := arg.(type) {
		case *ast.BasicLit:
			text := x.Value
			if x.Kind == token.STRING {
				text, _ = strconv.Unquote(x.Value)
			}
			words = append(words, text)
		case *ast.Ident:
			words = append(words, "*")
		}
	}
	return strings.Join(words, " ")
}

// TestRepliesAreSaid: every reply of the list is one that the program makes.
func TestRepliesAreSaid(t *testing.T) {
	all := said(t)
	if len(all) < 100 {
		t.Fatalf("only %d replies were found in the sources", len(all))
	}
	for _, r := range Replies() {
		ok := false
		for _, s := range all {
			ok = ok || s == strconv.Itoa(r.Code)+" "+r.Enhanced+" "+r.Text || s == strconv.Itoa(r.Code)+" * "+r.Text
		}
		if !ok {
			t.Errorf("nothing says %s any more", r.String())
		}
	}
}

func TestFindReplies(t *testing.T) {
	for reply, want := range map[string]string{
		"550 5.7.1 Relaying denied":                      "550 5.7.1 Relaying denied",
		"550-5.7.1  relaying DENIED":                     "550 5.7.1 Relaying denied",
		"Relaying denied":                                "550 5.7.1 Relaying denied",
		"550 5.7.0 TLS requirements are not met: no TLS": "550 5.7.0 TLS requirements are not met:",
		"452 4.5.3 Too many recipients":                  "452 4.5.3 Too many recipients",
		"Bad address: non-ASCII character in address":    "553 5.6.7 Bad address:,553 5.1.7 Bad address:,553 5.1.3 Bad address:",
		"":             "",
		"250 2.0.0 ok": "",
		"550 5.7.1 Relaying denied, and more that this one never has": "",
	} {
		var got []string
		for _, r := range FindReplies(reply) {
			got = append(got, r.String())
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%q: %q, want %q", reply, got, want)
		}
	}
}

func TestQuestionCheck(t *testing.T) {
	for name, q := range map[string]Question{
		"no client":  {},
		"line break": {Client: local, From: "a@b\r\nRCPT TO:<c@d>"},
		"long":       {Client: local, To: []string{strings.Repeat("x", textMax+1)}},
		"many":       {Client: local, To: make([]string, rcptsMax+1)},
		"tls":        {Client: local, TLS: &TLS{Subject: "a\x00b"}},
	} {
		if q.Check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := (&Question{Client: local, From: "a@b", To: []string{"ü@d"}}).Check(); err != nil {
		t.Error(err)
	}
}
