package lint_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/units/lint"
	"github.com/hdctl/handoff/upgrade/control"
)

// answer is the test binary as a program on the library that is asked for its
// sockets.
func answer(args []string) int {
	switch args[0] {
	case "answers":
		fmt.Println("something else first")
		version := fmt.Sprintf("%d %d %d", os.Getuid(), os.Getgid(), len(os.Environ()))
		needs := control.Needs{Library: "v1", Version: version, Sockets: []control.Need{{Name: "http", Network: "tcp"}}}
		if err := json.NewEncoder(os.Stdout).Encode(needs); err != nil {
			return 1
		}
	case "fails":
		fmt.Fprintln(os.Stderr, "no configuration")
		return 3
	case "hangs":
		// With a child that keeps the pipe open.
		if err := exec.Command("/bin/sleep", "1000").Start(); err != nil {
			return 1
		}
		select {}
	}
	return 0
}

func TestAsk(t *testing.T) {
	leak.Check(t)
	self, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	program := filepath.Join(dir, "app")
	data, err := os.ReadFile(self)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, data, 0o755))
	ask := func(ctx context.Context, line string) (*control.Needs, error) {
		return lint.Ask(ctx, parse("app.service", "[Service]\nExecStart="+line+"\n"))
	}

	if os.Getuid() == 0 {
		_, err = ask(t.Context(), program+" answers")
		require.ErrorIs(t, err, os.ErrPermission, "the directory is for root alone")
		require.ErrorContains(t, err, "(as the user nobody)")
		require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	}
	needs, err := ask(t.Context(), "@"+program+" argv0 answers")
	require.NoError(t, err)
	assert.Equal(t, []control.Need{{Name: "http", Network: "tcp"}}, needs.Sockets)
	want := fmt.Sprintf("%d %d 1", os.Getuid(), os.Getgid())
	if os.Getuid() == 0 {
		want = "65534 65534 1"
	}
	assert.Equal(t, want, needs.Version, "user, group, and how many variables")

	_, err = ask(t.Context(), program+" fails")
	assert.EqualError(t, err, "ask "+program+" for its sockets: exit status 3: no configuration")
	_, err = ask(t.Context(), program+" silent")
	assert.ErrorContains(t, err, "it has not answered: its library may be too old for the question")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = ask(ctx, program+" hangs")
	assert.ErrorIs(t, err, context.DeadlineExceeded)

	// What is not on the library is not executed.
	_, err = ask(t.Context(), "/bin/sh -c 'exit 0'")
	assert.ErrorIs(t, err, lint.ErrNotOnLibrary)
	_, err = ask(t.Context(), "/nothing/there")
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = ask(t.Context(), "app")
	assert.ErrorContains(t, err, `"app" is not an absolute path`)
	_, err = ask(t.Context(), "")
	assert.EqualError(t, err, "app.service has no ExecStart=")
}
