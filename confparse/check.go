package confparse

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"meta1/confparse/syntax"
)

// CheckTable finds mistakes in a tree of tables, for the tests of who writes one: a
// row without a name or documentation, two of one name, a default or limit that
// cannot be read or is out of range, a field whose type does not fit.
func CheckTable(root *Table) error {
	return errors.Join(checkTable(nil, "", root, 0)...)
}

func checkTable(errs []error, path string, t *Table, depth int) []error {
	if t == nil {
		return append(errs, fmt.Errorf("%s: no table", path))
	}
	if depth > syntax.MaxDepth {
		return append(errs, fmt.Errorf("%s: nested too deep", path))
	}
	for i := range t.Options {
		o := &t.Options[i]
		at := joinPath(path, o.Name)
		for _, err := range o.check(t) {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
		}
		if o.kind() == KindSection {
			errs = checkTable(errs, at, o.Sample(), depth+1)
		}
	}
	return errs
}

func (o *Option) check(t *Table) (errs []error) {
	wrong := func(cond bool, format string, args ...any) {
		if cond {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(!validName(o.Name), "name %q", o.Name)
	wrong(o.Doc == "" || o.Readme == "", "no documentation")
	wrong(t.find(o.kind(), o.Name) != o, "two rows of that name")
	wrong(!slices.Contains([]Effect{"", Real, Host, None, NotYet}, o.Effect), "effect %q", o.Effect)
	switch o.kind() {
	case KindSection:
		wrong((o.Sub == nil) == (o.New == nil), "needs one of Sub and New")
		return errs
	case KindFlag:
		name, _, _ := findFlag("no_"+o.Name, t.names(KindFlag))
		wrong(name != o.Name, "its negation is the flag %s", name)
	case KindOption:
		wrong(o.Type.zero() == nil, "type %q", o.Type)
		wrong(o.Secret && (o.Type != String || o.Default != ""), "a secret of type %s with the default %q", o.Type, o.Default)
		for _, limit := range [...]string{o.Min, o.Max} {
			_, ok := o.limit(limit)
			wrong(limit != "" && !ok, "limit %q", limit)
		}
	default:
		wrong(true, "kind %q", o.Kind)
		return errs
	}
	if err := o.checkField(); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func validName(s string) bool {
	for i := 0; i < len(s); i++ {
		if !syntax.IsWordByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// checkField stores the zero value and the default into a field of the same type.
func (o *Option) checkField() error {
	if o.Into == nil {
		if o.Effect == Host {
			return nil
		}
		return errors.New("no field")
	}
	into := reflect.TypeOf(o.Into)
	if into.Kind() != reflect.Pointer || reflect.ValueOf(o.Into).IsNil() {
		return errors.New("the field is no pointer")
	}
	probe := *o
	probe.Into = reflect.New(into.Elem()).Interface()
	zero := o.Type.zero()
	if o.kind() == KindFlag {
		zero = false
	}
	if b := probe.store(zero); b != nil {
		return b
	}
	if o.Default == "" {
		return nil
	}
	v, err := o.defaultValue("/")
	if err == nil {
		if b := probe.store(v); b != nil {
			err = b
		}
	}
	if err != nil {
		return fmt.Errorf("default: %w", err)
	}
	return nil
}

// zero is the zero value of what convert gives; nil for an unknown type.
func (t Type) zero() any {
	switch t {
	case Int, Size:
		return int64(0)
	case Time:
		return time.Duration(0)
	case Bool:
		return false
	case List, Flags:
		return []string(nil)
	case IP:
		return netip.Addr{}
	case IPList:
		return []netip.Addr(nil)
	case String, Enum, File, Dir, Path, Address, MapName, Expr:
		return ""
	}
	return nil
}
