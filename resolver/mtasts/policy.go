package mtasts

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Mode says what a policy asks for (RFC 8461 section 5).
type Mode string

// The modes.
const (
	None    Mode = "none"    // nothing
	Testing Mode = "testing" // report what would fail, and deliver
	Enforce Mode = "enforce" // deliver to hosts that pass only
)

// Limits of RFC 8461 section 3.2 and ours.
const (
	maxAge    = 31557600 * time.Second
	textMax   = 64 << 10 // bytes of a policy, which RFC 8461 section 3.3 suggests
	linesKept = 512      // lines of a policy that are kept; no honest one has as many
	idMax     = 32       // characters of an id
)

// Policy is what a domain publishes about the hosts that take its mail.
type Policy struct {
	Mode   Mode          `json:"mode"`
	MaxAge time.Duration `json:"max_age"` // how long it may be kept
	MX     []string      `json:"mx"`      // patterns, in lower case
}

// ParsePolicy reads a policy file (RFC 8461 section 3.2). Keys that are not known are left
// out, and of keys that stand twice the first counts, as the RFC says.
func ParsePolicy(text []byte) (*Policy, error) {
	if len(text) > textMax {
		return nil, fmt.Errorf("the policy has more than %d bytes", textMax)
	}
	p := &Policy{}
	seen := map[string]bool{}
	lines := bytes.Split(text, []byte("\n"))
	if len(lines) > linesKept {
		return nil, fmt.Errorf("the policy has more than %d lines", linesKept)
	}
	for i, line := range lines {
		line = bytes.TrimRight(line, "\r")
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		key, value, ok := strings.Cut(string(line), ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok || key == "" {
			return nil, fmt.Errorf("line %d is no pair of key and value", i+1)
		}
		if key != "mx" && seen[key] {
			continue
		}
		seen[key] = true
		var err error
		switch key {
		case "version":
			if value != "STSv1" {
				err = fmt.Errorf("version %q is not known", value)
			}
		case "mode":
			p.Mode, err = parseMode(value)
		case "max_age":
			p.MaxAge, err = parseAge(value)
		case "mx":
			err = p.addMX(value)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, key := range []string{"version", "mode", "max_age"} {
		if !seen[key] {
			return nil, fmt.Errorf("the policy has no %s", key)
		}
	}
	if p.Mode != None && len(p.MX) == 0 {
		return nil, errors.New("the policy names no mx")
	}
	return p, nil
}

func parseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case None, Testing, Enforce:
		return m, nil
	}
	return "", fmt.Errorf("mode %q is not known", s)
}

// parseAge reads max_age, in seconds of at most ten digits.
func parseAge(s string) (time.Duration, error) {
	n, err := strconv.ParseUint(s, 10, 34)
	if err != nil || len(s) > 10 {
		return 0, fmt.Errorf("max_age %q is no number of seconds", s)
	}
	return time.Duration(min(n, uint64(maxAge/time.Second))) * time.Second, nil
}

// addMX takes a pattern: a domain name, with a wildcard for its first label or without.
func (p *Policy) addMX(s string) error {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if !isDomain(strings.TrimPrefix(s, "*.")) {
		return fmt.Errorf("mx %q is no domain name", s)
	}
	p.MX = append(p.MX, s)
	return nil
}

// isDomain tells a domain name of A-labels.
func isDomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return false
			}
		}
	}
	return true
}

// Matches reports that the policy names a host (RFC 8461 section 4.1): a wildcard stands
// for exactly one label.
func (p *Policy) Matches(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	first, parent, _ := strings.Cut(host, ".")
	for _, mx := range p.MX {
		if suffix, wild := strings.CutPrefix(mx, "*."); mx == host || wild && first != "" && suffix == parent {
			return true
		}
	}
	return false
}

// parseRecords finds the id in the TXT records at _mta-sts (RFC 8461 section 3.1). Records
// of other kinds do not count; if there is not exactly one of this kind, or it is not well
// formed, there is no policy.
func parseRecords(texts []string) (id string, err error) {
	found := false
	for _, t := range texts {
		if !isSTS(t) {
			continue
		}
		if found {
			return "", errors.New("there are several MTA-STS records")
		}
		found = true
		if id, err = parseRecord(t); err != nil {
			return "", err
		}
	}
	if !found {
		return "", errNoRecord
	}
	return id, nil
}

var errNoRecord = errors.New("there is no MTA-STS record")

// isSTS tells a record of this kind by its first field.
func isSTS(text string) bool {
	first, _, _ := strings.Cut(text, ";")
	key, value, _ := strings.Cut(first, "=")
	return strings.TrimSpace(key) == "v" && strings.TrimSpace(value) == "STSv1"
}

func parseRecord(text string) (id string, err error) {
	for field := range strings.SplitSeq(text, ";") {
		key, value, ok := strings.Cut(field, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case key == "" && !ok: // behind the last semicolon
		case !ok:
			return "", errors.New("the MTA-STS record is malformed")
		case key == "id" && id == "":
			id = value
		}
	}
	if id == "" || len(id) > idMax || strings.ContainsFunc(id, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	}) {
		return "", errors.New("the MTA-STS record has no valid id")
	}
	return id, nil
}
