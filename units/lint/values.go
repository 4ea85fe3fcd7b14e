package lint

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// infinity is the time span "infinity".
const infinity = time.Duration(math.MaxInt64)

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

// timeUnits are the units of time of systemd.time(7); of two that begin alike, the
// longer one is first.
var timeUnits = []struct {
	name string
	unit time.Duration
}{
	{"seconds", time.Second},
	{"second", time.Second},
	{"sec", time.Second},
	{"s", time.Second},
	{"minutes", time.Minute},
	{"minute", time.Minute},
	{"min", time.Minute},
	{"months", month},
	{"month", month},
	{"M", month},
	{"msec", time.Millisecond},
	{"ms", time.Millisecond},
	{"m", time.Minute},
	{"hours", time.Hour},
	{"hour", time.Hour},
	{"hr", time.Hour},
	{"h", time.Hour},
	{"days", day},
	{"day", day},
	{"d", day},
	{"weeks", 7 * day},
	{"week", 7 * day},
	{"w", 7 * day},
	{"years", year},
	{"year", year},
	{"y", year},
	{"usec", time.Microsecond},
	{"us", time.Microsecond},
	{"µs", time.Microsecond},
	{"μs", time.Microsecond},
}

const (
	day   = 24 * time.Hour
	month = 2629800 * time.Second
	year  = 31557600 * time.Second
)

// parseSpan reads a time span as systemd does: "90", "1min 30s", "1.5s", "infinity".
// A number without a unit is one of seconds.
func parseSpan(s string) (time.Duration, bool) {
	s = strings.Trim(s, whitespace)
	if s == "infinity" {
		return infinity, true
	}
	if s == "" {
		return 0, false
	}
	var sum time.Duration
	for s != "" {
		end := len(s) - len(strings.TrimLeft(s, "0123456789"))
		if strings.HasPrefix(s[end:], ".") {
			rest := s[end+1:]
			fraction := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
			if fraction == 0 {
				return 0, false
			}
			end += 1 + fraction
		}
		number, err := strconv.ParseFloat(s[:end], 64)
		if err != nil {
			return 0, false
		}
		s = strings.TrimLeft(s[end:], whitespace)
		unit := time.Second
		for _, u := range timeUnits {
			if rest, ok := strings.CutPrefix(s, u.name); ok {
				unit, s = u.unit, rest
				break
			}
		}
		add := number * float64(unit)
		if add >= float64(infinity-sum) {
			return 0, false // systemd: numerical result out of range
		}
		sum += time.Duration(math.Round(add))
		s = strings.TrimLeft(s, whitespace)
	}
	return sum, true
}

// parseTimeout reads a time limit of a service, of which 0 means none.
func parseTimeout(s string) (time.Duration, bool) {
	d, ok := parseSpan(s)
	if ok && d == 0 {
		d = infinity
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
