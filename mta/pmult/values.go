package pmult

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"meta1/confparse/syntax"
)

// Address is where somebody listens.
type Address struct {
	Network string // tcp4, tcp6 or unix; "" for none
	Host    string
	Port    uint16
	Path    string // of unix
}

// String is the address as Go's package net takes it.
func (a Address) String() string {
	if a.Network == "unix" {
		return a.Path
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// URL is the address as the configuration has it.
func (a Address) URL() string {
	switch a.Network {
	case "unix":
		return "unix://" + a.Path
	case "tcp6":
		return "inet6://" + a.String()
	}
	return "inet://" + a.String()
}

var errURL = errors.New("expected unix:///path, inet://address:port, inet:port@address or the same with inet6")

// parseURL reads a connection URL (mailfromd's manual, "Special Configuration Data Types");
// a path alone is a Unix socket.
func parseURL(s string) (Address, error) {
	scheme, rest, found := strings.Cut(s, ":")
	if strings.HasPrefix(s, "/") {
		scheme, rest, found = "unix", s, true
	}
	if !found {
		return Address{}, errURL
	}
	slashes := strings.HasPrefix(rest, "//")
	switch scheme {
	case "unix", "local":
		if slashes {
			rest = rest[2:]
		}
		if !strings.HasPrefix(rest, "/") {
			return Address{}, errors.New("the path of a socket must begin with a slash")
		}
		return Address{Network: "unix", Path: rest}, nil
	case "inet", "inet6":
		a := Address{Network: map[string]string{"inet": "tcp4", "inet6": "tcp6"}[scheme]}
		var port string
		if slashes {
			var err error
			if a.Host, port, err = net.SplitHostPort(rest[2:]); err != nil {
				return Address{}, errURL
			}
		} else if port, a.Host, found = strings.Cut(rest, "@"); !found {
			return Address{}, errURL
		}
		a.Host = strings.TrimSuffix(strings.TrimPrefix(a.Host, "["), "]")
		if ip := net.ParseIP(a.Host); ip != nil && (ip.To4() != nil) != (a.Network == "tcp4") {
			return Address{}, errors.New("an address of the other family than the scheme")
		}
		n, err := net.LookupPort("tcp", port)
		if err != nil || n == 0 || a.Host == "" {
			return Address{}, errURL
		}
		a.Port = uint16(n)
		return a, nil
	}
	return Address{}, errURL
}

// intervalMax bounds an interval; nobody waits longer for a filter.
const intervalMax = 365 * 24 * time.Hour

// unit is the length of a unit of time, by its name in the singular or plural or its beginning.
func unit(name string) time.Duration {
	name = strings.ToLower(name)
	if len(name) > 1 {
		name = strings.TrimSuffix(name, "s")
	}
	const day = 24 * time.Hour
	switch name {
	case "", "s", "sec", "second":
		return time.Second
	case "m", "min", "minute":
		return time.Minute
	case "h", "hour":
		return time.Hour
	case "d", "day":
		return day
	case "w", "week":
		return 7 * day
	case "month":
		return 30 * day
	case "y", "year":
		return 365 * day
	}
	return 0
}

// parseInterval reads a time interval specification: pairs of a number and a unit, seconds
// if the unit is left out.
func parseInterval(s string) (time.Duration, error) {
	var sum time.Duration
	words := strings.Fields(s)
	if len(words) == 0 {
		return 0, errors.New("expected an interval such as 5 minutes")
	}
	for i := 0; i < len(words); i++ {
		number := strings.TrimRight(words[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
		name := words[i][len(number):]
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%s is not a number", syntax.ShownWord(words[i]))
		}
		if name == "" && i+1 < len(words) {
			i++
			name = words[i]
		}
		u := unit(name)
		if u == 0 {
			return 0, fmt.Errorf("%s is not a unit of time", syntax.ShownWord(name))
		}
		if n > uint64(intervalMax/u) || sum+time.Duration(n)*u > intervalMax {
			return 0, errors.New("more than a year")
		}
		sum += time.Duration(n) * u
	}
	if sum == 0 {
		return 0, errors.New("must not be 0")
	}
	return sum, nil
}

// parseBool reads a boolean of Mailutils.
func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "yes", "true", "t", "1", "on":
		return true, nil
	case "no", "false", "nil", "0", "off":
		return false, nil
	}
	return false, errors.New("expected yes or no")
}
