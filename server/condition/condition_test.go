package condition

import (
	"errors"
	"fmt"
	gotoken "go/token"
	"go/types"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// sample are facts for the tables.
func sample() *Facts {
	f := &Facts{}
	for id, v := range map[Ident]string{
		Mail: "joe@spam.example", Rcpt: "Jane@Example.org", ClientIP: "192.0.2.1", ClientName: "host.example.net.",
		ClientResolve: "ok", Hostname: "mx.example.org", MessageID: "<a@b>", TLSVersion: "TLSv1.3",
	} {
		f.Text[id] = v
	}
	for id, v := range map[Ident]int64{
		Transactions: 3, TransactionRcptsOK: 4, TransactionRcptsTotal: 7, SessionRcptsTotal: 9, MessageSize: 5000, Hops: 12,
	} {
		f.Number[id] = v
	}
	return f
}

func TestHolds(t *testing.T) {
	for text, want := range map[string]bool{
		`mail =~ "@spam\\.example$"`:                   true,
		`mail =~ "@spamXexample$"`:                     false,
		`mail =~ "SPAM"`:                               false,
		`mail =~ "(?i)SPAM"`:                           true,
		`match(mail, "^joe@")`:                         true,
		`!mail =~ "x@y"`:                               true,
		`!mail =~ "spam" || transactions == 3`:         true,
		`!mail =~ "spam" && transactions == 3`:         false,
		`!(mail =~ "spam" && transactions == 3)`:       false,
		`!!match(mail, "spam")`:                        true,
		`!transactions == 3`:                           false, // the whole relation, not !transactions
		`"" =~ "^$"`:                                   true,
		`auth_authen =~ "^$"`:                          true,
		`strcmp(mail, "joe@spam.example") == 0`:        true,
		`strcmp("a", "b") < 0 && strcmp("b","a") == 1`: true,
		`strcasecmp(rcpt, "jane@example.ORG") == 0`:    true,
		`strcasecmp("É", "é") == 0`:                    false, // ASCII alone, as strcasecmp(3)
		`strcasecmp("[", "{") == 0`:                    false,
		`1 + 2 * 3 == 7`:                               true,
		`(1 + 2) * 3 == 9`:                             true,
		`10 - 4 - 3 == 3`:                              true,
		`10 - (4 - 3) == 9`:                            true,
		`100 / 10 / 5 == 2`:                            true,
		`-7 / 2 == -3`:                                 true, // toward zero, as in C
		`- -5 == 5 && --5 == 5`:                        true,
		`-9223372036854775807 - 1 < 0`:                 true,
		`9223372036854775807 > 0`:                      true,
		`1 < 2`:                                        true,
		`2 <= 2`:                                       true,
		`2 >= 3`:                                       false,
		`2 > 1`:                                        true,
		`2 != 2`:                                       false,
		`1 == 1 || 1 == 2 && 1 == 3`:                   true, // && before ||
		`(1 == 1 || 1 == 2) && 1 == 3`:                 false,
		`1 == 2 && 1 / transactions == 0 || 2 > 1`:     true,
		`message_size > 4 * 1024`:                      true,
		`hops > 10`:                                    true,
		`hops =~ "^1[0-9]$"`:                           true,
		`strcmp(hops, "12") == 0 && hops + 1 == 13`:    true,
		"transactions\n\t==\r\n 3":                     true,
		`mail =~ "joe@" "spam"`:                        true, // strings are joined
		`mail =~ "\x6aoe"`:                             true,
		`((((mail =~ "joe"))))`:                        true,
		`transaction_rcpts_total - transaction_rcpts_ok > 2 && session_rcpts_total / 3 == 3`: true,
	} {
		c, err := Parse(text, AtEOM)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := c.Holds(sample()); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v (%s)", text, got, err, want, c.Explain(sample()))
		}
		again, err := Parse(c.String(), AtEOM)
		if err != nil || again.String() != c.String() {
			t.Errorf("%s is printed as %s, which is read as %v, %v", text, c, again, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		``:                                   `0-0 condition ends where an operand is expected`,
		`mail`:                               `0-4 mail is a string, expected a condition`,
		`transactions`:                       `0-12 transactions is a number, expected a condition`,
		`hops`:                               `0-4 hops is a number, expected a condition`,
		`1 + 2`:                              `0-5 1 + 2 is a number, expected a condition`,
		`mail == "a"`:                        `0-4 mail is a string, expected a number; strings are compared by strcmp(a, b) == 0, and matched by =~`,
		`transactions == rcpt`:               `16-20 rcpt is a string, expected a number; strings are compared by strcmp(a, b) == 0, and matched by =~`,
		`transactions =~ "1"`:                `0-12 transactions is a number, expected a string`,
		`mail =~ 1`:                          `8-9 1 is a number, expected a string`,
		`mail < "a"`:                         `0-4 mail is a string, expected a number`,
		`mail + 1 == 2`:                      `0-4 mail is a string, expected a number`,
		`-mail == 1`:                         `1-5 mail is a string, expected a number`,
		`1 < 2 < 3`:                          `0-5 1 < 2 is a condition, expected a number; conditions are joined by && and ||`,
		`(1 < 2) == (2 < 3)`:                 `0-7 1 < 2 is a condition, expected a number; conditions are joined by && and ||`,
		`!transactions`:                      `1-13 transactions is a number, expected a condition; write transactions == 0`,
		`1 == 1 && 2`:                        `10-11 2 is a number, expected a condition`,
		`strcmp(mail, 1) == 0`:               `13-14 1 is a number, expected a string`,
		`strcmp(mail, "a")`:                  `0-17 strcmp(mail, "a") is a number, expected a condition`,
		`strcmp(mail) == 0`:                  `11-12 unexpected ")", expected ","`,
		`strcmp(mail, "a", "b") == 0`:        `16-17 unexpected ",", expected ")"`,
		`match(mail, rcpt)`:                  `12-16 the pattern of match must be written as a string; what a client sends is no pattern; strcmp(a, b) == 0 compares two strings`,
		`mail =~ client_name`:                `8-19 the pattern of =~ must be written as a string; what a client sends is no pattern; strcmp(a, b) == 0 compares two strings`,
		`mail =~ "("`:                        "8-11 error parsing regexp: missing closing ): `(`",
		`mail =~ "a{9999}"`:                  "8-17 error parsing regexp: invalid repeat count: `{9999}`",
		`mail = "a"`:                         `5-6 unexpected character "="; did you mean ==?`,
		`mail =~ "a" & 1 == 1`:               `12-13 unexpected character "&"; did you mean &&?`,
		`mail =~ "a" | 1 == 1`:               `12-13 unexpected character "|"; did you mean ||?`,
		`mail ~ "a"`:                         `5-6 unexpected character "~"; did you mean =~?`,
		`mail =~ "a" and 1 == 1`:             `12-15 unexpected "and", expected an operator; did you mean &&?`,
		`mail =~ "a" 5`:                      `12-13 unexpected "5", expected an operator`,
		`1 == 1 "a"`:                         `7-10 unexpected string, expected an operator`,
		`(1 == 1`:                            `7-7 condition ends where ")" is expected`,
		`1 == 1)`:                            `6-7 unexpected ")", expected an operator`,
		`1 ==`:                               `4-4 condition ends where an operand is expected`,
		`== 1`:                               `0-2 unexpected "==", expected an operand`,
		`()`:                                 `1-2 unexpected ")", expected an operand`,
		`mial =~ "a"`:                        `0-4 unknown identifier "mial"; did you mean mail?`,
		`Mail =~ "a"`:                        `0-4 unknown identifier "Mail"; did you mean mail?`,
		`nothing == 1`:                       `0-7 unknown identifier "nothing"`,
		`strcpm(mail, "a") == 0`:             `0-6 unknown function "strcpm"; did you mean strcmp?`,
		`system("ls") == 0`:                  `0-6 unknown function "system"; the functions are strcmp, strcasecmp and match`,
		`mail =~ "a`:                         `8-10 string is not closed, expected "`,
		`mail =~ "\q"`:                       `8-12 bad escape \q, expected one of \a \b \f \n \r \t \v \\ \" \' \? \x41 \101`,
		`1 == 010`:                           `5-8 "010" is no decimal number`,
		`1 == 0x10`:                          `5-9 "0x10" is no decimal number`,
		`1 == 1k`:                            `5-7 "1k" is no decimal number`,
		`1 == 9223372036854775808`:           `5-24 number is larger than 9223372036854775807`,
		`1 == 1 / 0`:                         `5-10 division by zero`,
		`1 == 1 / (2 - 2)`:                   `5-16 division by zero`,
		`1 == 9223372036854775807 + 1`:       `5-28 number is out of range`,
		`1 == (-9223372036854775807-1) / -1`: `5-34 number is out of range`,
		`1 == $`:                             `5-6 unexpected character "$"`,
		`1 == 'a'`:                           `5-6 unexpected character "'"`,
		"1 == \xff":                          `5-6 unexpected character "\xff"`,
		strings.Repeat("(", 65) + "1":        `64-65 condition is nested more than 64 deep`,
		strings.Repeat("!", 65):              `64-65 condition is nested more than 64 deep`,
		strings.Repeat(" ", MaxText+1):       `4096-4097 condition is longer than 4096 bytes`,
	} {
		_, err := Parse(text, AtEOM)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v, want %s", text, err, want)
			continue
		}
		if got := fmt.Sprintf("%d-%d %v", e.From, e.To, e); got != want {
			t.Errorf("%.60s:\n got %s\nwant %s", text, got, want)
		}
	}
}

// TestStages: an identifier is refused at each stage before the one at which it is known.
func TestStages(t *testing.T) {
	for i := range IdentCount {
		text := i.String() + ` =~ "x"`
		if idents[i].typ == number {
			text = i.String() + " == 1"
		}
		for s := range stageCount {
			_, err := Parse(text, s)
			want := fmt.Sprintf("%s is not known at the stage %s, only from %s on", i, s, idents[i].from)
			if s >= idents[i].from && err != nil || s < idents[i].from && (err == nil || err.Error() != want) {
				t.Errorf("%s at %s: %v", text, s, err)
			}
		}
	}
	if _, err := Parse(`rcpt =~ "x"`, AtMail); err == nil {
		t.Error("rcpt is known at mail") // the README's example
	}
	for s := range stageCount {
		if got, ok := StageOf(s.String()); !ok || got != s {
			t.Errorf("StageOf(%s) is %v, %v", s, got, ok)
		}
	}
	if _, ok := StageOf("ehlo"); ok {
		t.Error("there is a stage ehlo")
	}
}

// TestRuntimeErrors: what the values of identifiers lead to is an error, unless && or ||
// leaves it out.
func TestRuntimeErrors(t *testing.T) {
	f := sample()
	f.Number[MessageSize] = 1 << 62
	for text, want := range map[string]string{
		"1 / (transactions - 3) == 1":                      "division by zero",
		"message_size * 2 > 0":                             "number is out of range",
		"message_size + message_size > 0":                  "number is out of range",
		"-message_size - message_size - 1 > 0":             "number is out of range",
		"-2 * message_size < 0":                            "<nil>", // the least number
		"-(-2 * message_size) < 0":                         "number is out of range",
		"transactions == 3 || 1 / (transactions - 3) == 1": "<nil>",
		"transactions == 4 && 1 / (transactions - 3) == 1": "<nil>",
		"transactions == 4 || 1 / (transactions - 3) == 1": "division by zero",
		"!(1 / (transactions - 3) == 1)":                   "division by zero",
		"strcmp(mail, \"a\") / (transactions - 3) == 1":    "division by zero",
		"0 * message_size == 0 && message_size / -1 < 0":   "<nil>",
		"(-2 * message_size) / (transactions - 4) > 0":     "number is out of range",
		"message_size + message_size / 3 * 3 + 3 > 0":      "number is out of range",
	} {
		c, err := Parse(text, AtEOM)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		holds, err := c.Holds(f)
		if fmt.Sprint(err) != want || err != nil && holds {
			t.Errorf("%s: %v, %v, want %s", text, holds, err, want)
		}
		if err != nil && !strings.HasSuffix(c.Explain(f), want) {
			t.Errorf("%s: explained as %s", text, c.Explain(f))
		}
	}
}

func TestExplain(t *testing.T) {
	f := sample()
	f.Text[MessageID] = "\r\n\x1b[2J é" + strings.Repeat("x", 200)
	for text, want := range map[string]string{
		`mail =~ "spam" && transactions > 2`: `mail is "joe@spam.example"; mail =~ "spam" is true; transactions is 3; transactions > 2 is true`,
		`mail =~ "z" && transactions > 2`:    `mail is "joe@spam.example"; mail =~ "z" is false; transactions > 2 is not evaluated`,
		`1 == 1`:                             `1 == 1 is true`,
		`!(hops < 1 || 1 == 2)`:              `hops is 12; hops < 1 is false; 1 == 2 is false; !(hops < 1 || 1 == 2) is true`,
		`1 == 1 || hops < 1 && 1 == 2`:       `1 == 1 is true; hops < 1 && 1 == 2 is not evaluated`,
		`hops * 2 == 24`:                     `hops is 12; hops * 2 is 24; hops * 2 == 24 is true`,
		`hops =~ "1"`:                        `hops is "12"; hops =~ "1" is true`,
		`message_id =~ "x"`:                  `message_id is "\r\n\x1b[2J \u00e9` + strings.Repeat("x", 71) + `..."; message_id =~ "x" is true`,
	} {
		c, err := Parse(text, AtEOM)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Explain(f); got != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
	long, err := Parse("mail =~ \"z\""+strings.Repeat(" || mail =~ \"y\"", 200), AtMail)
	if err != nil {
		t.Fatal(err)
	}
	if got := long.Explain(f); len(got) > explainMax+partMax+valueMax+50 || !strings.HasSuffix(got, "; ...") {
		t.Errorf("explained in %d bytes: %s", len(got), got)
	}
}

func TestUses(t *testing.T) {
	c, err := Parse(`mail =~ "a" || strcmp(rcpt, mail) == 0`, AtRcpt)
	if err != nil {
		t.Fatal(err)
	}
	if want := []Use{{Mail, 0, 4}, {Rcpt, 22, 26}, {Mail, 28, 32}}; !reflect.DeepEqual(c.Uses(), want) {
		t.Errorf("%v", c.Uses())
	}
}

func TestIdentTable(t *testing.T) {
	docs := Docs()
	for i, d := range docs {
		if d.Name == "" || d.Text == "" || i > 0 && docs[i-1].Name >= d.Name {
			t.Errorf("row %d: %+v", i, d)
		}
	}
	// README 8.5.1.
	for kind, names := range map[string]string{
		"number": "alg_bits cipher_bits message_size session_rcpts_total transaction_rcpts_ok transaction_rcpts_total transactions hops",
		"string": "auth_authen auth_author auth_type cert_issuer cert_subject cipher client_ip client_name client_resolve cn_issuer cn_subject hostname mail message_id rcpt session_id tls_verify tls_version transaction_id",
	} {
		n := 0
		for _, d := range docs {
			if d.Type == kind && strings.Contains(" "+names+" ", " "+d.Name+" ") {
				n++
			}
		}
		if n != len(strings.Fields(names)) {
			t.Errorf("%d identifiers of %s", n, names)
		}
	}
}

// drawn makes a random expression of a type, well typed for [AtEOM].
func drawn(t *rapid.T, want typ, depth int) *node {
	leaf := depth <= 0 || rapid.IntRange(0, 3).Draw(t, "leaf") == 0
	ident := func(kind typ) *node {
		var of []Ident
		for i := range IdentCount {
			if k := idents[i].typ; k == kind || k == either && kind != boolean {
				of = append(of, i)
			}
		}
		i := rapid.SampledFrom(of).Draw(t, "identifier")
		return &node{op: opIdent, ident: i, asText: kind == text && idents[i].typ == either}
	}
	str := func() *node {
		return &node{op: opString, str: rapid.StringMatching("[\x01-\x7f]{0,6}").Draw(t, "string")}
	}
	switch {
	case want == text && rapid.Bool().Draw(t, "constant"):
		return str()
	case want == text:
		return ident(text)
	case want == number && leaf && rapid.Bool().Draw(t, "constant"):
		return &node{op: opNumber, num: rapid.Int64Range(0, 1<<40).Draw(t, "number")}
	case want == number && leaf:
		return ident(number)
	case leaf:
		return &node{op: opMatches, left: drawn(t, text, 0), right: &node{op: opString, str: rapid.SampledFrom([]string{"a", "^$", "[a-z]*"}).Draw(t, "pattern")}}
	}
	ops := []op{opNot, opOr, opAnd, opEqual, opUnequal, opLess, opLessEqual, opGreater, opGreaterEqual}
	if want == number {
		ops = []op{opNeg, opAdd, opSub, opMul, opStrcmp, opStrcasecmp}
	}
	o := rapid.SampledFrom(ops).Draw(t, "operator")
	n := &node{op: o, left: drawn(t, operators[o].operands, depth-1)}
	if o != opNeg && o != opNot {
		n.right = drawn(t, operators[o].operands, depth-1)
	}
	return n
}

// bare gives the tree without places and patterns.
func bare(n *node) *node {
	if n == nil {
		return nil
	}
	c := *n
	c.at, c.pattern, c.left, c.right = span{}, nil, bare(n.left), bare(n.right)
	return &c
}

// TestPrintParse: what is printed is read as the same.
func TestPrintParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := drawn(t, boolean, 5)
		printed := n.String()
		if len(printed) > MaxText {
			t.Skip("too long")
		}
		c, err := Parse(printed, AtEOM)
		if e := (*Error)(nil); errors.As(err, &e) && e.Message == errOverflow.Error() {
			t.Skip("constants that overflow")
		}
		if err != nil {
			t.Fatalf("%s: %v", printed, err)
		}
		if !reflect.DeepEqual(bare(c.root), bare(n)) {
			t.Fatalf("%s is read as %s", printed, c)
		}
	})
}

