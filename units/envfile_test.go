package units_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/hdctl/handoff/units"
)

// TestParseEnvironment has what systemd 252 makes of such files.
func TestParseEnvironment(t *testing.T) {
	tests := []struct {
		name, text string
		want       map[string]string
	}{
		{"empty", "", nil},
		{"comments", "# A=1\n ; B=2\n\n  \nC=3", map[string]string{"C": "3"}},
		{"no assignment", "A\nB=2\nC", map[string]string{"B": "2"}},
		{"no variable", "export A=1\n1B=2\nC-D=3\n=4\nE=5", map[string]string{"E": "5"}},
		{"blanks", " A  =  one two \t\nB=\nC= \n", map[string]string{"A": "one two", "B": "", "C": ""}},
		{"CRLF", "A=1\r\nB=2\r\n", map[string]string{"A": "1", "B": "2"}},
		{"the last one", "A=1\nA=2\n", map[string]string{"A": "2"}},
		{"double quotes", `A="a \"b\" \\ \$X \n # c"`, map[string]string{"A": `a "b" \ $X \n # c`}},
		{"single quotes", `A='a "b" \n $X'`, map[string]string{"A": `a "b" \n $X`}},
		{"quotes side by side", "A='it''s' \"me\"  too ", map[string]string{"A": "itsmetoo"}},
		{"quotes in the middle", `A=it's "me"`, map[string]string{"A": `it's "me"`}},
		{"several lines", "A=\"one\ntwo\"\nB=a\\\nb\nC=\"a\\\nb\"\nD='x\ny'", map[string]string{"A": "one\ntwo", "B": "ab", "C": "ab", "D": "x\ny"}},
		{"escapes", `A=a\ b\\c\ ` + "\n" + `B=\"`, map[string]string{"A": `a b\c `, "B": `"`}},
		{"hash in a value", "A=a # b", map[string]string{"A": "a # b"}},
		{"never closed", "A='x\nB=2", map[string]string{"A": "x\nB=2"}},
		{"backslash at the end", `A=x\`, map[string]string{"A": "x"}},
		{"equals signs", "A=b=c", map[string]string{"A": "b=c"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := make(map[string]string)
			units.ParseEnvironment(test.text, got)
			if test.want == nil {
				test.want = map[string]string{}
			}
			assert.Equal(t, test.want, got)
		})
	}
}

// FuzzParseEnvironment checks that it comes to an end.
func FuzzParseEnvironment(f *testing.F) {
	f.Add("A=1\n# x\nB='a'\"b\" c\\\nd")
	f.Fuzz(func(_ *testing.T, text string) { units.ParseEnvironment(text, make(map[string]string)) })
}
