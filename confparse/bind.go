package confparse

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"meta1/confparse/syntax"
)

// binder fills the fields of a tree of tables from a tree of entries.
type binder struct {
	*syntax.Diags
	res  *Result
	root *Table
	rows []Row // of root, made for the first misplaced name
	size int   // rows of all sections that were read
	line bool  // it is one value of a map

	notYet []mention // of NotYet rows

	set map[string][]*syntax.Entry // of LoadOptions.Set, by section
}

// mention is where a file names a row.
type mention struct {
	name string
	at   syntax.Span
}

// maxRows bounds the table rows of all sections of one configuration, and with them
// what it takes in memory. A server section has some 200.
const maxRows = 50_000

func (b *binder) bindRoot(body []*syntax.Entry, at syntax.Span) *Section {
	root := &Section{Table: b.root, Present: true, at: at}
	b.bind(root, body)
	b.reportNotYet()
	return root
}

// bind reads the entries of a section, applies its defaults and checks it.
func (b *binder) bind(s *Section, body []*syntax.Entry) {
	if b.size += len(s.Table.Options); b.size > maxRows {
		b.Errorf(s.at, "", "", "configuration has too many sections")
		b.TooMany = true
		return
	}
	r := &reading{
		binder: b, sec: s, set: map[*Option]*Setting{}, subs: map[*Option][]*Section{},
		named: map[string]*Section{},
	}
	for _, e := range b.override(s, body) {
		if b.TooMany {
			return
		}
		r.entry(e)
	}
	r.arrange()
	if !s.Present {
		return
	}
	if s.Table.Check != nil {
		s.Table.Check(&Report{sec: s, diags: b.Diags, dir: b.res.dir})
	}
	if s.Table.Done != nil {
		s.Table.Done()
	}
}

// override gives the entries of a section with what is set beside the file: an option
// in place of the file's, flags behind those of the file.
func (b *binder) override(s *Section, body []*syntax.Entry) []*syntax.Entry {
	for _, own := range b.set[s.keywords()] {
		kept := make([]*syntax.Entry, 0, len(body)+1)
		for _, e := range body {
			switch same := strings.EqualFold(e.Name, own.Name) && e.Form != syntax.FormSection; {
			case !same:
				kept = append(kept, e)
			case strings.EqualFold(e.Name, "flags") && e.Form == syntax.FormList:
				both := *own
				both.Values = append(e.Values[:len(e.Values):len(e.Values)], own.Values...)
				own = &both
			}
		}
		body = append(kept, own)
	}
	return body
}

// keywords is the path of a section without names, in lower case.
func (s *Section) keywords() string {
	if s.parent == nil {
		return ""
	}
	return joinPath(s.parent.keywords(), strings.ToLower(s.Keyword))
}

// reading is one section while it is read.
type reading struct {
	*binder
	sec    *Section
	set    map[*Option]*Setting
	subs   map[*Option][]*Section
	others []*Section          // services
	named  map[string]*Section // by keyword in lower case, and name
	flags  *syntax.Entry       // the section's flags option
}

func (r *reading) entry(e *syntax.Entry) {
	if e.Form == syntax.FormSection {
		r.section(e)
		return
	}
	if o := r.sec.Table.find(KindOption, e.Name); o != nil {
		r.option(o, e)
		return
	}
	if strings.EqualFold(e.Name, "flags") && len(r.sec.Table.names(KindFlag)) > 0 {
		r.flagList(e)
		return
	}
	r.unknown(e, KindOption)
}

// option reads one option.
func (r *reading) option(o *Option, e *syntax.Entry) {
	if old := r.set[o]; old != nil {
		r.Errorf(e.At, "", "it is first set at "+old.Origin().String(), "%s is set twice", o.Name)
		return
	}
	s := &Setting{Option: o, IsSet: true, at: e.At}
	r.set[o] = s
	if len(e.Values) > 0 {
		s.at = e.Values[0].At
	}
	if o.Secret {
		r.Hide(s.at)
	}
	v, wrong := o.convert(e.Form, e.Values, r.res.dir)
	if wrong == nil {
		s.Value = v
		wrong = o.store(v)
	}
	if wrong != nil {
		s.failed = true
		at := wrong.at
		if at.Src == nil {
			at = s.at
		}
		r.Errorf(at, wrong.expected, wrong.suggestion, "%s: %s", o.Name, wrong.msg)
		return
	}
	r.effect(o, e.At)
}