// infix makes a random text of numbers and operators, with parentheses wherever they
// please, which means the same to Go's own type checker.
func infix(t *rapid.T, want typ, depth int) string {
	digit := func() string { return strconv.Itoa(rapid.IntRange(1, 9).Draw(t, "number")) }
	if want == number && (depth <= 0 || rapid.IntRange(0, 2).Draw(t, "leaf") == 0) {
		return digit()
	}
	var s string
	switch {
	case want == boolean && (depth <= 0 || rapid.Bool().Draw(t, "relation")):
		o := rapid.SampledFrom([]string{"==", "!=", "<", "<=", ">", ">="}).Draw(t, "operator")
		s = infix(t, number, depth-1) + " " + o + " " + infix(t, number, depth-1)
	case want == boolean:
		o := rapid.SampledFrom([]string{"&&", "||"}).Draw(t, "operator")
		s = infix(t, boolean, depth-1) + o + infix(t, boolean, depth-1)
		if rapid.Bool().Draw(t, "not") {
			return "!(" + s + ")"
		}
	default:
		o := rapid.SampledFrom([]string{"+", "-", "*", "/"}).Draw(t, "operator")
		s = infix(t, number, depth-1) + " " + o + " " + infix(t, number, depth-1)
		if rapid.Bool().Draw(t, "negative") {
			return "-(" + s + ")"
		}
	}
	if rapid.IntRange(0, 2).Draw(t, "parentheses") == 0 {
		return "(" + s + ")"
	}
	return s
}

