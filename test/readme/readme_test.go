package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units"
)

// blocks returns the code blocks of the README in a language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	var found []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		found = append(found, m[1])
	}
	return found
}

func TestServiceIsThisProgram(t *testing.T) {
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	_, program, ok := strings.Cut(string(source), "\n") // without its doc comment
	require.True(t, ok)
	assert.Equal(t, []string{program}, blocks(t, "go"))
}

// TestUnitsAreWhatIsGenerated compares the settings that the README shows with
// those that are rendered: nothing may be missing or different but comments,
// documentation and the variables of the environment.
func TestUnitsAreWhatIsGenerated(t *testing.T) {
	listen, err := units.ParseListen("8080")
	require.NoError(t, err)
	files, err := units.Service{
		Name: "app", Exec: "/usr/local/bin/app",
		Sockets: []units.Socket{{Name: "http", Listen: []units.Listen{listen}}},
	}.Render()
	require.NoError(t, err)
	shown := blocks(t, "ini")
	require.Len(t, shown, 2)
	assert.Equal(t, settings(string(files["app.socket"])), settings(shown[0]))
	assert.Equal(t, settings(string(files["app.service"])), settings(shown[1]))
}

func settings(unit string) []string {
	var lines []string
	for line := range strings.Lines(unit) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "Documentation=") || strings.HasPrefix(line, "Environment=") {
			continue
		}
		lines = append(lines, line)
	}
	return lines
}