// effect warns of an option, flag or section that has no effect where it stands. One
// warning for a section stands for all that is in it.
func (r *reading) effect(o *Option, at syntax.Span) {
	service := false
	for s := r.sec; s != nil; s = s.parent {
		service = service || s.Service
		if s.row != nil && s.row.Effect != Real && s.row.Effect != "" {
			return
		}
	}
	path, name := joinPath(r.sec.Path(), o.Name), o.Name
	if o.kind() == KindSection {
		name = "section " + name
	}
	switch {
	case o.Effect == Host && !service:
		r.res.NoEffect = append(r.res.NoEffect, path)
		r.Report(syntax.NewDiagnostic(SeverityWarning, at, name+" has no effect in one process"))
	case o.Effect == None:
		r.res.NoEffect = append(r.res.NoEffect, path)
		r.Report(syntax.NewDiagnostic(SeverityWarning, at, name+" has no effect"))
	case o.Effect == NotYet:
		r.res.NotYet = append(r.res.NotYet, path)
		r.notYet = append(r.notYet, mention{name, at})
	}
}

// reportNotYet warns of what is not yet in effect, unless a section's Check has said
// at the same place what follows from it.
func (b *binder) reportNotYet() {
	for _, m := range b.notYet {
		d := syntax.NewDiagnostic(SeverityWarning, m.at, m.name+" is not yet in effect")
		if !slices.ContainsFunc(b.Warnings, func(w Diagnostic) bool { return w.Pos == d.Pos }) {
			b.Report(d)
		}
	}
}

// flagList reads flags = { ... } into the section's flag rows.
func (r *reading) flagList(e *syntax.Entry) {
	if r.flags != nil {
		r.Errorf(e.At, "", "they are first set at "+r.flags.At.Pos().String(), "flags are set twice")
		return
	}
	r.flags = e
	values := e.Values
	switch e.Form {
	case syntax.FormOption:
		values = splitValue(values[0])
	case syntax.FormExpr:
		r.Errorf(e.At, `"="`, "", `flags: "==" is for boolean expressions only`)
		return
	}
	for _, v := range values {
		r.flag(v)
	}
}

func (r *reading) flag(v syntax.Value) {
	names := r.sec.Table.names(KindFlag)
	name, on, ok := findFlag(v.Text, names)
	if !ok {
		b := badFlag(v.Text, names)
		r.Errorf(v.At, b.expected, b.suggestion, "%s of %s", b.msg, r.where())
		return
	}
	o := r.sec.Table.find(KindFlag, name)
	if old := r.set[o]; old != nil && old.Value != on {
		r.Errorf(v.At, "", "see "+old.Origin().String(), "flag %s is both set and cleared", name)
		return
	}
	r.set[o] = &Setting{Option: o, IsSet: true, at: v.At, Value: on}
	if wrong := o.store(on); wrong != nil {
		r.Errorf(v.At, "", "", "%s: %s", name, wrong.msg)
	}
	if on || o.Effect != NotYet { // who clears a flag gets what they want
		r.effect(o, v.At)
	}
}

// where names the section for a message.
func (r *reading) where() string {
	switch {
	case r.sec.parent == nil && r.line:
		return "this value"
	case r.sec.parent == nil:
		return "the global section"
	case r.sec.Service:
		return "service section " + r.sec.Title()
	}
	return "section " + r.sec.Title()
}

// section reads one section.
func (r *reading) section(e *syntax.Entry) {
	o := r.sec.Table.find(KindSection, e.Name)
	if o == nil {
		r.service(e)
		return
	}
	name := ""
	if e.Label != nil {
		name = e.Label.Text
	}
	if !r.nameFits(o, e, name) {
		return
	}
	name, _ = findWord(name, o.Words)
	r.effect(o, e.At)
	s := &Section{Keyword: o.Name, Name: name, Table: o.Sub}
	if o.New != nil {
		s.Table = o.New(name)
	}
	if o.Present != nil {
		*o.Present = true
	}
	s.row = o
	r.enter(s, e)
	r.subs[o] = append(r.subs[o], s)
}

// enter binds a section below the one that is read.
func (r *reading) enter(s *Section, e *syntax.Entry) {
	s.parent, s.Present, s.at = r.sec, true, e.At
	if key := strings.ToLower(s.Keyword) + " " + s.Name; r.named[key] == nil {
		r.named[key] = s
	}
	if s.Table == nil {
		s.Table = &Table{}
	}
	r.bind(s, e.Body)
}

