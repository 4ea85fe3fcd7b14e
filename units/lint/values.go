package lint

import (
	"strings"
	"time"

	"github.com/hdctl/handoff/units"
)

// parseBool reads a boolean as systemd does (systemd.syntax(7)).
func parseBool(s string) (value, ok bool) {
	switch strings.ToLower(s) {
	case "1", "yes", "y", "true", "t", "on":
		return true, true
	case "0", "no", "n", "false", "f", "off":
		return false, true
	}
	return false, false
}

// parseTimeout reads a time limit of a service, of which 0 means none.
func parseTimeout(s string) (time.Duration, bool) {
	d, ok := units.ParseSpan(s)
	if ok && d == 0 {
		d = units.Infinity
	}
	return d, ok
}

// word is a part of a value. Whether it was quoted, or has an escape, matters to a
// word that would mean something else without.
type word struct {
	text   string
	quoted bool
}

// split splits a value as systemd does: at white space, but not in quotes
// (systemd.syntax(7), "Quoting"). Of the escapes only those are understood that stand
// for the character behind the backslash.
func split(s string) []word {
	var list []word
	var text strings.Builder
	quote, open, quoted := byte(0), false, false
	end := func() {
		if open {
			list = append(list, word{text.String(), quoted})
		}
		text.Reset()
		open, quoted = false, false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			text.WriteByte(s[i])
			open, quoted = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, open, quoted = c, true, true
		case quote == 0 && strings.IndexByte(whitespace, c) >= 0:
			end()
		default:
			text.WriteByte(c)
			open = true
		}
	}
	end()
	return list
}

// words are the texts of split.
func words(s string) []string {
	var list []string
	for _, w := range split(s) {
		list = append(list, w.text)
	}
	return list
}

// command is a line of ExecStart= and the like.
type command struct {
	prefix string // of prefixes
	argv   []string
	Setting
}

// prefixes are the characters that may stand in front of a path: systemd.service(5),
// "Command lines".
const prefixes = "@-:+!|"

// commands returns the command lines of a setting. A word ";" separates two, if it
// is not quoted.
func (u *Unit) commands(name string) []command {
	var list []command
	for _, s := range u.list("Service", name) {
		c := command{Setting: s}
		for _, w := range split(s.Value) {
			switch {
			case w.text == ";" && !w.quoted:
				if len(c.argv) > 0 {
					list = append(list, c)
				}
				c = command{Setting: s}
			case len(c.argv) == 0:
				path := strings.TrimLeft(w.text, prefixes)
				c.prefix = w.text[:len(w.text)-len(path)]
				c.argv = append(c.argv, u.expand(path))
			default:
				c.argv = append(c.argv, u.expand(w.text))
			}
		}
		if len(c.argv) > 0 {
			list = append(list, c)
		}
	}
	return list
}
