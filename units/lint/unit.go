package lint

import (
	"path/filepath"
	"strings"
)

// Unit is a unit file with its drop-ins, in the order in which systemd applies
// them.
type Unit struct {
	Name     string // with its suffix: app.service
	Files    []string
	Settings []Setting // in the order of the files, what was taken back included

	sections map[string]Position // of the first header of each
	ignored  []directive
	broken   []problem
}

// Position is a line of a file; Line 0 is the file as a whole.
type Position struct {
	File string
	Line int // from 1
}

// Setting is a line "Name=Value" below a header "[Section]". A line that goes on
// after a backslash has the number of its first.
type Setting struct {
	Section, Name, Value string
	Position
}

// directive is a comment "# hdctl: ignore RULE".
type directive struct {
	rule string
	Position
}

// problem is a line that systemd ignores.
type problem struct {
	message string
	Position
}

// base is the name without its suffix: %N.
func (u *Unit) base() string { return strings.TrimSuffix(u.Name, filepath.Ext(u.Name)) }

func (u *Unit) isService() bool { return strings.HasSuffix(u.Name, ".service") }
func (u *Unit) isSocket() bool  { return strings.HasSuffix(u.Name, ".socket") }

// list returns the values of a setting that can be given more than once. An empty
// one takes back those before it.
func (u *Unit) list(section string, names ...string) []Setting {
	var list []Setting
	for _, s := range u.Settings {
		switch {
		case s.Section != section || !contains(names, s.Name):
		case s.Value == "":
			list = nil
		default:
			list = append(list, s)
		}
	}
	return list
}

// words returns the words of all values of a list, each as a setting of its own.
func (u *Unit) words(section string, names ...string) []Setting {
	var list []Setting
	for _, s := range u.list(section, names...) {
		for _, w := range words(s.Value) {
			s.Value = u.expand(w)
			list = append(list, s)
		}
	}
	return list
}

// last returns the value of a setting that has one: the last of those that are
// valid, since systemd ignores the others. valid may be nil. Several names are
// several spellings, or a setting and one that sets it, too.
func (u *Unit) last(valid func(string) bool, section string, names ...string) (Setting, bool) {
	list := u.list(section, names...)
	for i := len(list) - 1; i >= 0; i-- {
		if valid == nil || valid(list[i].Value) {
			return list[i], true
		}
	}
	return Setting{}, false
}

// is tells whether a boolean setting is there and on, and where.
func (u *Unit) is(section, name string) (Setting, bool) {
	s, ok := u.last(func(v string) bool { _, ok := parseBool(v); return ok }, section, name)
	if !ok {
		return s, false
	}
	on, _ := parseBool(s.Value)
	return s, on
}

// at is where a setting is missing: the header of its section, or the file.
func (u *Unit) at(section string) Position {
	if p, ok := u.sections[section]; ok {
		return p
	}
	if len(u.Files) > 0 {
		return Position{File: u.Files[0]}
	}
	return Position{File: u.Name}
}

// expand replaces the specifiers for the name of the unit; others are left alone
// (systemd.unit(5), "Specifiers").
func (u *Unit) expand(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	return strings.NewReplacer("%%", "%", "%n", u.Name, "%N", u.base(), "%p", u.base()).Replace(s)
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
