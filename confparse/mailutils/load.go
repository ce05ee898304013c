package mailutils

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"meta1/confparse/syntax"
)

// Files is where configurations are read from.
type Files interface {
	// Read gives a file's text, syntax.ErrTooLarge if it has more than most bytes.
	Read(path string, most int) (string, error)
	// IsDir reports whether there is a folder of that name.
	IsDir(path string) bool
}

// Disk is the file system.
type Disk struct{}

// Read reads a file.
func (Disk) Read(path string, most int) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(text) > most {
		err = syntax.ErrTooLarge
	}
	return string(text), err
}

// IsDir reports whether there is a folder of that name.
func (Disk) IsDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Map is a file system in memory: text by path. A path that ends in / is a folder.
type Map map[string]string

// Read gives the text of a path.
func (m Map) Read(path string, most int) (string, error) {
	text, ok := m[path]
	if !ok {
		return "", &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
	}
	if len(text) > most {
		return "", syntax.ErrTooLarge
	}
	return text, nil
}

// IsDir reports whether there is a folder of that name.
func (m Map) IsDir(path string) bool {
	_, ok := m[filepath.Clean(path)+"/"]
	return ok
}

// File is a configuration as it was read: the statements of the file, those of files that it
// includes in their place, and behind them those of blocks program with the program's name.
type File struct {
	Stmts []*Stmt
	Names []string // the files that were read, as they were named, in order
	Diags syntax.Diags
}

// Err is all mistakes, nil for none.
func (f *File) Err() error {
	order := map[string]int{}
	for i, n := range f.Names {
		order[n] = i
	}
	return f.Diags.Err(order)
}

// Load reads a configuration file for a program. Mistakes are in File.Diags, where the caller
// adds its own; the error is one of reading the file itself. The name of an included file is
// relative to the folder of the file that names it.
func Load(files Files, name, program string) (*File, error) {
	l := &loader{files: files, program: program, nodes: syntax.MaxNodes, room: syntax.MaxBytes, file: &File{}}
	text, err := files.Read(name, l.room)
	if err != nil {
		return l.file, fmt.Errorf("reading the configuration: %w", err)
	}
	list := l.read(name, text)
	l.file.Stmts = append(list, l.later...)
	return l.file, nil
}

type loader struct {
	files   Files
	program string
	nodes   int // that there may be more
	room    int // bytes that may be read more
	file    *File
	stack   []string
	later   []*Stmt // of blocks program
}

// read parses a text and puts what it includes in place.
func (l *loader) read(name, text string) []*Stmt {
	l.room -= len(text)
	l.file.Names = append(l.file.Names, name)
	l.stack = append(l.stack, name)
	defer func() { l.stack = l.stack[:len(l.stack)-1] }()
	src := &syntax.Source{Name: name, Path: name, Text: text}
	return l.resolve(Parse(src, &l.file.Diags, &l.nodes), name, true)
}

// resolve replaces include and program. Both have a meaning at the top alone.
func (l *loader) resolve(stmts []*Stmt, name string, top bool) (list []*Stmt) {
	for _, s := range stmts {
		switch {
		case s.Keyword == "include" && !s.Block:
			list = append(list, l.include(s, name)...)
		case s.Keyword == "program" && s.Block && top:
			if s.Tag() == "" {
				l.file.Diags.Errorf(s.At, "the name of a program", "", "program without a name")
			}
			if body := l.resolve(s.Body, name, false); s.Tag() == l.program {
				l.later = append(l.later, body...)
			}
		case s.Block:
			s.Body = l.resolve(s.Body, name, false)
			list = append(list, s)
		default:
			list = append(list, s)
		}
	}
	return list
}

// include reads the file that a statement names.
func (l *loader) include(s *Stmt, from string) []*Stmt {
	if len(s.Args) != 1 || s.Args[0].List {
		l.file.Diags.Errorf(s.At, "include FILE;", "", "include takes one file or folder")
		return nil
	}
	v := s.Args[0].Values[0]
	path := v.Text
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(from), path)
	}
	ofDir := l.files.IsDir(path)
	if ofDir {
		path = filepath.Join(path, l.program)
	}
	switch {
	case slices.Contains(l.stack, path):
		l.file.Diags.Errorf(v.At, "", "", "%s includes itself", syntax.ShownWord(path))
		return nil
	case len(l.stack) >= syntax.MaxDepth:
		l.file.Diags.Errorf(v.At, "", "", "files are included more than %d deep", syntax.MaxDepth)
		return nil
	}
	text, err := l.files.Read(path, l.room)
	switch {
	case ofDir && errors.Is(err, os.ErrNotExist): // a folder without a file for this program
		return nil
	case err != nil:
		l.file.Diags.Errorf(v.At, "", "", "including %s: %v", syntax.ShownWord(path), err)
		return nil
	}
	return l.read(path, text)
}
