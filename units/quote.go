package units

import (
	"strconv"
	"strings"
	"time"
)

// command renders a command line as ExecStart= and the like read it: words are
// split and unquoted (systemd.syntax(7), "Quoting"), then percent specifiers
// and variables are replaced in each (systemd.service(5), "Command lines"). The
// path comes first, and has been checked by checkExec.
func command(path string, args ...string) string {
	words := []string{quoteWord(percent(path))}
	for _, a := range args {
		words = append(words, quoteWord(strings.ReplaceAll(percent(a), "$", "$$")))
	}
	return strings.Join(words, " ")
}

// assignment renders a variable as Environment= reads it: like a word of a
// command, but a dollar sign means nothing there.
func assignment(v Variable) string {
	return quoteWord(percent(v.Name + "=" + v.Value))
}

// percent protects s from the replacement of specifiers, which all settings
// have that are used here (systemd.unit(5), "Specifiers").
func percent(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// plain are the characters that need no quotes in a word.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,+=@%$"

// quoteWord quotes s so that unquoting gives it back, if that is necessary. A
// word like ";" is a separator only where it stands unquoted.
func quoteWord(s string) string {
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// span renders d as a time span of systemd.time(7), in the largest unit up to a
// second that is exact.
func span(d time.Duration) string {
	switch {
	case d%time.Second == 0:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	case d%time.Millisecond == 0:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	}
	// Less than a microsecond is nothing to systemd.
	return strconv.FormatInt(d.Microseconds(), 10) + "us"
}

// goDuration renders d as the HANDOFF_* variables want it.
func goDuration(d time.Duration) string {
	if d < 0 {
		return "-1s" // none
	}
	return d.String()
}
