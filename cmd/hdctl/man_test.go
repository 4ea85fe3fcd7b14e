package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

// Every verb, every flag, every outcome and every exit status is in the manual page.
func TestManualPage(t *testing.T) {
	data, err := os.ReadFile("../../packaging/man/hdctl.1.md")
	require.NoError(t, err)
	page := string(data)
	has := func(pattern string) {
		t.Helper()
		assert.True(t, regexp.MustCompile(pattern).MatchString(page), pattern) // the page is long
	}
	parser, err := newApp(io.Discard, io.Discard, nil).newParser(new(cli))
	require.NoError(t, err)
	verbs := 0
	err = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		switch n := node.(type) {
		case *kong.Application:
			for _, f := range n.Flags {
				has(`\*\*--` + f.Name + `\*\*`)
			}
		case *kong.Node:
			if n.Hidden {
				return nil // not for people
			}
			if n.Leaf() {
				verbs++
				path, _, _ := strings.Cut(n.Path(), " (") // what follows are its aliases
				for _, alias := range n.Aliases {
					has(`\*\*` + alias + `\*\*`)
				}
				has(`(?m)^\*\*` + path + `\*\*`)       // its description
				has(`(?m)^\*\*hdctl ` + path + `\*\*`) // its synopsis
				assert.NotEmpty(t, n.Help, path)
				assert.Contains(t, n.Detail, "Example:", path)
			}
			for _, f := range n.Flags {
				has(`\*\*--` + f.Name + `\*\*`)
				if f.Short != 0 {
					has(`\*\*-` + string(f.Short) + `\*\*, \*\*--` + f.Name + `\*\*`)
				}
				assert.NotEmpty(t, f.Help, f.Name)
			}
		}
		return next(nil)
	})
	require.NoError(t, err)
	assert.Equal(t, 27, verbs)
	for _, outcome := range []string{
		control.OutcomeConfirmed, control.OutcomeFailed, control.OutcomeFellBack, control.OutcomeTimedOut, control.OutcomeStopped,
		control.OutcomeRefused, control.OutcomeStaged, control.OutcomeRolledBack, control.OutcomeInconclusive,
		control.OutcomeChecked, control.OutcomeUnchanged, control.OutcomeUnknown,
	} {
		has(`(?m)^\*\*` + outcome + `\*\*$`)
	}
	for code := exitOK; code <= exitNobody; code++ {
		has(fmt.Sprintf(`(?m)^\*\*%d\*\*$`, code))
	}
}
