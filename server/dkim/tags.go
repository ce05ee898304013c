package dkim

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxTags bounds the tags of a list.
const maxTags = 64

// Tags is a tag list (RFC 6376 section 3.2): names and values without the white space around
// them.
type Tags map[string]string

// ParseTags reads a list. A name that stands twice is an error.
func ParseTags(s string) (Tags, error) {
	t := Tags{}
	for part := range strings.SplitSeq(s, ";") {
		name, value, found := strings.Cut(part, "=")
		name = strings.Trim(name, " \t\r\n")
		switch _, twice := t[name]; {
		case !found && name == "":
			continue // behind the last semicolon
		case !found || name == "":
			return nil, errors.New("a tag has no value")
		case twice:
			return nil, errors.New("a tag stands twice")
		case len(t) == maxTags:
			return nil, errors.New("it has too many tags")
		}
		t[name] = strings.Trim(value, " \t\r\n")
	}
	return t, nil
}

// Packed is a value without any white space.
func (t Tags) Packed(name string) string { return pack(t[name]) }

func pack(s string) string {
	if !strings.ContainsAny(s, " \t\r\n") {
		return s
	}
	return strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace(s)
}

// list is a value that is a list with colons.
func (t Tags) list(name string) []string {
	v := t.Packed(name)
	if v == "" {
		return nil
	}
	return strings.Split(v, ":")
}

// Time is a value in seconds since 1970; zero if there is none.
func (t Tags) Time(name string) (time.Time, error) {
	v, ok := t[name]
	if !ok {
		return time.Time{}, nil
	}
	n, err := strconv.ParseUint(v, 10, 40)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s= is no time", name)
	}
	return time.Unix(int64(n), 0), nil
}