// nameFits checks a section's name and that it may stand once more.
func (r *reading) nameFits(o *Option, e *syntax.Entry, name string) bool {
	at := e.At
	if e.Label != nil {
		at = e.Label.At
	}
	switch {
	case o.New == nil && e.Label != nil:
		r.Errorf(at, `"{"`, "", "section %s takes no name", o.Name)
		return false
	case o.New != nil && o.Named && name == "":
		r.Errorf(at, "a name: "+o.Name+" name { ... }", "", "section %s needs a name", o.Name)
		return false
	case strings.ContainsFunc(name, syntax.IsControl):
		r.Errorf(at, "", "", "control character in the name of a section")
		return false
	}
	if name != "" && len(o.Words) > 0 {
		if _, ok := findWord(name, o.Words); !ok {
			r.Errorf(at, "one of "+strings.Join(o.Words, ", "), DidYouMean(name, o.Words),
				"%s is no name of a section %s", syntax.ShownWord(name), o.Name)
			return false
		}
		return true
	}
	if o.New != nil && (name == "" || o.Repeat) {
		return true
	}
	return r.first(o.Name, name, at)
}

// first says whether no section of that keyword and name was read before.
func (r *reading) first(keyword, name string, at syntax.Span) bool {
	old, twice := r.named[strings.ToLower(keyword)+" "+name]
	if twice {
		r.Errorf(at, "", "the first one is at "+old.Pos().String(), "section %s stands twice", old.Title())
	}
	return !twice
}

// service reads a section that no row declares.
func (r *reading) service(e *syntax.Entry) {
	t := r.sec.Table
	if t.Any == nil || t.find(KindOption, e.Name) != nil {
		r.unknown(e, KindSection)
		return
	}
	s := &Section{Keyword: e.Name, Service: true}
	if e.Label != nil {
		s.Name = e.Label.Text
	}
	if strings.ContainsFunc(s.Name, syntax.IsControl) {
		r.Errorf(e.Label.At, "", "", "control character in the name of a section")
		return
	}
	if !r.first(s.Keyword, s.Name, e.At) {
		return
	}
	if s.Table = t.Any(s.Keyword, s.Name); s.Table == nil {
		r.unknown(e, KindSection)
		return
	}
	r.enter(s, e)
	r.others = append(r.others, s)
}

// unknown reports a name that the section does not have.
func (r *reading) unknown(e *syntax.Entry, k Kind) {
	t := r.sec.Table
	expected, suggestion := "", DidYouMean(e.Name, t.names(k))
	if r.sec.Service && r.sec.parent != nil {
		if n := nearest(r.sec.Keyword, r.sec.parent.Table.names(KindSection)); n != "" {
			suggestion = "did you mean section " + n + "?"
		}
	}
	switch {
	case t.find(KindSection, e.Name) != nil:
		expected, suggestion = t.find(KindSection, e.Name).Name+" { ... }", "it is a section, not an option"
	case t.find(KindOption, e.Name) != nil:
		expected, suggestion = t.find(KindOption, e.Name).Name+" = value;", "it is an option, not a section"
	case t.find(KindFlag, e.Name) != nil:
		suggestion = "it is a flag: flags = { " + t.find(KindFlag, e.Name).Name + " };"
	case strings.EqualFold(e.Name, "flags") && len(t.names(KindFlag)) > 0:
		expected, suggestion = "flags = { flag, flag };", "it is an option, not a section"
	case suggestion == "":
		suggestion = r.elsewhere(e.Name, k)
	}
	r.Errorf(e.At, expected, suggestion, "unknown %s %s in %s", k, syntax.ShownWord(e.Name), r.where())
}

// elsewhere says in which other section a name would be right, or "".
func (r *reading) elsewhere(name string, k Kind) string {
	if r.rows == nil {
		r.rows = Rows(r.root)
	}
	var in []string
	for _, row := range r.rows {
		if row.Kind == k && strings.EqualFold(row.Name, name) && len(in) < 4 {
			in = append(in, strings.Replace(row.Section, "global", "the global section", 1))
		}
	}
	if len(in) == 0 {
		return ""
	}
	return "it belongs in " + strings.Join(in, ", ")
}

// arrange puts what was read in the order of the table, with defaults for the rest.
func (r *reading) arrange() {
	s := r.sec
	for i := range s.Table.Options {
		o := &s.Table.Options[i]
		if o.kind() == KindSection {
			r.arrangeSection(o)
			continue
		}
		v := r.set[o]
		if v == nil {
			v = r.fallback(o)
		}
		if v != nil {
			s.Settings = append(s.Settings, v)
		}
	}
	s.Subs = append(s.Subs, r.others...)
}

