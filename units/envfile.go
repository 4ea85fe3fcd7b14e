package units

import "strings"

// parseEnvironment adds the variables in the text of an environment file, as
// EnvironmentFile= of systemd.exec(5) reads it: almost what a shell would make of
// the assignments, but nothing is replaced. Lines that are no assignment to a
// variable are ignored.
func parseEnvironment(text string, to map[string]string) {
	f := envFile{rest: text}
	for {
		f.skip(" \t\r\n")
		if f.rest == "" {
			return
		}
		end := strings.IndexAny(f.rest, "=\r\n")
		if f.rest[0] == '#' || f.rest[0] == ';' || end < 0 || f.rest[end] != '=' {
			f.skipLine()
			continue
		}
		key := strings.TrimRight(f.rest[:end], " \t")
		f.rest = f.rest[end+1:]
		value := f.value()
		if isVariable(key) {
			to[key] = value
		}
	}
}

// envFile is what is left to parse.
type envFile struct{ rest string }

func (f *envFile) skip(chars string) { f.rest = strings.TrimLeft(f.rest, chars) }

func (f *envFile) skipLine() {
	if end := strings.IndexAny(f.rest, "\r\n"); end >= 0 {
		f.rest = f.rest[end:]
	} else {
		f.rest = ""
	}
}

// next takes the next character.
func (f *envFile) next() byte {
	c := f.rest[0]
	f.rest = f.rest[1:]
	return c
}

// value parses to the end of the line: quoted strings, and after them one that is
// not, in which quotes mean nothing.
func (f *envFile) value() string {
	var value strings.Builder
	for {
		f.skip(" \t")
		switch {
		case strings.HasPrefix(f.rest, "'"):
			f.next()
			text, rest, _ := strings.Cut(f.rest, "'")
			value.WriteString(text)
			f.rest = rest
		case strings.HasPrefix(f.rest, `"`):
			f.next()
			value.WriteString(f.quoted())
		default:
			value.WriteString(f.plain())
			return value.String()
		}
	}
}

// quoted parses what is in double quotes: a backslash protects the characters that
// mean something to a shell there, and joins lines.
func (f *envFile) quoted() string {
	var text strings.Builder
	for f.rest != "" {
		c := f.next()
		switch {
		case c == '"':
			return text.String()
		case c == '\\' && f.rest != "":
			c = f.next()
			if !strings.ContainsRune("\"\\`$\n", rune(c)) {
				text.WriteByte('\\')
			}
			if c != '\n' {
				text.WriteByte(c)
			}
		default:
			text.WriteByte(c)
		}
	}
	return text.String()
}

// plain parses what is not in quotes: a backslash protects every character, and
// joins lines; blanks at the end do not count.
func (f *envFile) plain() string {
	var text strings.Builder
	length := 0 // without the blanks at the end
	for f.rest != "" && !strings.ContainsRune("\r\n", rune(f.rest[0])) {
		c := f.next()
		switch {
		case c != '\\':
			text.WriteByte(c)
			if c == ' ' || c == '\t' {
				continue
			}
		case f.rest != "":
			if c = f.next(); c != '\n' {
				text.WriteByte(c)
			}
		}
		length = text.Len()
	}
	return text.String()[:length]
}
