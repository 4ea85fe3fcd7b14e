package main

// The rules of what hdctl prints:
//
//   - stdout has what was asked for, and nothing else. Everything else, progress
//     included, goes to stderr;
//   - an error is "hdctl: error: …", what to do about it "hdctl: hint: …", both in
//     lower case and without a full stop;
//   - nothing is said by colour alone, and there is no colour off a terminal;
//   - nothing is asked, there is no pager;
//   - what a service says (versions, messages, its output) is printed without
//     control characters: it may come from a program that has gone wrong.

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// terminal is where hdctl prints.
type terminal struct {
	stdout io.Writer
	stderr io.Writer
	quiet  bool
	colour bool // on stdout

	progressing bool // the last line on stderr is one of progress, and unfinished
}

func (t *terminal) printf(format string, args ...any) {
	t.endProgress()
	fmt.Fprintf(t.stdout, format, args...)
}

func (t *terminal) errorf(format string, args ...any)  { t.note("error: ", format, args) }
func (t *terminal) hintf(format string, args ...any)   { t.note("hint: ", format, args) }
func (t *terminal) detailf(format string, args ...any) { t.write("    ", format, args) }

// warnf and notef say what need not be known; -q turns them off.
func (t *terminal) warnf(format string, args ...any) {
	if !t.quiet {
		t.note("warning: ", format, args)
	}
}

func (t *terminal) notef(format string, args ...any) {
	if !t.quiet {
		t.note("", format, args)
	}
}

func (t *terminal) note(what, format string, args []any) { t.write("hdctl: "+what, format, args) }

func (t *terminal) write(prefix, format string, args []any) {
	t.endProgress()
	fmt.Fprintf(t.stderr, "%s%s\n", prefix, fmt.Sprintf(format, args...))
}

// progress prints a step on stderr. On a terminal it takes the place of the
// previous one.
func (t *terminal) progress(line string) {
	if t.quiet {
		return
	}
	width, ok := terminalWidth(t.stderr)
	if !ok {
		fmt.Fprintln(t.stderr, line)
		return
	}
	fmt.Fprintf(t.stderr, "\r%s\x1b[K", truncate(line, width-1))
	t.progressing = true
}

// endProgress removes the line that progress left.
func (t *terminal) endProgress() {
	if t.progressing {
		fmt.Fprint(t.stderr, "\r\x1b[K")
		t.progressing = false
	}
}

// terminalWidth tells whether w is a terminal, and how wide.
func terminalWidth(w io.Writer) (int, bool) {
	f, ok := asTerminal(w)
	if !ok {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 {
		width = 80 // a serial line, or a terminal that is not told its size
	}
	return width, true
}

// asTerminal returns the file behind w, if it is a terminal.
func asTerminal(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// wantColour decides about colour on stdout.
func (a *app) wantColour(when string) bool {
	switch when {
	case "always":
		return true
	case "never":
		return false
	}
	_, isTerminal := terminalWidth(a.stdout)
	return isTerminal && a.env["NO_COLOR"] == "" && a.env["TERM"] != "dumb"
}

// style is a way to print a word: SGR parameters, or nothing.
type style string

const (
	plain  style = ""
	bold   style = "1"
	red    style = "1;31"
	green  style = "32"
	yellow style = "33"
)

// paint returns s in a style.
func (t *terminal) paint(st style, s string) string {
	if !t.colour || st == plain || s == "" {
		return s
	}
	return "\x1b[" + string(st) + "m" + s + "\x1b[0m"
}

// clean replaces what a terminal would obey, and what would break a line.
func clean(s string) string {
	if isPlain(s) || strings.IndexFunc(s, unclean) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case unclean(r):
			fmt.Fprintf(&b, "<%02x>", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isPlain tells whether s is of printable ASCII: as nearly everything is, and
// that is quickly found out.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// unclean is true for control characters, for those that change the direction
// of writing or are not seen at all, and for what is not UTF-8.
func unclean(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' || r == utf8.RuneError
}

// cleanError is an error with a clean message.
type cleanError struct{ error }

func (e cleanError) Error() string { return clean(e.error.Error()) }
func (e cleanError) Unwrap() error { return e.error }

// truncate cuts s to so many characters.
func truncate(s string, width int) string {
	if utf8.RuneCountInString(s) <= width || width < 1 {
		return s
	}
	return string([]rune(s)[:width-1]) + ">"
}
