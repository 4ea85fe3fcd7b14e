package lint

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	whitespace = " \t\n\r" // systemd's

	// ignorePrefix begins a comment that turns off rules for the unit that has it:
	// "# hdctl: ignore kill-mode, oom-policy -- what speaks for that".
	ignorePrefix = "hdctl: ignore"
)

// Parse reads the text of a file into u, behind what is there already: first that
// of the unit, then its drop-ins in the order of their names. It never fails:
// systemd ignores a line that it does not understand, and so rule "syntax" tells of
// it.
//
// The grammar is that of systemd.syntax(7).
func (u *Unit) Parse(file, text string) {
	u.Files = append(u.Files, file)
	if u.sections == nil {
		u.sections = make(map[string]Position)
	}
	p := parser{u: u, file: file}
	text = strings.TrimPrefix(text, "\ufeff")
	number := 0
	for line := range strings.Lines(text) {
		number++
		p.physical(number, strings.TrimRight(line, "\n\r"))
	}
	p.flush()
}

// parser puts lines together, and understands them.
type parser struct {
	u       *Unit
	file    string
	section string
	skip    bool // the section is not systemd's

	begun   bool // a line has ended with a backslash
	number  int  // of its first
	partial strings.Builder
}

// physical takes a line as it is in the file.
func (p *parser) physical(number int, line string) {
	line = strings.TrimLeft(line, whitespace)
	if line != "" && (line[0] == '#' || line[0] == ';') {
		// A comment; also between two lines that a backslash joins.
		p.comment(number, strings.TrimSpace(line[1:]))
		return
	}
	if !p.begun {
		p.number = number
	}
	// Backslashes come in pairs, but for one that joins the next line.
	if n := len(line) - len(strings.TrimRight(line, `\`)); n%2 == 1 {
		p.begun = true
		p.partial.WriteString(line[:len(line)-1] + " ")
		return
	}
	p.partial.WriteString(line)
	p.flush()
}

// flush ends a line.
func (p *parser) flush() {
	line := p.partial.String()
	p.partial.Reset()
	p.begun = false
	p.logical(strings.Trim(line, whitespace))
}

// comment looks for what a comment says to this package.
func (p *parser) comment(number int, text string) {
	rules, ok := strings.CutPrefix(text, ignorePrefix)
	if !ok {
		return
	}
	rules, _, _ = strings.Cut(rules, "--") // why
	for _, rule := range strings.FieldsFunc(rules, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		p.u.ignored = append(p.u.ignored, directive{rule, Position{p.file, number}})
	}
}

// logical takes a line that is whole.
func (p *parser) logical(line string) {
	at := Position{p.file, p.number}
	problem := func(format string, args ...any) {
		p.u.broken = append(p.u.broken, problem{fmt.Sprintf(format, args...), at})
	}
	switch {
	case line == "":
		return
	case !utf8.ValidString(line):
		problem("a line is not UTF-8")
		return
	case line[0] == '[':
		p.header(line, at, problem)
		return
	}
	name, value, ok := strings.Cut(line, "=")
	name, value = strings.Trim(name, whitespace), strings.Trim(value, whitespace)
	switch {
	case p.skip:
	case !ok || name == "":
		problem("%q is no setting", line)
	case p.section == "":
		problem("%s= is in no section", name)
	default:
		p.u.Settings = append(p.u.Settings, Setting{p.section, name, value, at})
	}
}

func (p *parser) header(line string, at Position, problem func(string, ...any)) {
	section, ok := strings.CutSuffix(line[1:], "]")
	if !ok {
		problem("%q is no header of a section", line)
		return
	}
	p.section, p.skip = section, strings.HasPrefix(section, "X-")
	switch {
	case p.skip:
		return
	case section == "Unit", section == "Install", section == "Service" && p.u.isService(), section == "Socket" && p.u.isSocket():
	default:
		p.skip = true
		problem("there is no section [%s] in %s", section, p.u.Name)
		return
	}
	if _, ok := p.u.sections[section]; !ok {
		p.u.sections[section] = at
	}
}