// TestPrecedence compares the value of random conditions with what Go's type checker makes
// of the same text: of those operators that both have, Go's precedence is C's but for the
// relations, which types keep apart.
func TestPrecedence(t *testing.T) {
	compared := 0
	rapid.Check(t, func(t *rapid.T) {
		s := infix(t, boolean, 4)
		ref, err := types.Eval(gotoken.NewFileSet(), nil, gotoken.NoPos, s)
		if err != nil {
			return // a division by zero
		}
		c, err := Parse(s, AtConnect)
		if err != nil {
			t.Fatalf("%s: %v, and Go gives %v", s, err, ref.Value)
		}
		if got, err := c.Holds(&Facts{}); err != nil || strconv.FormatBool(got) != ref.Value.String() {
			t.Fatalf("%s: %v, %v, and Go gives %v", s, got, err, ref.Value)
		}
		compared++
	})
	if compared == 0 { // a run with -short makes 20, and some divide by zero
		t.Error("no condition was compared")
	}
}

// FuzzParse: any text is a condition or a mistake with a place in it; what is read is printed
// so that it is read again as the same, and evaluated and explained without failing.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`mail =~ "@spam\\.example$" && transaction_rcpts_total > 5`, `!(strcmp(hops, "1") == 0) || - -1 < 2 * (3 - 4) / 5`,
		`match(rcpt, "a" "\x41")`, `1 < 2 < 3`, `message_size * message_size * message_size != 0`, `((((`, `"`, `!!!`,
	} {
		f.Add(s, uint8(AtEOM), "joe@spam.example", int64(1))
	}
	f.Fuzz(func(t *testing.T, s string, stage uint8, value string, n int64) {
		c, err := Parse(s, Stage(stage%uint8(stageCount)))
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.From < 0 || e.From > e.To || e.To > len(s) || e.Message == "" {
				t.Fatalf("%q: %#v", s, err)
			}
			return
		}
		again, err := Parse(c.String(), Stage(stage%uint8(stageCount)))
		if len(c.String()) <= MaxText && (err != nil || !reflect.DeepEqual(bare(again.root), bare(c.root))) {
			t.Fatalf("%q is printed as %s, which is read as %v, %v", s, c, again, err)
		}
		var facts Facts
		for i := range IdentCount {
			facts.Text[i], facts.Number[i] = value, n
		}
		holds, err := c.Holds(&facts)
		if err != nil && holds {
			t.Fatalf("%q fails and holds", s)
		}
		for _, b := range []byte(c.Explain(&facts)) {
			if b < ' ' || b == 0x7f {
				t.Fatalf("%q is explained with the byte %#x", s, b)
			}
		}
	})
}

func BenchmarkHolds(b *testing.B) {
	c, err := Parse(`mail =~ "@spam\\.example$" && transaction_rcpts_total > 5`, AtRcpt)
	if err != nil {
		b.Fatal(err)
	}
	f := sample()
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := c.Holds(f); err != nil || !ok {
			b.Fatal(ok, err)
		}
	}
}
