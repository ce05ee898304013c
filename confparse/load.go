package confparse

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"meta1/confparse/syntax"
)

const (
	// maxFiles bounds the files of one configuration.
	maxFiles = 1000
	// maxInclude bounds how deep files include each other.
	maxInclude = 16
)

// FS is where configuration files are read from. Names are absolute paths.
type FS interface {
	// Open opens a file for reading.
	Open(name string) (io.ReadCloser, error)
	// Glob gives the files that match a pattern of path/filepath.
	Glob(pattern string) ([]string, error)
}

type diskFS struct{}

// Open refuses a named pipe, with which a reload would wait for ever for somebody who writes. What a shell passes by a
// descriptor (/dev/fd/63) can be read.
func (diskFS) Open(name string) (io.ReadCloser, error) {
	info, err := os.Stat(name)
	if err == nil && info.Mode()&fs.ModeNamedPipe != 0 && !strings.HasPrefix(name, "/dev/") && !strings.HasPrefix(name, "/proc/") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("it is a named pipe")}
	}
	return os.Open(name)
}

func (diskFS) Glob(pattern string) ([]string, error) { return filepath.Glob(pattern) }

// Files is an FS in memory: text by absolute path.
type Files map[string]string

// Open opens the text of a name.
func (f Files) Open(name string) (io.ReadCloser, error) {
	text, ok := f[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

// Glob gives the names that match.
func (f Files) Glob(pattern string) ([]string, error) {
	var names []string
	for name := range f {
		ok, err := filepath.Match(pattern, name)
		if err != nil {
			return nil, err
		}
		if ok {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names, nil
}

// LoadOptions say how Load reads. The zero value reads from disk.
type LoadOptions struct {
	// FS is where files are read from; nil for the disk.
	FS FS
	// Partial reads what can be read of a file in which something is wrong: then the
	// Result has a Root, with what could be understood in it and defaults for the rest.
	Partial bool
	// Set are options of a command line. They override those of the file.
	Set []Assignment
	// Missing says what to do if there is no such file; "" for nothing.
	Missing string
}

// Assignment sets options beside the file.
type Assignment struct {
	// Section is the path of keywords of the sections that have the options: "qmgr/smtpc",
	// or "smtps" for all sections smtps; "" for the global section. Sections that the file
	// does not have are set, too, but for those that may stand several times.
	Section string
	// Text are the options as a file would have them. Flags are added to those of the file.
	Text string
	// Source is how messages name the place: "option -C".
	Source string
}

// Load reads a configuration into the fields of root's rows. Every mistake is in
// the error, which is an [Errors]; then nothing that was read may be used, unless that was
// asked for (Partial). The
// Result is never nil: with an error it still has the warnings and the files.
func Load(opts LoadOptions, file string, root *Table) (*Result, error) {
	l := &loader{Input: syntax.Input{Nodes: syntax.MaxNodes}, fs: opts.FS, order: map[string]int{}}
	if l.fs == nil {
		l.fs = diskFS{}
	}
	res := &Result{}
	path, err := filepath.Abs(file)
	if err != nil {
		return res, Errors{{Severity: SeverityError, Message: fmt.Sprintf("finding %s: %v", syntax.ShownWord(file), err)}}
	}
	body, err := l.read(file, path)
	if err != nil {
		d := Diagnostic{
			Pos: Pos{File: file}, Severity: SeverityError,
			Message: "reading the configuration: " + reason(err),
		}
		if errors.Is(err, fs.ErrNotExist) {
			d.Suggestion = opts.Missing
		}
		l.Report(d)
	}
	res.dir, res.File, res.Files = filepath.Dir(path), path, l.files
	if err == nil && (opts.Partial || !l.Broken) {
		b := &binder{Diags: &l.Diags, res: res, root: root, set: l.assignments(opts.Set)}
		res.Root = b.bindRoot(body, syntax.Span{Src: l.main})
	}
	syntax.SortDiagnostics(l.Warnings, l.order)
	res.Warnings = l.Warnings
	return res, l.Err(l.order)
}

// assignments parses what is set beside the file.
func (l *loader) assignments(list []Assignment) map[string][]*syntax.Entry {
	set := map[string][]*syntax.Entry{}
	for _, a := range list {
		body, _ := syntax.Parse(&syntax.Source{Name: a.Source, Text: a.Text}, &l.Input)
		set[strings.ToLower(a.Section)] = append(set[strings.ToLower(a.Section)], body...)
	}
	return set
}

// ReadLine reads one value of a map (see [syntax.ParseLine]) into the fields of root's
// rows, as Load does with a file. nodes bounds its entries and values. The error is
// about the first mistake; then nothing that was read may be used.
func ReadLine(text string, nodes int, root *Table) error {
	body, err := syntax.ParseLine(text, nodes)
	if err != nil {
		return err
	}
	b := &binder{Diags: &syntax.Diags{}, res: &Result{}, root: root, line: true}
	b.bindRoot(body, syntax.Span{Src: &syntax.Source{}})
	if len(b.Errs) > 0 {
		return errors.New(b.Errs[0].Brief())
	}
	return nil
}

// loader reads a file and those it includes.
type loader struct {
	syntax.Input
	fs    FS
	bytes int
	main  *syntax.Source
	files []string       // opened, in order
	order map[string]int // shown name -> place in files
	stack []string       // paths being read
}

// read parses the file at path and puts included entries in their place.
func (l *loader) read(name, path string) ([]*syntax.Entry, error) {
	if len(l.files) >= maxFiles {
		return nil, fmt.Errorf("more than %d files", maxFiles)
	}
	text, err := l.text(path)
	if err != nil {
		return nil, err
	}
	src := &syntax.Source{Name: name, Path: path, Text: text}
	if l.main == nil {
		l.main = src
	}
	if _, ok := l.order[name]; !ok {
		l.order[name] = len(l.files)
	}
	l.files = append(l.files, path)
	l.stack = append(l.stack, path)
	defer func() { l.stack = l.stack[:len(l.stack)-1] }()
	body, _ := syntax.Parse(src, &l.Input)
	return l.expand(src, body), nil
}

func (l *loader) text(path string) (string, error) {
	f, err := l.fs.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	room := MaxBytes - l.bytes
	var b strings.Builder
	n, err := io.Copy(&b, io.LimitReader(f, int64(room)+1))
	if err != nil {
		return "", err
	}
	if n > int64(room) {
		return "", syntax.ErrTooLarge
	}
	l.bytes += int(n)
	return b.String(), nil
}

// expand replaces the include directives of body by what they include.
func (l *loader) expand(src *syntax.Source, body []*syntax.Entry) []*syntax.Entry {
	out := body[:0:0]
	for _, e := range body {
		switch e.Form {
		case syntax.FormInclude:
			out = append(out, l.include(src, e.Values[0])...)
			continue
		case syntax.FormSection:
			e.Body = l.expand(src, e.Body)
		}
		out = append(out, e)
	}
	return out
}

// include reads the files of one directive. A name is relative to the file that
// includes it; a pattern may match nothing, a plain name must exist.
func (l *loader) include(src *syntax.Source, v syntax.Value) []*syntax.Entry {
	if v.Text == "" {
		l.Errorf(v.At, "the name of a file", "", "include without a name")
		return nil
	}
	path := absolute(filepath.Dir(src.Path), v.Text)
	paths := []string{path}
	if strings.ContainsAny(v.Text, "*?[") {
		var err error
		if paths, err = l.fs.Glob(path); err != nil {
			l.Errorf(v.At, "", "", "pattern %s: %v", syntax.ShownWord(v.Text), err)
			return nil
		}
		sort.Strings(paths)
	}
	var out []*syntax.Entry
	for _, p := range paths {
		out = append(out, l.includeOne(shownName(src, v.Text, p), p, v)...)
	}
	return out
}

func (l *loader) includeOne(name, path string, v syntax.Value) []*syntax.Entry {
	for i, open := range l.stack {
		if open == path {
			l.Errorf(v.At, "", "", "include cycle: %s",
				syntax.Clean(strings.Join(append(l.stack[i:len(l.stack):len(l.stack)], path), " includes ")))
			return nil
		}
	}
	if len(l.stack) >= maxInclude {
		l.Errorf(v.At, "", "", "files include each other more than %d deep", maxInclude)
		return nil
	}
	body, err := l.read(name, path)
	if err != nil {
		l.Errorf(v.At, "", "", "including %s: %s", syntax.ShownWord(name), reason(err))
	}
	return body
}

// absolute makes name absolute, relative to dir.
func absolute(dir, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(dir, name)
}

// shownName is how an included file is called in messages: by a path that starts
// where the one of the including file starts.
func shownName(src *syntax.Source, written, path string) string {
	if filepath.IsAbs(written) || filepath.IsAbs(src.Name) {
		return path
	}
	rel, err := filepath.Rel(filepath.Dir(src.Path), path)
	if err != nil {
		return path
	}
	return filepath.Join(filepath.Dir(src.Name), rel)
}

// reason is the text of err without the path, which the message names already.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return syntax.Clean(err.Error())
}
