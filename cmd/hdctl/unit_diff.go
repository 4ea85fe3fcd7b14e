package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/hdctl/handoff/units"
)

// diffCmd is "hdctl unit diff".
type diffCmd struct {
	Name string `arg:"" name:"name" help:"Name of the service."`

	unitFlags `embed:""`

	Root string `placeholder:"DIR" help:"Look at the file system below DIR, as of an image, and not at what systemd has loaded."`
}

// Help is shown by hdctl unit diff --help.
func (diffCmd) Help() string {
	return `Lines with - are in the installed files only, those with + are what unit generate
would write. Without any flag of the units, such as --exec, those are taken that the
installed unit has noted. The exit status is 0 if there is no difference, else 1.

Example:

    hdctl unit diff app
    hdctl unit diff app --listen http=8080 --exec /usr/bin/app --watchdog 30s
`
}

// diffReport is what "hdctl unit diff -o json" prints. Fields are only added.
type diffReport struct {
	Changed bool       `json:"changed"`
	Files   []unitDiff `json:"files"`
}

// unitDiff is the difference of a unit.
type unitDiff struct {
	Unit    string   `json:"unit"`
	Path    string   `json:"path"`   // of the installed file
	Result  string   `json:"result"` // unchanged, changed, missing, stale
	Diff    string   `json:"diff,omitempty"`
	DropIns []string `json:"drop_ins,omitempty"`
}

// Words for how an installed unit differs, beside unchanged and changed.
const (
	unitMissing = "missing" // is not installed
	unitStale   = "stale"   // would not be written
)

// Run compares.
func (c *diffCmd) Run(ctx context.Context, a *app) error {
	place := unitPlace{root: c.Root, install: true}
	s, err := c.unitFlags.resolve(ctx, a, c.Name, place)
	if err != nil {
		return err
	}
	files, err := renderUnits(s, "diff")
	if err != nil {
		return err
	}
	var r diffReport
	dirs := make(map[string]bool)
	add := func(d unitDiff, content []byte) error {
		installed, err := os.ReadFile(d.Path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return exitf(exitFailed, "read the installed unit: %w", err)
		}
		if err != nil {
			installed = nil
		}
		d.Diff = units.Diff(d.Path, installed, d.Unit, content)
		switch {
		case installed == nil:
			d.Result = unitMissing
		case content == nil:
			d.Result = unitStale
		case d.Diff != "":
			d.Result = unitChanged
		default:
			d.Result = unitUnchanged
		}
		r.Changed = r.Changed || d.Diff != ""
		r.Files = append(r.Files, d)
		return nil
	}
	for _, unit := range unitNames(s) {
		found := place.find(ctx, a, unit)
		dirs[filepath.Dir(found.path)] = true
		if err := add(unitDiff{Unit: unit, Path: found.path, DropIns: found.dropIns}, files[unit]); err != nil {
			return err
		}
	}
	for dir := range dirs {
		for _, path := range staleSockets(dir, s) {
			if err := add(unitDiff{Unit: filepath.Base(path), Path: path}, nil); err != nil {
				return err
			}
		}
	}
	return a.printDiff(&r)
}

// printDiff prints the differences, and is the exit status.
func (a *app) printDiff(r *diffReport) error {
	code := exitOK
	if r.Changed {
		code = exitFailed
	}
	if a.globals.Format == "json" || a.globals.Format == "jsonl" {
		if err := a.printJSON(r, a.globals.Format == "json"); err != nil {
			return err
		}
		return exitCode(code)
	}
	for _, d := range r.Files {
		for line := range strings.Lines(d.Diff) {
			if !a.quiet {
				a.printf("%s\n", a.paint(diffStyle(line), clean(strings.TrimSuffix(line, "\n"))))
			}
		}
		if len(d.DropIns) > 0 {
			a.notef("%s has settings in drop-ins, which are left alone: %s", d.Unit, clean(strings.Join(d.DropIns, ", ")))
		}
	}
	return exitCode(code)
}

// diffStyle is the colour of a line; what it says is in its first character.
func diffStyle(line string) style {
	switch {
	case strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"):
		return bold
	case strings.HasPrefix(line, "+"):
		return green
	case strings.HasPrefix(line, "-"):
		return red
	}
	return plain
}