func (r *reading) arrangeSection(o *Option) {
	list := r.subs[o]
	if len(list) == 0 && o.Required && r.sec.Present {
		r.missing(o)
	}
	if len(list) == 0 && o.Sub != nil {
		absent := &Section{Keyword: o.Name, Table: o.Sub, row: o, parent: r.sec}
		r.bind(absent, nil)
		list = []*Section{absent}
	}
	r.sec.Subs = append(r.sec.Subs, list...)
}

// fallback gives an option its default, or reports that it must be set. nil if
// there is no value at all.
func (r *reading) fallback(o *Option) *Setting {
	if o.Required && r.sec.Present {
		r.missing(o)
		return nil
	}
	if o.Default == "" {
		if v := o.current(); v != nil || o.kind() != KindFlag {
			return v
		}
		return &Setting{Option: o, Value: false}
	}
	v, err := o.defaultValue(r.res.dir)
	if err == nil {
		if wrong := o.store(v); wrong != nil {
			err = wrong
		}
	}
	if err != nil {
		r.Errorf(syntax.Span{}, "", "", "option table: default of %s: %v", joinPath(r.sec.Path(), o.Name), err)
		return nil
	}
	return &Setting{Option: o, Value: v}
}

func (r *reading) missing(o *Option) {
	d := r.sec.diagnose(SeverityError, "", fmt.Sprintf("%s lacks %s", r.where(), o.Name))
	d.Expected = o.Name + o.assign() + o.Expects()
	if o.kind() == KindSection {
		d.Expected = o.Name + " { ... }"
	}
	r.Report(d)
}

// defaultValue parses Default, which is written as in the file but without the
// semicolon.
func (o *Option) defaultValue(dir string) (any, error) {
	if o.kind() == KindFlag {
		v, wrong := (&Option{Name: o.Name, Type: Bool}).boolean(o.Default)
		if wrong != nil {
			return nil, wrong
		}
		return v, nil
	}
	return o.parse(o.Default, dir)
}

// parse reads one value from text in the syntax of the configuration file.
func (o *Option) parse(text, dir string) (any, error) {
	in, op := &syntax.Input{Nodes: syntax.MaxNodes}, " = "
	if o.Type == Expr {
		op = " == "
	}
	body, _ := syntax.Parse(&syntax.Source{Name: "value", Text: "v" + op + text + ";"}, in)
	if len(in.Errs) > 0 {
		return nil, errors.New(in.Errs[0].Message)
	}
	if len(body) != 1 {
		return nil, fmt.Errorf("%s is not one value", syntax.ShownWord(text))
	}
	v, wrong := o.convert(body[0].Form, body[0].Values, dir)
	if wrong != nil {
		return nil, wrong
	}
	return v, nil
}

// current reads the field of an option that is neither set nor has a default; nil
// if there is nothing to tell.
func (o *Option) current() *Setting {
	if o.Into == nil {
		return nil
	}
	e := reflect.ValueOf(o.Into).Elem()
	if e.IsZero() {
		return nil
	}
	switch {
	case o.Type == Time && e.CanInt():
		return &Setting{Option: o, Value: time.Duration(e.Int())}
	case e.CanInt():
		return &Setting{Option: o, Value: e.Int()}
	case e.CanUint():
		return &Setting{Option: o, Value: int64(e.Uint())}
	case e.Kind() == reflect.String:
		return &Setting{Option: o, Value: e.String()}
	case e.Kind() == reflect.Bool:
		return &Setting{Option: o, Value: e.Bool()}
	}
	return &Setting{Option: o, Value: e.Interface()}
}

// store puts v into the field; a named type of the same kind will do, too.
func (o *Option) store(v any) *badValue {
	if o.Into == nil {
		return nil
	}
	p := reflect.ValueOf(o.Into)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return bad("", "option table: Into is %T, not a pointer to a field", o.Into)
	}
	e, in := p.Elem(), reflect.ValueOf(v)
	n, isNumber := count(v)
	switch {
	case isNumber && e.CanInt() && !e.OverflowInt(n):
		e.SetInt(n)
	case isNumber && e.CanUint() && n >= 0 && !e.OverflowUint(uint64(n)):
		e.SetUint(uint64(n))
	case isNumber && (e.CanInt() || e.CanUint()):
		return bad(o.Expects(), "%s is out of range", o.format(v))
	case !isNumber && e.Kind() == in.Kind() && in.CanConvert(e.Type()):
		e.Set(in.Convert(e.Type()))
	default:
		return bad("", "option table: Into is %T, which does not fit type %s", o.Into, o.Type)
	}
	return nil
}
