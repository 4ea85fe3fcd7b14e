package main

import (
	"bytes"
	"errors"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/hdctl/handoff/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestStage(t *testing.T) {
	tests := []struct {
		name  string
		color bool
		act   func(s *stage)
		want  string
	}{
		{name: "words", act: func(s *stage) { s.say("%d words", 2) }, want: "  2 words\n"},
		{name: "good", act: func(s *stage) { s.good("done") }, want: "  ok done\n"},
		{name: "good in color", color: true, act: func(s *stage) { s.good("done") }, want: "  \x1b[32;1mok\x1b[0m done\n"},
		{name: "failure", act: func(s *stage) { s.failure(errors.New("no")) }, want: "\nFAILED no\n"},
		{
			name: "typed", act: func(s *stage) { s.typed("#", "go", "build", "-ldflags", "-X main.version=v1", "", "it's") },
			want: "  # go build -ldflags '-X main.version=v1' '' 'it'\\''s'\n",
		},
		{
			name: "output", act: func(s *stage) { s.run(exec.Command("printf", `one\n\ntwo\nthree`)) },
			want: "    one\n    \n    two\n    three\n",
		},
		{name: "silence", act: func(s *stage) { s.run(exec.Command("true")) }, want: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			tt.act(newStage(&out, tt.color))
			assert.Equal(t, tt.want, out.String())
		})
	}
}

func TestOutcome(t *testing.T) {
	s := newStage(new(bytes.Buffer), false)
	o := s.run(exec.Command("sh", "-c", "echo why; exit 3"))
	assert.Equal(t, 3, o.code)
	assert.Equal(t, "why\n", o.output)
	assert.ErrorContains(t, o.err(), "exit status 3")

	o = s.run(exec.Command("/nonexistent"))
	assert.Equal(t, -1, o.code)
	assert.ErrorContains(t, o.err(), "no such file")

	o = s.run(exec.Command("true"))
	assert.Zero(t, o.code)
	assert.NoError(t, o.err())
}
