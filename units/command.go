package units

import (
	"errors"
	"fmt"
	"strings"
)

// commandMark is in front of the command line in a service unit.
const commandMark = "#   $ "

// RecordedCommand returns the command line that is noted in a service unit, see
// [Service.Command]; nil if there is none. The error says that it cannot be read,
// because somebody has edited it.
func RecordedCommand(unit []byte) ([]string, error) {
	for line := range strings.Lines(string(unit)) {
		if text, ok := strings.CutPrefix(line, commandMark); ok {
			words, err := shellSplit(strings.TrimRight(text, "\r\n"))
			if err != nil {
				return nil, fmt.Errorf("read the command line in the unit: %w", err)
			}
			return words, nil
		}
	}
	return nil, nil
}

// shellSafe are the characters that mean nothing to a shell, in any place but the
// beginning for some ("~", "=" in zsh), which is quoted by shellQuote.
const shellSafe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,+=@%"

// shellQuote writes words as sh(1) reads them.
func shellQuote(words []string) string {
	quoted := make([]string, 0, len(words))
	for _, w := range words {
		if w == "" || w[0] == '=' || strings.Trim(w, shellSafe) != "" {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		quoted = append(quoted, w)
	}
	return strings.Join(quoted, " ")
}

// shellSplit reads words as sh(1) does, but nothing is replaced in them.
func shellSplit(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	open, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'':
			if i++; i == len(line) {
				return nil, errors.New("a backslash at the end")
			}
			// In double quotes it stands for itself before everything else.
			if quote == '"' && !strings.ContainsRune("$`\"\\", rune(line[i])) {
				word.WriteByte(c)
			}
			word.WriteByte(line[i])
			open = true
		case quote != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, open = c, true
		case c == ' ' || c == '\t':
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
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if open {
		words = append(words, word.String())
	}
	return words, nil
}
