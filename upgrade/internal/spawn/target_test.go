package spawn_test

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
)

// copyProgram copies the test binary, in a process of its own as installFile.
func (b *bed) copyProgram(name string) string {
	b.t.Helper()
	self, err := os.Executable()
	require.NoError(b.t, err)
	out, err := exec.Command("cp", "--remove-destination", self, b.path(name)).CombinedOutput()
	require.NoError(b.t, err, "%s", out)
	return b.path(name)
}

// assertExecutes compares what g executes with a file.
func assertExecutes(t *testing.T, g *generation, file os.FileInfo) {
	t.Helper()
	exe, err := os.Stat(fmt.Sprintf("/proc/%d/exe", g.PID))
	require.NoError(t, err)
	assert.True(t, os.SameFile(exe, file), "process %d executes another file", g.PID)
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info
}

func TestAnotherPath(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, out := b.start(nil)
	other := b.copyProgram("other")

	s := b.generation(g.do(request{Op: "start", Path: other}).PID)
	require.Empty(t, s.Err)
	assertExecutes(t, s, stat(t, other))
	assert.Equal(t, b.path("app"), s.Path, "what it starts next")
	assert.Equal(t, b.path("app"), s.Args[0])
	assert.Equal(t, b.path("app"), g.do(request{Op: "args"}).Lines[0], "of the parent")

	assertExecutes(t, b.next(s), stat(t, b.path("app"))) // once only
	assert.NotContains(t, out.String(), "DATA RACE")
}

// TestOpenFile starts programs that are not at their path any more.
func TestOpenFile(t *testing.T) {
	replace := func(content string) func(*bed) {
		return func(b *bed) { b.install(content) }
	}
	tests := []struct {
		name   string
		hold   request
		change func(b *bed) // what happens to app then
		next   string       // error of the next ordinary start
	}{
		{
			"there",
			request{Op: "hold"},
			func(*bed) {}, "",
		},
		{
			"deleted",
			request{Op: "hold"},
			func(b *bed) { require.NoError(b.t, os.Remove(b.path("app"))) },
			"no such file or directory",
		},
		{
			"replaced by garbage",
			request{Op: "hold"},
			replace("garbage"),
			"neither a program for this machine nor a script with a #! line: exec format error",
		},
		{
			"replaced by another version",
			request{Op: "hold"},
			func(b *bed) { b.copyProgram("new"); require.NoError(b.t, os.Rename(b.path("new"), b.path("app"))) },
			"",
		},
		{
			"without content, opened by path only",
			request{Op: "hold", N: unix.O_PATH},
			replace("garbage"),
			"neither a program for this machine nor a script with a #! line: exec format error",
		},
		{
			"a copy in memory, of a file that was overwritten",
			request{Op: "hold copy"},
			func(b *bed) { require.NoError(b.t, os.Truncate(b.path("app"), 0)) },
			"neither a program for this machine nor a script with a #! line: exec format error",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			b := newBed(t)
			// The first generation runs another file, so that nobody executes
			// this one.
			g, out := b.start(func(cmd *exec.Cmd) { cmd.Path = b.copyProgram("first") })
			require.NoError(t, os.Remove(b.path("app")))
			app := b.copyProgram("app")
			require.Equal(t, app, g.Path)
			g.do(request{Op: "open", Args: []string{"http"}, Text: "listener"})
			usual := b.next(g, "http")
			want := kinds(usual.do(request{Op: "fds"}).Lines)
			usual.exit(0)
			g.do(request{Op: "wait"})

			test.hold.Text = app
			g.do(test.hold)
			file := stat(t, app)
			test.change(b)
			before := g.do(request{Op: "fds"}).Lines
			for range 3 {
				s := b.generation(g.do(request{Op: "start", Held: app, Args: []string{"http"}}).PID)
				require.Empty(t, s.Err)
				if test.hold.Op == "hold" {
					assertExecutes(t, s, file)
				}
				assert.Equal(t, app, s.Path)
				assert.Equal(t, app, s.Args[0])
				comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.PID))
				require.NoError(t, err)
				assert.Equal(t, "app\n", string(comm))
				assert.Equal(t, want, kinds(s.do(request{Op: "fds"}).Lines), "it has no descriptor of the file")
				assert.Len(t, s.do(request{Op: "files"}).Files, 1)

				// It starts what is at the path, and its own file.
				rep := s.try(request{Op: "start"})
				if test.next == "" {
					require.Empty(t, rep.Err)
					n := b.generation(rep.PID)
					assertExecutes(t, n, stat(t, app))
					assert.Equal(t, app, n.Path)
					n.exit(0)
					s.do(request{Op: "wait"})
				} else {
					assert.Equal(t, "start "+app+": "+test.next, rep.Err)
				}
				s.do(request{Op: "hold", Text: "/proc/self/exe"})
				n := b.generation(s.do(request{Op: "start", Held: "/proc/self/exe"}).PID)
				assertExecutes(t, n, stat(t, fmt.Sprintf("/proc/%d/exe", s.PID)))
				assert.Equal(t, app, n.Path)
				n.exit(0)
				s.do(request{Op: "wait"})

				s.exit(0)
				g.do(request{Op: "wait"})
			}
			assertSameFDs(t, before, g.do(request{Op: "fds"}).Lines)
			assert.Equal(t, []string{app}, g.do(request{Op: "args"}).Lines)
			assert.NotContains(t, out.String(), "DATA RACE")
		})
	}
}

