package msg

import (
	"fmt"
	"strings"
)

// maxConf bounds a structured right hand side, in bytes.
const maxConf = 16 << 10

// maxValues bounds the values of all its options.
const maxValues = 256

// ParseConf reads a structured right hand side: options and sections in the language
// of the configuration file, in one line (README 3.10.1, 3.11.1, 3.8.1). Whether
// values fit to each other is not checked.
func ParseConf(text string) (Conf, error) {
	if len(text) > maxConf {
		return Conf{}, fmt.Errorf("right hand side is longer than %d bytes", maxConf)
	}
	p := confParser{lexer: lexer{text: text}}
	for p.peek() != "" {
		if err := p.option(); err != nil {
			return Conf{}, err
		}
	}
	return p.conf, nil
}

type confParser struct {
	lexer
	conf   Conf
	values int
}

func (p *confParser) option() error {
	name := strings.ToLower(p.next())
	if name == "tls_requirements" && p.peek() == "{" {
		return p.tls()
	}
	values, err := p.rhs(name)
	if err != nil {
		return err
	}
	if name == "flags" {
		for _, v := range values {
			p.conf.Flags = append(p.conf.Flags, strings.ToLower(v))
		}
		return nil
	}
	into, ok := map[string]*string{
		"session_feature": &p.conf.SessionFeature, "connection_limits": &p.conf.ConnectionLimits, "source": &p.conf.Source,
	}[name]
	if !ok {
		return fmt.Errorf("unknown option %q", name)
	}
	return one(name, values, into)
}

func one(name string, values []string, into *string) error {
	if len(values) != 1 {
		return fmt.Errorf("%s needs one value", name)
	}
	if *into != "" {
		return fmt.Errorf("%s stands twice", name)
	}
	*into = values[0]
	return nil
}

// rhs reads "= value ;" or "= { value, value } ;". The last semicolon may be left
// out at the end of the text and before a closing brace.
func (p *confParser) rhs(name string) ([]string, error) {
	if name == "" || special(name) {
		return nil, fmt.Errorf("found %q, expected an option", name)
	}
	if !p.accept("=") {
		return nil, fmt.Errorf("found %q after %q, expected =", p.peek(), name)
	}
	values, err := p.list()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); !p.accept(";") && t != "" && t != "}" {
		return nil, fmt.Errorf("found %q, expected ;", t)
	}
	return values, nil
}

func (p *confParser) list() (values []string, err error) {
	if !p.accept("{") {
		v, err := p.value()
		return []string{v}, err
	}
	for !p.accept("}") {
		if p.accept(",") {
			continue
		}
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

func (p *confParser) value() (string, error) {
	if p.values++; p.values > maxValues {
		return "", fmt.Errorf("more than %d values", maxValues)
	}
	t := p.next()
	if t == "" || special(t) {
		return "", fmt.Errorf("found %q, expected a value", t)
	}
	return unquote(t)
}

func (p *confParser) tls() error {
	if p.conf.TLS != nil {
		return fmt.Errorf("tls_requirements stands twice")
	}
	p.conf.TLS = &TLSRequirements{}
	p.next() // the brace
	for !p.accept("}") {
		name := strings.ToLower(p.next())
		values, err := p.rhs(name)
		if err == nil {
			err = setTLS(p.conf.TLS, name, values)
		}
		if err != nil {
			return fmt.Errorf("tls_requirements: %w", err)
		}
	}
	p.accept(";")
	return nil
}

func setTLS(t *TLSRequirements, name string, values []string) error {
	switch name {
	case "cert_fps":
		t.CertFingerprints = values
	case "hostnames":
		t.Hostnames = values
	case "root_ca_subjects":
		t.RootCASubjects = values
	case "cert_issuer":
		return one(name, values, &t.CertIssuer)
	case "cert_subject":
		return one(name, values, &t.CertSubject)
	case "common_name":
		return one(name, values, &t.CommonName)
	case "cipher_bits_min":
		return setBits(t, values)
	case "flags":
		return setFlags(t, values)
	case "violation":
		return setViolation(t, values)
	default:
		return fmt.Errorf("unknown option %q", name)
	}
	return nil
}

func setBits(t *TLSRequirements, values []string) error {
	var word string
	if err := one("cipher_bits_min", values, &word); err != nil {
		return err
	}
	for i := 0; i < len(word); i++ {
		if word[i] < '0' || word[i] > '9' || t.CipherBitsMin > 10000 {
			return fmt.Errorf("cipher_bits_min is %q, must be a number of bits", word)
		}
		t.CipherBitsMin = t.CipherBitsMin*10 + int(word[i]-'0')
	}
	return nil
}

func setFlags(t *TLSRequirements, values []string) error {
	for _, v := range values {
		switch strings.ToLower(v) {
		case "verified":
			t.Verified = true
		case "encrypted":
			t.Encrypted = true
		default:
			return fmt.Errorf("unknown flag %q; known are verified and encrypted", v)
		}
	}
	return nil
}

func setViolation(t *TLSRequirements, values []string) error {
	for _, v := range values {
		switch v = strings.ToLower(v); v {
		case "delay":
			t.Delay = true
		case "permfail", "tempfail", "abort":
			t.Violation = v
		default:
			return fmt.Errorf("violation is %q, must be permfail, tempfail, abort or delay", v)
		}
	}
	return nil
}

// lexer divides the text into words, words in quotes, and = ; { } ,.
type lexer struct{ text string }

const specials = "=;{},"

func special(t string) bool { return len(t) == 1 && strings.Contains(specials, t) }

func (l *lexer) peek() string {
	s := strings.TrimLeft(l.text, " \t")
	switch {
	case s == "":
		return ""
	case strings.IndexByte(specials, s[0]) >= 0:
		return s[:1]
	case s[0] == '"':
		for i := 1; i < len(s); i++ {
			if s[i] == '\\' {
				i++
			} else if s[i] == '"' {
				return s[:i+1]
			}
		}
		return s
	}
	if i := strings.IndexAny(s, specials+" \t\""); i >= 0 {
		return s[:i]
	}
	return s
}

func (l *lexer) next() string {
	t := l.peek()
	l.text = strings.TrimLeft(l.text, " \t")[len(t):]
	return t
}

func (l *lexer) accept(token string) bool {
	if l.peek() != token {
		return false
	}
	l.next()
	return true
}

// unquote removes quotes and the backslashes inside of them.
func unquote(t string) (string, error) {
	if t[0] != '"' {
		return t, nil
	}
	if len(t) < 2 || t[len(t)-1] != '"' {
		return "", fmt.Errorf("quote in %q has no end", t)
	}
	inner := t[1 : len(t)-1]
	if strings.IndexByte(inner, '\\') < 0 {
		return inner, nil
	}
	b := make([]byte, 0, len(inner))
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			i++
		}
		b = append(b, inner[i])
	}
	return string(b), nil
}
