package units_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/units"
)

// TestRecordedCommand notes command lines in units and reads them, as does sh(1), to
// which an operator may give them.
func TestRecordedCommand(t *testing.T) {
	shell, err := exec.LookPath("sh")
	require.NoError(t, err)
	checks := 0
	rapid.Check(t, func(t *rapid.T) {
		words := append([]string{"printf", `%s\n`}, rapid.SliceOfN(rapid.StringOf(rapid.RuneFrom([]rune(`ab =-'"\$~#;*?&|<>()[]{}!%ä`))), 1, 5).Draw(t, "words")...)
		files, err := units.Service{Name: "app", Exec: "/usr/bin/app", Sockets: []units.Socket{http8080()}, Command: words}.Render()
		if err != nil {
			t.Fatal(err)
		}
		got, err := units.RecordedCommand(files["app.service"])
		if err != nil || strings.Join(got, "\n") != strings.Join(words, "\n") || len(got) != len(words) {
			t.Fatalf("%q is not %q: %v", got, words, err)
		}
		if checks++; checks > 30 { // a process each
			return
		}
		_, line, _ := strings.Cut(string(files["app.service"]), "\n#   $ ")
		line, _, _ = strings.Cut(line, "\n")
		out, err := exec.Command(shell, "-c", line).Output()
		if err != nil || string(out) != strings.Join(words[2:], "\n")+"\n" {
			t.Fatalf("%s prints %q: %v", line, out, err)
		}
	})
}

func TestRecordedCommandEdited(t *testing.T) {
	for _, tt := range []struct {
		unit string
		want []string
		err  string
	}{
		{"[Service]\nExecStart=/bin/true\n", nil, ""},
		{"#   $ hdctl  unit \"a b\" 'c'\\''d' \"\\\"\\x\" ''\r\n", []string{"hdctl", "unit", "a b", "c'd", `"\x`, ""}, ""},
		{"#   $ first\n#   $ second\n", []string{"first"}, ""},
		{"#   $ hdctl 'unit\n", nil, "quote"},
		{"#   $ hdctl unit\\\n", nil, "backslash"},
	} {
		got, err := units.RecordedCommand([]byte(tt.unit))
		if tt.err != "" {
			require.ErrorContains(t, err, tt.err)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, tt.want, got)
	}
}
