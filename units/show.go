package units

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// Show returns properties of a unit, or, if unit is "", of the manager itself, as
// "systemctl show" prints them. A property that is printed more than once
// (EnvironmentFiles=) has its values joined by newlines. Properties that are not
// printed are missing.
//
// It waits for as long as ctx lasts.
type Show func(ctx context.Context, unit string, properties ...string) (map[string]string, error)

// Systemctl returns a Show that runs systemctl(1), with "--user" if asked for. It
// works for every user, and with every systemd from 247 on.
func Systemctl(user bool) Show {
	return func(ctx context.Context, unit string, properties ...string) (map[string]string, error) {
		args := []string{"show", "--property=" + strings.Join(properties, ",")}
		if user {
			args = append(args, "--user")
		}
		if unit != "" {
			args = append(args, "--", unit)
		}
		var stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, "systemctl", args...)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("systemctl show: %w", context.Cause(ctx))
		}
		if err != nil {
			return nil, fmt.Errorf("systemctl show: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
		}
		return parseShow(string(out), properties), nil
	}
}

// parseShow parses the output of systemctl show. A value may contain newlines: a
// line begins a property only if it is one of those that were asked for.
func parseShow(out string, properties []string) map[string]string {
	values := make(map[string]string)
	last := ""
	for line := range strings.Lines(strings.TrimSuffix(out, "\n")) {
		line = strings.TrimSuffix(line, "\n")
		key, value, ok := strings.Cut(line, "=")
		switch {
		case ok && slices.Contains(properties, key):
			last = key
			if before, again := values[key]; again {
				value = before + "\n" + value
			}
			values[key] = value
		case last != "":
			values[last] += "\n" + line
		}
	}
	return values
}

// words takes apart a list as systemctl prints it: words with spaces in between,
// some of them in double quotes, with escapes of C or of a shell inside.
func words(list string) []string {
	var words []string
	var word strings.Builder
	quoted, open := false, false // in a word, and that in quotes
	for i := 0; i < len(list); i++ {
		c := list[i]
		switch {
		case c == '"':
			quoted, open = !quoted, true
		case c == '\\' && i+1 < len(list):
			text, length := unescape(list[i+1:])
			word.WriteString(text)
			i += length
			open = true
		case (c == ' ' || c == '\n') && !quoted:
			if open {
				words = append(words, word.String())
				word.Reset()
				open = false
			}
		default:
			word.WriteByte(c)
			open = true
		}
	}
	if open {
		words = append(words, word.String())
	}
	return words
}

// unescape returns what the beginning of s means behind a backslash, and how long
// that is.
func unescape(s string) (text string, length int) {
	simple := map[byte]string{'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v", 's': " "}
	number := func(digits string, base int) (uint64, bool) {
		n, err := strconv.ParseUint(digits, base, 32)
		return n, err == nil
	}
	if text, ok := simple[s[0]]; ok {
		return text, 1
	}
	if len(s) >= 3 {
		if n, ok := number(s[:3], 8); ok && n < 256 {
			return string([]byte{byte(n)}), 3
		}
		if n, ok := number(s[1:3], 16); ok && s[0] == 'x' {
			return string([]byte{byte(n)}), 3
		}
	}
	for prefix, digits := range map[byte]int{'u': 4, 'U': 8} {
		if s[0] == prefix && len(s) > digits {
			if n, ok := number(s[1:1+digits], 16); ok {
				return string(rune(n)), 1 + digits
			}
		}
	}
	return s[:1], 1
}