// TestProgramFails is about programs that cannot be started. None of them changes
// what is started by default.
func TestProgramFails(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, out := b.start(nil)
	v1 := b.copyProgram("v1")
	hold := func(path string) request {
		g.do(request{Op: "hold", Text: path})
		return request{Op: "start", Held: path}
	}
	write := func(name, content string, mode os.FileMode) string {
		require.NoError(t, os.WriteFile(b.path(name), []byte(content), mode))
		return b.path(name)
	}
	tests := []struct {
		name  string
		start func() request
		want  string // after "start "
		errno syscall.Errno
	}{
		{
			"no file", func() request { return request{Op: "start", Path: "/no/such"} },
			"/no/such: no such file or directory", unix.ENOENT,
		},
		{
			"a directory", func() request { return request{Op: "start", Path: b.dir} },
			b.dir + ": is a directory", unix.EISDIR,
		},
		{
			"dangling symlink", func() request {
				require.NoError(t, os.Symlink("/no/such", b.path("link")))
				return request{Op: "start", Path: b.path("link")}
			},
			b.path("link") + ": symlink to /no/such: no such file or directory", unix.ENOENT,
		},
		{
			"relative", func() request { return request{Op: "start", Path: "v1"} },
			"v1: the path is not absolute", 0,
		},
		{
			"an open script", func() request { return hold(write("script", "#!/bin/sh\n", 0o755)) },
			b.path("script") + ": a script can be started only by its path: its interpreter would not find the open file", 0,
		},
		{
			"an open file that is not executable", func() request { return hold(write("data", "\x7fELF", 0o644)) },
			b.path("data") + ": permission denied", unix.EACCES,
		},
		{
			"an open file of another machine", func() request { return hold(write("other", otherELF, 0o755)) },
			b.path("other") + ": neither a program for this machine nor a script with a #! line: exec format error", unix.ENOEXEC,
		},
		{
			"an open file with a path for messages", func() request {
				req := hold(write("garbage", "garbage", 0o755))
				req.Path = "version 1"
				return req
			},
			"version 1: neither a program for this machine nor a script with a #! line: exec format error", unix.ENOEXEC,
		},
		{
			"an open file that was emptied by another of its names", func() request {
				require.NoError(t, os.Link(v1, b.path("v1-again")))
				req := hold(v1)
				require.NoError(t, os.Truncate(b.path("v1-again"), 0))
				return req
			},
			v1 + ": neither a program for this machine nor a script with a #! line: exec format error", unix.ENOEXEC,
		},
		{
			"a closed file", func() request {
				req := hold(v1)
				g.do(request{Op: "release", Text: v1})
				return req
			},
			v1 + ": use of closed file", 0,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			rep := g.try(test.start())
			assert.Equal(t, "start "+test.want, rep.Err)
			assert.Equal(t, test.errno, rep.Errno)
			assert.Equal(t, b.path("app"), g.do(request{Op: "args"}).Lines[0])
			n := b.next(g)
			assertExecutes(t, n, stat(t, b.path("app")))
			n.exit(0)
			g.do(request{Op: "wait"})
		})
	}
	assert.NotContains(t, out.String(), "DATA RACE")
}

// TestOpenFileDamaged is about a file that the kernel executes although half of it
// is missing.
func TestOpenFileDamaged(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, _ := b.start(nil)
	v1 := b.copyProgram("v1")
	g.do(request{Op: "hold", Text: v1})
	require.NoError(t, os.Truncate(v1, stat(t, v1).Size()/4))
	rep := g.try(request{Op: "start", Held: v1})
	if rep.Err == "" {
		assert.NotZero(t, g.do(request{Op: "wait"}).Signal)
	}
	b.next(g)
}

// TestOpenFileStarved starts an open file with as few descriptors as are enough:
// then the one to execute has the lowest number that it may have.
func TestOpenFileStarved(t *testing.T) {
	leak.Check(t)
	// Whoever runs this may have left a descriptor with a high number.
	require.NoError(t, unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC))
	b := newBed(t)
	g, _ := b.start(nil)
	// One descriptor by many names: the duplicates get low numbers, most of which
	// have to move in the child.
	g.do(request{Op: "open", Args: []string{"http"}, Text: "listener"})
	names := []string{"http"}
	for i := range 40 {
		names = append(names, fmt.Sprint("http", i))
	}
	g.do(request{Op: "alias", Args: names})
	sleep, err := exec.LookPath("sleep")
	require.NoError(t, err)
	g.do(request{Op: "hold", Text: sleep})
	args := g.do(request{Op: "args"}).Lines
	g.do(request{Op: "starved", N: 1000, Held: sleep})
	before := g.do(request{Op: "fds"}).Lines
	failed, passed := 0, 0
	for limit := 60; passed < 60; limit++ {
		rep := g.try(request{Op: "starved", N: limit, Held: sleep})
		if rep.Err == "" {
			passed++
			continue
		}
		failed++
		require.Equal(t, unix.EMFILE, rep.Errno, "%d: %s", limit, rep.Err)
		require.True(t, strings.HasPrefix(rep.Err, "start "+sleep+": "), rep.Err)
		require.Less(t, limit, 500)
	}
	assert.Greater(t, failed, 10)
	assert.Equal(t, args, g.do(request{Op: "args"}).Lines)
	assertSameFDs(t, before, g.do(request{Op: "fds"}).Lines)
}
