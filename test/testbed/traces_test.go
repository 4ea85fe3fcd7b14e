package testbed_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hdctl/handoff/test/testbed"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// traces lists what there is on this machine of the testbed with that
// directory. Its name is part of all mounts, of the cgroup and of the janitor's
// command line.
func traces(t *testing.T, dir string) []string {
	t.Helper()
	var traces []string
	if _, err := os.Lstat(dir); err == nil {
		traces = append(traces, "directory "+dir)
	}
	cgroups, err := testbed.HostCgroups()
	require.NoError(t, err)
	if slices.Contains(cgroups, filepath.Base(dir)) {
		traces = append(traces, "cgroup "+filepath.Base(dir))
	}
	for _, pattern := range []string{"cgroup", "cmdline", "task/*/mountinfo"} {
		files, err := filepath.Glob("/proc/[0-9]*/" + pattern)
		require.NoError(t, err)
		for _, file := range files {
			content, _ := os.ReadFile(file) // there may be none any more
			if strings.Contains(string(content), filepath.Base(dir)) && !zombie(file) {
				traces = append(traces, file)
			}
		}
	}
	return traces
}

// zombie tells whether the process of a file in /proc is dead: to reap it is up
// to the host's init, and not every one is quick at that.
func zombie(file string) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strings.Split(file, "/")[2], "stat"))
	// "4711 (name) Z 1 …"; the name may have anything in it.
	return err != nil || strings.HasPrefix(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " Z")
}

func assertNoTraces(t *testing.T, dir string) {
	t.Helper()
	var left []string
	if !eventually(func() bool { left = traces(t, dir); return len(left) == 0 }) {
		assert.Fail(t, "traces are left", "%q", left)
	}
}

// eventually waits until the condition holds, and returns false if it does not
// in half a minute.
func eventually(condition func() bool) bool {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(30 * time.Second); !condition(); <-ticker.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// populate makes a testbed difficult to remove.
func populate(t *testing.T, tb *testbed.Testbed) {
	require.NoError(t, tb.Install("sleeper.service", sleeper))
	tb.MustSystemctl(t, "start", "sleeper.service")
	tb.MustRun(t, "systemd-run", "--property=Delegate=yes", "sh", "-c",
		"mkdir -p /sys/fs/cgroup/system.slice/a/b/c; echo $$ >/sys/fs/cgroup/system.slice/a/b/c/cgroup.procs; trap '' TERM INT HUP; sleep infinity")
	tb.MustRun(t, "sh", "-c", "mkdir -p /share/directory/below; touch /share/directory/below/file; mount -t tmpfs tmpfs /opt")
	command := tb.Command(context.Background(), "sleep", "infinity")
	require.NoError(t, command.Start())
	go func() { _ = command.Wait() }()
}

func TestStopLeavesNothing(t *testing.T) {
	tb := testbed.Boot(t)
	populate(t, tb)
	dir := tb.Directory()
	require.NotEmpty(t, traces(t, dir), "or else it would prove nothing")
	require.NoError(t, tb.Stop())
	assert.NoDirExists(t, dir)
	cgroups, err := testbed.HostCgroups()
	require.NoError(t, err)
	assert.NotContains(t, cgroups, filepath.Base(dir))
	assertNoTraces(t, dir)

	assert.NoError(t, tb.Stop(), "a second time")
	assert.ErrorIs(t, tb.Run(t.Context(), "true").Err(), os.ErrProcessDone)
}

// scenarioEnv makes TestScenario, in a child process, boot a testbed and end in
// some way.
const scenarioEnv = "TESTBED_TEST_SCENARIO"

func TestScenario(t *testing.T) {
	scenario := os.Getenv(scenarioEnv)
	if scenario == "" {
		t.Skip("runs in the children of other tests")
	}
	tb := testbed.Boot(t)
	populate(t, tb)
	// Separate from the output of package testing.
	fmt.Fprintf(os.Stderr, "scenario: %s %d\n", tb.Directory(), tb.JanitorPID())
	switch scenario {
	case "panic":
		panic("on purpose")
	case "panic in a goroutine":
		go panic("on purpose")
		<-t.Context().Done() // never
	case "fail":
		tb.MustRun(t, "systemd-cat", "echo", "a message of the testbed")
		_, err := tb.WaitJournal(t.Context(), func(e testbed.JournalEntry) bool { return e.Message == "a message of the testbed" })
		require.NoError(t, err)
		t.FailNow()
	case "exit":
		os.Exit(3)
	case "wait":
		_, _ = io.Copy(io.Discard, os.Stdin) // as long as the parent lives
	}
}

// A child is a process that runs TestScenario and has booted a testbed.
type child struct {
	*exec.Cmd
	dir     string // of the testbed
	janitor int    // PID
	output  *strings.Builder
	read    chan struct{} // closed after the last output
}

func startChild(t *testing.T, scenario string) *child {
	t.Helper()
	if err := testbed.Available(); err != nil {
		testbed.Boot(t) // skips or fails
	}
	c := &child{
		Cmd:    exec.Command(os.Args[0], "-test.run=^TestScenario$", "-test.count=1", "-test.v"),
		output: new(strings.Builder),
		read:   make(chan struct{}),
	}
	c.Env = append(os.Environ(), scenarioEnv+"="+scenario, "GOTRACEBACK=none")
	read, write, err := os.Pipe()
	require.NoError(t, err)
	c.Stdout, c.Stderr = write, write
	_, err = c.StdinPipe() // closed by Wait, or with this process
	require.NoError(t, err)
	require.NoError(t, c.Start())
	require.NoError(t, write.Close())
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		<-c.read
	})

	booted := make(chan struct{})
	go func() {
		defer close(c.read)
		defer func() { _ = read.Close() }()
		for lines := bufio.NewScanner(read); lines.Scan(); {
			fmt.Fprintln(c.output, lines.Text())
			if fields := strings.Fields(lines.Text()); len(fields) == 3 && fields[0] == "scenario:" {
				c.dir = fields[1]
				c.janitor, _ = strconv.Atoi(fields[2])
				close(booted)
			}
		}
	}()
	select {
	case <-booted:
	case <-c.read:
		t.Fatalf("child: %s", c.output)
	}
	return c
}

