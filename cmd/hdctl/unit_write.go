package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// Words for what became of the file of a unit.
const (
	unitCreated   = "created"
	unitChanged   = "changed"
	unitUnchanged = "unchanged"
)

// unitFile is what became of the file of a unit. It is part of the JSON of unit
// generate.
type unitFile struct {
	Unit   string `json:"unit"`
	Path   string `json:"path"`
	Result string `json:"result"` // created, changed, unchanged

	before, after []byte // before is nil if it was not there
}

func unitPath(dir, unit string) string { return filepath.Join(dir, unit) }

// writeUnits brings the files into the directory. Each is replaced at once, and one
// that is already as it should be is not touched. On an error those that were
// written are put back; if that fails as well, the error names them.
func writeUnits(dir string, files map[string][]byte) ([]unitFile, error) {
	var all []unitFile
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := unitFile{Unit: name, Path: unitPath(dir, name), after: files[name], Result: unitUnchanged}
		var err error
		f.before, err = os.ReadFile(f.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			f.Result = unitCreated
		case err != nil:
			return nil, exitf(exitFailed, "read what is there: %w", err)
		case !bytes.Equal(f.before, f.after):
			f.Result = unitChanged
		}
		all = append(all, f)
	}
	for i, f := range all {
		if f.Result == unitUnchanged {
			continue
		}
		if err := writeFile(f.Path, f.after); err != nil {
			return nil, exitf(exitFailed, "%w", errors.Join(err, undoUnits(all[:i])))
		}
	}
	return all, nil
}

// undoUnits puts back what was there before. The error names what is left.
func undoUnits(files []unitFile) error {
	var errs []error
	for _, f := range files {
		var err error
		switch f.Result {
		case unitCreated:
			err = os.Remove(f.Path)
		case unitChanged:
			err = writeFile(f.Path, f.before)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s is new, and stays: %w", f.Path, err))
		}
	}
	return errors.Join(errs...)
}

// writeFile replaces a file by one that everybody can read.
func writeFile(path string, content []byte) error {
	return replaceFile(path, func(f *os.File) error {
		_, err := f.Write(content)
		return errors.Join(err, f.Chmod(fs.FileMode(0o644)))
	})
}
