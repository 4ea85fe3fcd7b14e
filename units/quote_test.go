package units_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/units"
)

// Whatever the fields hold: either it is refused, or the units have exactly the
// settings that they should have, and systemd reads back what was put in.
func TestNothingIsSmuggledIn(t *testing.T) {
	reference := units.Service{
		Name: "app", Description: "x", Exec: "/usr/bin/app", Args: []string{"x", "x"},
		Environment: []units.Variable{{"A", "x"}},
		Sockets:     []units.Socket{{Name: "http", Listen: []units.Listen{{Address: "@x"}}}},
	}
	refFiles, err := reference.Render()
	require.NoError(t, err)

	nasty := rapid.StringOf(rapid.OneOf(
		rapid.SampledFrom([]rune("\n\r\\\"'%$;#[]= \t{}~@:/\x00\u2028é")),
		rapid.Rune(),
	))
	rapid.Check(t, func(rt *rapid.T) {
		s := reference
		s.Description = nasty.Draw(rt, "description")
		s.Args = []string{nasty.Draw(rt, "arg"), nasty.Draw(rt, "arg")}
		s.Environment = []units.Variable{{"A", nasty.Draw(rt, "value")}}
		s.Sockets = []units.Socket{{Name: "http", Listen: []units.Listen{{Address: "@" + nasty.Draw(rt, "address")}}}}
		files, err := s.Render()
		if err != nil {
			return
		}
		for file, content := range files {
			got, want := lines(content), lines(refFiles[file])
			if !assert.Len(rt, got, len(want), "%s", content) {
				rt.FailNow()
			}
			for i := range got {
				name, _, _ := strings.Cut(got[i], "=")
				wantName, _, _ := strings.Cut(want[i], "=")
				if name != wantName && !strings.HasPrefix(got[i], "#") {
					rt.Fatalf("line %d of %s: %q", i, file, got[i])
				}
			}
		}
		argv := unquote(rt, settings(t, files["app.service"], "Service", "ExecStart")[0], true)
		assert.Equal(rt, append([]string{s.Exec}, s.Args...), argv)
		env := unquote(rt, settings(t, files["app.service"], "Service", "Environment")[0], false)
		assert.Equal(rt, []string{"A=" + s.Environment[0].Value}, env)
		address := settings(t, files["app.socket"], "Socket", "ListenStream")[0]
		assert.Equal(rt, s.Sockets[0].Listen[0].Address, unspecify(rt, address))
	})
}

func lines(content []byte) []string { return strings.Split(string(content), "\n") }

// unquote splits a line into words as systemd does (extract_first_word with
// EXTRACT_UNQUOTE and EXTRACT_CUNESCAPE), replaces specifiers, and with
// variables also "$$". A variable or a specifier is a failure.
func unquote(t *rapid.T, line string, variables bool) []string {
	var words []string
	for line = strings.TrimLeft(line, " \t"); line != ""; line = strings.TrimLeft(line, " \t") {
		var word strings.Builder
		quote := byte(0)
		raw := 0
		for ; raw < len(line); raw++ {
			c := line[raw]
			switch {
			case c == '\\':
				raw++
				if raw == len(line) || !strings.ContainsRune(`\"'`, rune(line[raw])) {
					t.Fatalf("escape in %q", line)
				}
				word.WriteByte(line[raw])
				continue
			case quote != 0 && c == quote:
				quote = 0
				continue
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
				continue
			case quote == 0 && (c == ' ' || c == '\t'):
			default:
				word.WriteByte(c)
				continue
			}
			break
		}
		if quote != 0 {
			t.Fatalf("unbalanced quote in %q", line)
		}
		if line[:raw] == ";" {
			t.Fatalf("a separator in %q", line)
		}
		line = line[raw:]
		w := unspecify(t, word.String())
		if variables {
			if strings.Contains(strings.ReplaceAll(w, "$$", ""), "$") {
				t.Fatalf("a variable in %q", w)
			}
			w = strings.ReplaceAll(w, "$$", "$")
		}
		words = append(words, w)
	}
	return words
}

func unspecify(t *rapid.T, s string) string {
	if strings.Contains(strings.ReplaceAll(s, "%%", ""), "%") {
		t.Fatalf("a specifier in %q", s)
	}
	return strings.ReplaceAll(s, "%%", "%")
}
