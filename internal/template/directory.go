package template

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// maxFiles bounds how many template files a folder may hold.
const maxFiles = 1000

// Options of a Directory.
type Options struct {
	// Dir is the folder. It need not exist; it may come later.
	Dir string
	// DefaultImage is the image of a CodeInterpreter that names none.
	DefaultImage string
	// Base are templates that are there without a file, such as Shipped. A
	// template of the same kind, namespace and name in a file takes the place
	// of one of them.
	Base []Template
	// Log gets a line for every change and every problem.
	Log *slog.Logger
}

// Directory is a Source of the files *.yaml, *.yml and *.json in one folder,
// without its subfolders and without names that begin with a dot.
//
// A file counts as a whole: when anything in it is wrong, what was last good of
// it stays, and Problems says what is wrong.
type Directory struct {
	opts Options

	current  atomic.Pointer[Set]
	problems atomic.Pointer[Problems]

	mu    sync.Mutex // held by reload
	files map[string]*file
}

// file is what is known of one file.
type file struct {
	digest    [sha256.Size]byte
	templates []Template // of the last good content
	problems  Problems   // of the present content
}

// NewDirectory returns the source of a folder, which holds Base until Load.
func NewDirectory(opts Options) *Directory {
	d := &Directory{opts: opts, files: map[string]*file{}}
	d.current.Store(NewSet(opts.Base...))
	d.problems.Store(&Problems{})
	return d
}

// Get implements Source.
func (d *Directory) Get(kind, namespace, name string) (Template, error) {
	return d.current.Load().Get(kind, namespace, name)
}

// List implements Source.
func (d *Directory) List() []Template { return d.current.Load().List() }

// Problems returns what is wrong with the files as they are now, by file and line.
func (d *Directory) Problems() []Problem { return slices.Clone(*d.problems.Load()) }

// Load reads the folder once more and takes over what is good. It fails only
// when the folder cannot be read; a missing one counts as empty. Mistakes in
// files are not errors of Load: see Problems.
func (d *Directory) Load(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	contents, unreadable, err := readFolder(d.opts.Dir)
	if err != nil {
		return fmt.Errorf("read template folder: %w", err)
	}
	maps.DeleteFunc(d.files, func(name string, _ *file) bool {
		_, there := contents[name]
		_, failed := unreadable[name]
		return !there && !failed
	})
	before := d.Problems()
	// What is loaded keeps its names: a file that changed cannot take one
	// over from a file that did not.
	owner := map[key]string{}
	var changed []string
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		f := d.files[name]
		if f == nil || len(f.problems) > 0 || f.digest != sha256.Sum256(contents[name]) {
			changed = append(changed, name)
			continue
		}
		f.claim(name, owner)
	}
	for _, name := range slices.Sorted(maps.Keys(unreadable)) {
		f := d.file(name)
		f.problems = Problems{{File: filepath.Join(d.opts.Dir, name), Text: unreadable[name].Error()}}
		f.claim(name, owner)
	}
	for _, name := range changed {
		d.reload(ctx, name, contents[name], owner)
	}
	d.publish(ctx, before)
	return nil
}

func (d *Directory) file(name string) *file {
	if d.files[name] == nil {
		d.files[name] = &file{}
	}
	return d.files[name]
}

// reload takes over the content of one file, or keeps what it had.
func (d *Directory) reload(ctx context.Context, name string, data []byte, owner map[key]string) {
	f := d.file(name)
	f.problems = nil
	path := filepath.Join(d.opts.Dir, name)
	templates, err := Parse(path, data, d.opts.DefaultImage)
	if err != nil && !errors.As(err, &f.problems) {
		f.problems = Problems{{File: path, Text: err.Error()}}
	}
	for _, t := range templates {
		if other, taken := owner[t.key()]; taken {
			f.problems = append(f.problems, Problem{File: path, Field: "metadata.name",
				Text: fmt.Sprintf("%s is already defined in %s", t.key(), other)})
		}
	}
	if len(f.problems) == 0 {
		f.templates, f.digest = templates, sha256.Sum256(data)
		d.opts.Log.InfoContext(ctx, "templates loaded", "file", path, "templates", len(templates))
	}
	f.claim(name, owner)
}

// claim enters the names of f's templates, dropping those that another file
// has by now.
func (f *file) claim(name string, owner map[key]string) {
	f.templates = slices.DeleteFunc(slices.Clone(f.templates), func(t Template) bool {
		_, taken := owner[t.key()]
		return taken
	})
	for _, t := range f.templates {
		owner[t.key()] = name
	}
}

func (d *Directory) publish(ctx context.Context, before []Problem) {
	all := slices.Clone(d.opts.Base)
	problems := Problems{}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		all = append(all, d.files[name].templates...)
		problems = append(problems, d.files[name].problems...)
	}
	d.current.Store(NewSet(all...))
	d.problems.Store(&problems)
	for _, p := range problems {
		if !slices.Contains(before, p) {
			d.opts.Log.ErrorContext(ctx, "template refused", "problem", p.String())
		}
	}
}

// readFolder returns the content of every template file, and the files that
// cannot be read with the reason.
func readFolder(dir string) (contents map[string][]byte, unreadable map[string]error, err error) {
	contents, unreadable = map[string][]byte{}, map[string]error{}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return contents, unreadable, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, entry := range entries {
		name := entry.Name()
		if !isTemplateFile(name) {
			continue
		}
		if len(contents)+len(unreadable) == maxFiles {
			return nil, nil, fmt.Errorf("%s holds more than %d template files", dir, maxFiles)
		}
		data, err := readFile(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			// Removed since, or a dangling link: not there.
		case err != nil:
			unreadable[name] = err
		case data != nil:
			contents[name] = data
		}
	}
	return contents, unreadable, nil
}

func isTemplateFile(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

// readFile returns the content of a regular file, one byte more than is
// allowed at most, and nil for a folder.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, nil
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if data == nil {
		data = []byte{}
	}
	return data, err
}
