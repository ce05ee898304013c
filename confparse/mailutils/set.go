package mailutils

import (
	"errors"
	"fmt"
	"strings"

	"meta1/confparse/syntax"
)

// errPath is an assignment that is none.
var errPath = errors.New("an assignment is PATH=VALUE, such as .logging.facility=mail")

// SplitAssignment takes what the option --set of Mailutils' programs is given apart: "PATH=VALUE".
func SplitAssignment(s string) (path, value string, err error) {
	i := strings.LastIndexByte(s, '=')
	if i <= 0 {
		return "", "", errPath
	}
	return s[:i], s[i+1:], nil
}

// Set changes one statement: a path such as .logging.facility or .client=mf.read-timeout. The
// first character of the path separates its parts if it is not a letter; a backslash takes the
// meaning from the next character, and a tag may be in quotes. The statement stands
// behind those of the file.
func (f *File) Set(path, value string) error {
	if path == "" {
		return errPath
	}
	parts, err := splitPath(path)
	if err != nil {
		return err
	}
	src := &syntax.Source{Name: "command line", Path: "command line", Text: path + "=" + value}
	at := src.Span(0, len(src.Text))
	list := &f.Stmts
	for _, p := range parts[:len(parts)-1] {
		list = inside(list, p, at)
	}
	last := parts[len(parts)-1]
	if last.tag != "" || !isKeyword(last.keyword) {
		return errPath
	}
	v := Value{Text: value, At: at, Quoted: true}
	*list = append(*list, &Stmt{Keyword: last.keyword, At: at, Args: []Arg{{Values: []Value{v}, At: at}}})
	return nil
}

// part is one component of a path.
type part struct{ keyword, tag string }

// splitPath takes a path apart.
func splitPath(path string) ([]part, error) {
	sep := byte('.')
	if c := path[0] | 0x20; c < 'a' || c > 'z' {
		sep, path = path[0], path[1:]
	}
	var parts []part
	var p part
	word := &p.keyword
	quotes := false
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\' && i+1 < len(path):
			i++
			*word += string(path[i])
		case c == '"' || c == '\'':
			quotes = !quotes
		case quotes:
			*word += string(c)
		case c == sep:
			parts = append(parts, p)
			p = part{}
			word = &p.keyword
		case c == '=' && word == &p.keyword:
			word = &p.tag
		default:
			*word += string(c)
		}
	}
	parts = append(parts, p)
	for _, p := range parts {
		if !isKeyword(p.keyword) {
			return nil, fmt.Errorf("%w: %s is not a keyword", errPath, syntax.ShownWord(p.keyword))
		}
	}
	if len(parts) > syntax.MaxDepth || quotes {
		return nil, errPath
	}
	return parts, nil
}

// inside gives the statements of a block, which it makes if there is none. The block of the
// program itself was put in the file's place already.
func inside(list *[]*Stmt, p part, at syntax.Span) *[]*Stmt {
	if p.keyword == "program" {
		return list
	}
	for _, s := range *list {
		if s.Block && s.Keyword == p.keyword && s.Tag() == p.tag {
			return &s.Body
		}
	}
	s := &Stmt{Keyword: p.keyword, At: at, Block: true}
	if p.tag != "" {
		s.Args = []Arg{{Values: []Value{{Text: p.tag, At: at, Quoted: true}}, At: at}}
	}
	*list = append(*list, s)
	return &s.Body
}
