package main

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/hdctl/handoff/units"
)

// commandLine is the command that asks for the units of a service, as it is noted
// in them: the same flags give the same words, whatever their order was, and where
// the files go is none of them.
func (c *unitFlags) commandLine(name string, user bool) []string {
	words := []string{"hdctl"}
	if user {
		words = append(words, "--user")
	}
	return append(append(words, "unit", "generate", name), c.words()...)
}

// words are the flags that are set, as a command line has them.
func (c *unitFlags) words() []string {
	var words []string
	v := reflect.ValueOf(*c)
	for i := range v.NumField() {
		flag := "--" + kebab(v.Type().Field(i).Name)
		switch f := v.Field(i).Interface().(type) {
		case []string:
			for _, s := range f {
				words = append(words, flag+"="+s)
			}
		case bool:
			if f {
				words = append(words, flag)
			}
		case int:
			if f != 0 {
				words = append(words, flag+"="+strconv.Itoa(f))
			}
		default: // a string, or a duration
			if !v.Field(i).IsZero() {
				words = append(words, flag+"="+fmt.Sprint(f))
			}
		}
	}
	return words
}

// kebab is how kong makes the name of a flag of that of a field.
func kebab(field string) string {
	var b strings.Builder
	for i, r := range field {
		if r >= 'A' && r <= 'Z' && i > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

// errNoCommand says that a unit does not tell how it was made.
var errNoCommand = errors.New("has no command line noted in it")

// recordedFlags returns the flags that are noted in a service unit of that name.
func recordedFlags(content []byte, name string, user bool) (unitFlags, error) {
	var none unitFlags
	words, err := units.RecordedCommand(content)
	switch {
	case err != nil:
		return none, err
	case words == nil:
		return none, errNoCommand
	}
	var line struct {
		User bool
		Unit struct {
			Generate struct {
				Name  string    `arg:""`
				Flags unitFlags `embed:""`
			} `cmd:""`
		} `cmd:""`
	}
	parser, err := kong.New(&line, kong.Name("hdctl"), kong.Exit(func(int) {}))
	if err != nil {
		return none, fmt.Errorf("the grammar of the command line: %w", err)
	}
	if _, err := parser.Parse(words[1:]); err != nil {
		return none, fmt.Errorf("the command line in it: %w", err)
	}
	g := line.Unit.Generate
	if g.Name != name || line.User != user {
		return none, fmt.Errorf("the command line in it is for another unit: %s", clean(strings.Join(words, " ")))
	}
	return g.Flags, nil
}