// end waits for the child and returns its output. That works only if nothing
// that outlives the child holds its output open.
func (c *child) end(t *testing.T) string {
	t.Helper()
	_ = c.Wait()
	<-c.read
	return c.output.String()
}

func TestDeathOfOwnerLeavesNothing(t *testing.T) {
	for _, test := range []struct{ scenario, output string }{
		{"return", "PASS"},
		{"panic", "panic: on purpose"},
		{"panic in a goroutine", "panic: on purpose"},
		{"exit", ""},
		{"wait", ""},
	} {
		t.Run(test.scenario, func(t *testing.T) {
			t.Parallel()
			child := startChild(t, test.scenario)
			if test.scenario == "wait" {
				require.NotEmpty(t, traces(t, child.dir), "or else it would prove nothing")
				require.NoError(t, child.Process.Kill())
			}
			assert.Contains(t, child.end(t), test.output)
			assertNoTraces(t, child.dir)
		})
	}
}

// When owner and janitor are killed together, the kernel takes processes and
// mounts away, and the next boot the rest.
func TestNextBootSweeps(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	child := startChild(t, "wait")
	other := startChild(t, "wait") // lives, and is left alone
	require.NoError(t, unix.Kill(child.janitor, unix.SIGKILL))
	require.NoError(t, child.Process.Kill())
	child.end(t)
	rest := []string{"directory " + child.dir, "cgroup " + filepath.Base(child.dir)}
	var left []string
	if !eventually(func() bool { left = traces(t, child.dir); return slices.Equal(left, rest) }) {
		require.Equal(t, rest, left)
	}

	precious := filepath.Join(os.TempDir(), "handoff-testbed")
	require.NoError(t, os.Mkdir(precious, 0o700))
	testbed.Boot(t)
	assert.Empty(t, traces(t, child.dir))
	assert.DirExists(t, precious, "not a testbed's")
	assert.DirExists(t, other.dir, "of a testbed that lives")
	require.NoError(t, other.Process.Kill())
	other.end(t)
	assertNoTraces(t, other.dir)
}

// An owner that dies before the boot is complete.
func TestDeathWhileBooting(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	if err := testbed.Available(); err != nil {
		testbed.Boot(t) // skips or fails
	}
	// Three moments: the directory is there, what it is for, systemd runs.
	for _, sign := range []string{"", "mnt", "share/.notify"} {
		t.Run("after "+filepath.Base(sign), func(t *testing.T) {
			child := exec.Command(os.Args[0], "-test.run=^TestScenario$", "-test.count=1")
			child.Env = append(os.Environ(), scenarioEnv+"=wait")
			require.NoError(t, child.Start())
			defer func() { _ = child.Wait() }()
			var dirs []string
			require.True(t, eventually(func() bool {
				dirs, _ = filepath.Glob(filepath.Join(tmp, "handoff-testbed-*"))
				if len(dirs) == 0 {
					return false
				}
				_, err := os.Stat(filepath.Join(dirs[0], sign))
				return err == nil
			}))
			require.NoError(t, child.Process.Kill())
			_ = child.Wait()
			// It may have died before it had a janitor.
			assert.True(t, eventually(func() bool {
				require.NoError(t, testbed.Sweep())
				return len(traces(t, dirs[0])) == 0
			}), "%q", traces(t, dirs[0]))
		})
	}
}

// The log of a test that fails has the journal of the testbed.
func TestFailureShowsJournal(t *testing.T) {
	child := startChild(t, "fail")
	output := child.end(t)
	assert.Contains(t, output, "--- FAIL: TestScenario")
	assert.Contains(t, output, "a message of the testbed")
	assertNoTraces(t, child.dir)
}
