package preflight_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/preflight"
)

func TestCommand(t *testing.T) {
	leak.Check(t)
	tests := []struct {
		name    string
		command []string
		result  string
		want    string // pattern of the message
	}{
		{"content", []string{"/bin/true"}, "ok", `^/bin/true is content after \S+$`},
		{
			"content, with words",
			[]string{"/bin/sh", "-c", "echo first; echo second >&2"},
			"ok",
			`^/bin/sh -c .* is content after \S+\nfirst\nsecond$`,
		},
		{
			"not content",
			[]string{"/bin/sh", "-c", "echo unknown directive; exit 3"},
			"failed",
			`^/bin/sh -c .* has refused after \S+: exit status 3\nunknown directive$`,
		},
		{"killed", []string{"/bin/sh", "-c", "kill -SEGV $$"}, "failed", `: signal: segmentation fault`},
		{"missing", []string{"/no/such", "-t"}, "failed", `^/no/such -t cannot be run: .*no such file or directory$`},
		{"not to be found", []string{"no-such-program"}, "failed", `cannot be run: .*not found in \$PATH$`},
		{"binary", []string{"/bin/echo", "it is", "<%b>", "100%"}, "ok", `\nit is </bin/sh> 100%$`},
		{"binary runs", []string{"%b", "-c", "echo $((6 * 7))"}, "ok", `\n42$`},
		{"nothing to read", []string{"/bin/sh", "-c", "cat; echo end"}, "ok", `after \S+\nend$`},
		{"no text", []string{"/bin/sh", "-c", `printf '\377\n\n'`}, "ok", `after \S+\n\?$`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			checks := run(t, preflight.Config{Path: "/bin/sh", Command: test.command})
			got := find(t, checks, "command")
			assert.Equal(t, test.result, got.Result)
			assert.Regexp(t, "(?s)"+test.want, got.Message)
		})
	}

	t.Run("not for a program that cannot run", func(t *testing.T) {
		mark := filepath.Join(t.TempDir(), "mark")
		checks := run(t, preflight.Config{Path: "/no/such", Command: []string{"/bin/touch", mark}})
		assert.NotContains(t, names(checks), "command")
		assert.NoFileExists(t, mark)
	})
}

// TestCommandOutput is about more output than is kept.
func TestCommandOutput(t *testing.T) {
	leak.Check(t)
	output := func(script string) []string {
		got := find(t, run(t, preflight.Config{Path: "/bin/sh", Command: []string{"%b", "-c", script}}), "command")
		return strings.Split(got.Message, "\n")[1:]
	}
	lines := output("seq 1 100000; exit 1")
	assert.Len(t, lines, 50)
	assert.Equal(t, "99951", lines[0])
	assert.Equal(t, "100000", lines[49])

	lines = output(`x=$(head -c 3000 /dev/zero | tr '\0' x); for i in $(seq 1 20); do echo $i $x; done`)
	assert.Len(t, lines, 5, "whole ones within 16 KiB")
	assert.True(t, strings.HasPrefix(lines[0], "16 x"), lines[0])

	assert.Len(t, output("head -c 100000 /dev/zero | tr '\\0' x")[0], 16<<10)
}

// TestCommandInherits is about what a command gets from the service.
func TestCommandInherits(t *testing.T) {
	leak.Check(t)
	secret, err := os.Open("/etc/passwd")
	require.NoError(t, err)
	defer secret.Close()
	exe, err := os.Executable()
	require.NoError(t, err)

	report := func(c preflight.Config) string {
		c.Env = []string{modeEnv + "=report", "COLOUR=blue"}
		got := find(t, run(t, c), "command")
		require.Equal(t, "ok", got.Result, got.Message)
		return got.Message
	}
	message := report(preflight.Config{Path: exe, Command: []string{"%b", "-t", "%b"}})
	assert.Contains(t, message, "\nenv COLOUR=blue\n")
	assert.Equal(t, 2, strings.Count(message, "\nenv "), message)
	assert.Contains(t, message, fmt.Sprintf("\nargs [\"-t\" %q]", exe))
	assert.Contains(t, message, "\nfd 0 /dev/null\n")
	assert.NotContains(t, message, "passwd")

	t.Run("the open file", func(t *testing.T) {
		f, err := os.Open(program(t, "app", self(t), 0o755))
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, os.Remove(f.Name()))
		message := report(preflight.Config{Path: "/usr/bin/app", File: f, Command: []string{"/bin/sh", "-c", "%b $0", "%b"}})
		assert.Contains(t, message, "fd 3 "+f.Name()+" (deleted)\n")
		assert.Contains(t, message, "\nargs [\"/proc/self/fd/3\"]")
	})

	t.Run("this environment", func(t *testing.T) {
		t.Setenv("PREFLIGHT_COLOUR", "green")
		got := find(t, run(t, preflight.Config{Path: "/bin/sh", Command: []string{"%b", "-c", "echo $PREFLIGHT_COLOUR"}}), "command")
		assert.Contains(t, got.Message, "\ngreen")
	})
}

// TestCommandHangs is about the end of the context: the command and its helper are
// killed.
func TestCommandHangs(t *testing.T) {
	leak.Check(t)
	exe, err := os.Executable()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "helper")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	helper := make(chan int, 1)
	go func() {
		defer cancel()
		defer close(helper)
		for range time.Tick(time.Millisecond) {
			content, err := os.ReadFile(path)
			if ctx.Err() != nil {
				return
			}
			var pid int
			if _, scanErr := fmt.Sscan(string(content), &pid); err == nil && scanErr == nil {
				helper <- pid
				return
			}
		}
	}()
	checks := preflight.Run(ctx, preflight.Config{
		Path: exe, Command: []string{exe, path}, Env: []string{modeEnv + "=hang"},
	})
	cancel()
	pid, started := <-helper
	require.True(t, started)
	got := find(t, checks, "command")
	assert.Equal(t, "failed", got.Result)
	assert.Regexp(t, fmt.Sprintf(`(?s) was killed after \S+: context canceled\nhelper %d$`, pid), got.Message)
	requireDead(t, pid)

	find(t, checks, "descriptors") // that is made all the same
	got = find(t, preflight.Run(ctx, preflight.Config{Path: exe, Command: []string{exe, path}}), "command")
	assert.Contains(t, got.Message, "was not run: context canceled")
}

// TestCommandLeavesHelpers is about a command that ends before what it has started.
func TestCommandLeavesHelpers(t *testing.T) {
	leak.Check(t)
	for name, start := range map[string]string{
		"in its group":     "sleep 1000 & echo $!",
		"in a new session": "exec 3>&1; echo $(setsid sleep 1000 >&3 & echo $!)",
	} {
		t.Run(name, func(t *testing.T) {
			got := find(t, run(t, preflight.Config{Path: "/bin/sh", Command: []string{"%b", "-c", start}}), "command")
			require.Equal(t, "ok", got.Result, got.Message)
			var pid int
			_, err := fmt.Sscan(got.Message[strings.LastIndexByte(got.Message, '\n')+1:], &pid)
			require.NoError(t, err, got.Message)
			if name == "in a new session" {
				require.NoError(t, syscall.Kill(pid, syscall.SIGKILL)) // it is not the command's any more
			}
			requireDead(t, pid)
		})
	}
}

// requireDead waits until pid is gone, or a zombie of who does not care.
func requireDead(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ") || unix.Kill(pid, 0) == unix.ESRCH
	}, 20*time.Second, time.Millisecond)
}
