package spawn_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
)

func TestFirst(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, _ := b.start(nil)
	assert.Empty(t, g.Err)
	assert.False(t, g.Successor)
	assert.Equal(t, b.path("app"), g.Path)
	assert.Empty(t, g.do(request{Op: "files"}).Files)
	g.do(request{Op: "restore"}) // nothing to do
	assert.Equal(t, "spawn: New was called before in this process", g.try(request{Op: "new"}).Err)
}

func TestFilesArrive(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, _ := b.start(func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "GOGC=off") // only what Start asks for
	})
	kinds := map[string]string{
		"http":       "listener",
		"b/blocking": "blocking socket",
		"a pipe":     "blocking pipe",
		"z=1,2:3":    "file",
	}
	for name, kind := range kinds {
		g.do(request{Op: "open", Args: []string{name}, Text: kind})
	}
	before := g.do(request{Op: "files"}).Files
	open := g.do(request{Op: "fds"}).Lines

	s := b.next(g, "http", "b/blocking", "z=1,2:3", "a pipe")
	after := s.do(request{Op: "files"}).Files
	require.Len(t, after, len(kinds))
	for i := range before {
		assert.Equal(t, before[i].Name, after[i].Name)
		assert.Equal(t, before[i].Link, after[i].Link)
		assert.Equal(t, before[i].Nonblock, after[i].Nonblock, "O_NONBLOCK of %s", before[i].Name)
		assert.True(t, after[i].CloseOnExec, "close-on-exec of %s", before[i].Name)
	}
	assert.Equal(t, before, g.do(request{Op: "files"}).Files, "of the parent")
	assert.True(t, before[2].Nonblock, "of a listener")

	t.Run("no duplicates stay in the parent", func(t *testing.T) {
		// By Start's own collection.
		require.Eventually(t, func() bool {
			return count(g.do(request{Op: "fds now"}).Lines, before[2].Link) == count(open, before[2].Link)
		}, patience, time.Millisecond)
		for _, f := range before {
			assert.Equal(t, count(open, f.Link), count(g.do(request{Op: "fds"}).Lines, f.Link), f.Name)
		}
	})
	t.Run("nor in the child", func(t *testing.T) {
		for _, f := range after {
			assert.Equal(t, 1, count(s.do(request{Op: "fds"}).Lines, f.Link), f.Name)
		}
	})
	t.Run("helpers of the child", func(t *testing.T) {
		assert.Empty(t, s.do(request{Op: "getenv", Text: "TABLEFLIP_HAS_PARENT_7DIU3"}).Text)
		env := s.do(request{Op: "run", Args: []string{"/usr/bin/env"}}).Text
		assert.NotContains(t, env, "TABLEFLIP")
		// No more than those of the parent get, which has inherited nothing but
		// what this test run was started with.
		ls := request{Op: "run", Args: []string{"/bin/ls", "/proc/self/fd"}}
		assert.Subset(t, strings.Fields(g.do(ls).Text), strings.Fields(s.do(ls).Text))
	})
	t.Run("files that were passed once and are not now", func(t *testing.T) {
		nulls := count(s.do(request{Op: "fds"}).Lines, os.DevNull)
		s.exit(0)
		g.do(request{Op: "wait"})
		s := b.next(g, "http")
		files := s.do(request{Op: "files"}).Files
		require.Len(t, files, 1)
		assert.Equal(t, "http", files[0].Name)
		assert.Equal(t, before[2].Link, files[0].Link)
		for _, f := range before[:2] {
			assert.Zero(t, count(s.do(request{Op: "fds"}).Lines, f.Link), f.Name)
		}
		assert.Equal(t, nulls, count(s.do(request{Op: "fds"}).Lines, os.DevNull), "what stands for them")
	})
}

// count counts the lines that are about what.
func count(lines []string, what string) (n int) {
	for _, line := range lines {
		if strings.HasSuffix(line, " "+what) {
			n++
		}
	}
	return n
}

func TestStartRefusesNames(t *testing.T) {
	b := newBed(t)
	g, _ := b.start(nil)
	g.do(request{Op: "open", Args: []string{"a"}, Text: "file"})
	start := "start " + b.path("app") + ": "
	assert.Equal(t, start+`two files named "a"`, g.try(request{Op: "start", Args: []string{"a", "a"}}).Err)
	assert.Equal(t, start+`a file without a name`, g.try(request{Op: "start", Args: []string{""}}).Err)
	rep := g.try(request{Op: "start", Args: []string{"a", "unopened"}})
	assert.Equal(t, start+`file "unopened": duplicate file descriptor -1: bad file descriptor`, rep.Err)
	assert.Equal(t, syscall.EBADF, rep.Errno)
	b.next(g, "a")
}

// TestChain has five generations alive at once, and then ends them in an order
// that is not the usual one.
func TestChain(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	first, out := b.start(nil)
	first.do(request{Op: "open", Args: []string{"http"}, Text: "listener"})
	first.do(request{Op: "open", Args: []string{"blocking"}, Text: "blocking socket"})
	want := first.do(request{Op: "files"}).Files
	gens := []*generation{first}
	for i := range 4 {
		s := b.next(gens[i], "http", "blocking")
		s.do(request{Op: "restore"})
		gens = append(gens, s)
	}
	for i, g := range gens {
		files := g.do(request{Op: "files"}).Files
		require.Len(t, files, 2)
		for j := range files {
			assert.Equal(t, want[j].Link, files[j].Link)
			assert.Equal(t, want[j].Nonblock, files[j].Nonblock)
		}
		assert.Equal(t, b.path("app"), g.Path)
		assert.Equal(t, b.path("app"), g.Args[0])
		g.do(request{Op: "print", N: 1, Text: fmt.Sprintf("stdout of %d\n", i)})
		g.do(request{Op: "print", N: 2, Text: fmt.Sprintf("stderr of %d\n", i)})
		out.waitFor(fmt.Sprintf("stdout of %d\nstderr of %d\n", i, i))
		if i < 4 {
			rep := g.try(request{Op: "start"})
			assert.True(t, rep.Alive, rep.Err)
			assert.Zero(t, g.do(request{Op: "exited"}).N)
		}
	}

	// The newest dies, and the one before it starts another one.
	gens[4].exit(3)
	rep := gens[3].do(request{Op: "wait"})
	assert.Equal(t, 3, rep.Code)
	assert.Equal(t, gens[4].PID, rep.PID)
	gens[4] = b.next(gens[3], "http")

	// One in the middle dies. Its parent starts another one; its child does
	// not care, and is none of its grandparent's.
	gens[1].do(request{Op: "kill"})
	rep = gens[1].do(request{Op: "wait"})
	assert.Equal(t, int(unix.SIGKILL), rep.Signal)
	gens[2] = b.next(gens[1], "http")
	assert.True(t, gens[2].try(request{Op: "start"}).Err == "") // a seventh

	// The oldest ones leave, as they do in service.
	first.exit(0)
	gens[1].exit(0)
	gens[3].exit(0)
	gens[4].do(request{Op: "restore"}) // its relay is gone
	gens[4].do(request{Op: "print", N: 1, Text: "still there\n"})
	out.waitFor("still there\n")
	b.next(gens[4], "http")
}

// TestAtOnce has each of ten generations start the next one straight after New,
// when tableflip may not be ready.
func TestAtOnce(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, _ := b.start(func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, depthEnv+"=10") })
	for range 10 {
		require.Empty(t, g.Err)
		g = b.generation(g.Child)
	}
	assert.Zero(t, g.Child)
}

// TestFallBack is about a child that lived for long, and was ready.
func TestFallBack(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, _ := b.start(nil)
	g.do(request{Op: "open", Args: []string{"http"}, Text: "listener"})
	b.next(g, "http").do(request{Op: "restore"})
	g.do(request{Op: "kill"})
	g.do(request{Op: "wait"})
	before := g.do(request{Op: "fds"}).Lines
	goroutines := g.do(request{Op: "goroutines"}).N
	for range 3 {
		s := b.next(g, "http")
		s.do(request{Op: "restore"})
		require.NoError(t, syscall.Kill(s.PID, syscall.SIGKILL))
		rep := g.do(request{Op: "wait"})
		assert.Equal(t, -1, rep.Code)
		assert.Equal(t, int(unix.SIGKILL), rep.Signal)
		assert.Equal(t, "signal: killed", rep.Text)
		g.do(request{Op: "kill"}) // nil when it is gone
	}
	assertSameFDs(t, before, g.do(request{Op: "fds"}).Lines)
	rep := g.do(request{Op: "goroutines"})
	assert.LessOrEqual(t, rep.N, goroutines, rep.Text)
}

// otherELF is the header of a program for another machine (e_machine 2, SPARC).
const otherELF = "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x02\x00\x01\x00\x00\x00" +
	"\x00\x00\x40\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x40\x00\x38\x00\x01\x00\x40\x00\x00\x00\x00\x00"

// TestStartFails is about files that cannot be executed.
func TestStartFails(t *testing.T) {
	tests := []struct {
		name    string
		install func(b *bed)
		want    string // after the path
		errno   syscall.Errno
	}{
		{
			"missing", func(b *bed) { require.NoError(b.t, os.Remove(b.path("app"))) },
			"no such file or directory", unix.ENOENT,
		},
		{"dangling symlink", func(b *bed) {
			require.NoError(b.t, os.Symlink("/no/such", b.path("new")))
			require.NoError(b.t, os.Rename(b.path("new"), b.path("app")))
		}, "symlink to /no/such: no such file or directory", unix.ENOENT},
		{
			"not executable", func(b *bed) { b.installFile([]byte("#!/bin/sh\n"), 0o644) },
			"permission denied", unix.EACCES,
		},
		{"directory", func(b *bed) {
			require.NoError(b.t, os.Remove(b.path("app")))
			require.NoError(b.t, os.Mkdir(b.path("app"), 0o755))
		}, "is a directory", unix.EISDIR},
		{
			"random bytes", func(b *bed) { b.install("\xd7\x81\x02 some bytes") },
			"neither a program for this machine nor a script with a #! line: exec format error", unix.ENOEXEC,
		},
		{
			"other machine", func(b *bed) { b.install(otherELF) },
			"neither a program for this machine nor a script with a #! line: exec format error", unix.ENOEXEC,
		},
		{
			"script without interpreter line", func(b *bed) { b.install("echo hello\n") },
			"neither a program for this machine nor a script with a #! line: exec format error", unix.ENOEXEC,
		},
		{
			"script with a missing interpreter", func(b *bed) { b.install("#! /no/such -x\necho hello\n") },
			"interpreter /no/such of the script: no such file or directory", unix.ENOENT,
		},
		{"symlink loop", func(b *bed) {
			require.NoError(b.t, os.Symlink("app", b.path("new")))
			require.NoError(b.t, os.Rename(b.path("new"), b.path("app")))
		}, "too many levels of symbolic links", unix.ELOOP},
	}
	leak.Check(t)
	b := newBed(t)
	g, out := b.start(nil)
	g.do(request{Op: "open", Args: []string{"http"}, Text: "listener"})
	files := g.do(request{Op: "files"}).Files
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.install(b)
			rep := g.try(request{Op: "start", Args: []string{"http"}})
			assert.Equal(t, "start "+b.path("app")+": "+test.want, rep.Err)
			assert.Equal(t, test.errno, rep.Errno)
			assert.Equal(t, files, g.do(request{Op: "files"}).Files)

			g.do(request{Op: "print", N: 1, Text: test.name + ": here\n"})
			out.waitFor(test.name + ": here\n")

			os.Remove(b.path("app"))
			b.install("")
			b.next(g, "http").exit(0)
			g.do(request{Op: "wait"})
		})
	}

	t.Run("working directory", func(t *testing.T) {
		// It has the program, and so is found by another path.
		b := newBed(t)
		self, err := os.Executable()
		require.NoError(t, err)
		g, _ := b.start(func(cmd *exec.Cmd) {
			require.NoError(t, os.Mkdir(b.path("wd"), 0o755))
			cmd.Dir = b.path("wd")
			cmd.Args = []string{self}
		})
		require.NoError(t, os.Remove(b.path("wd")))
		rep := g.try(request{Op: "start"})
		assert.Equal(t, "start "+self+": working directory "+b.path("wd")+": no such file or directory", rep.Err)
		assert.Equal(t, unix.ENOENT, rep.Errno)
		require.NoError(t, os.Mkdir(b.path("wd"), 0o755))
		b.next(g)
	})
}

// TestChildFails is about programs that are executed, and end.
func TestChildFails(t *testing.T) {
	tests := []struct {
		name   string
		script string
		code   int
		signal syscall.Signal
		text   string
		output []string
	}{
		{"exit 0", "exit 0", 0, 0, "exit status 0", nil},
		{"exit 3", "echo boom >&2\nexit 3", 3, 0, "exit status 3", []string{"boom"}},
		{"both streams", "echo one\necho two >&2\nexit 255", 255, 0, "exit status 255", []string{"one", "two"}},
		{"no newline", "printf unfinished\nexit 1", 1, 0, "exit status 1", []string{"unfinished"}},
		{"kills itself", "echo bye\nkill -KILL $$", -1, unix.SIGKILL, "signal: killed", []string{"bye"}},
		{"terminates itself", "kill -TERM $$", -1, unix.SIGTERM, "signal: terminated", nil},
		{"aborts", "kill -ABRT $$", -1, unix.SIGABRT, "signal: aborted", nil},
		{"real-time signal", "kill -40 $$", -1, 40, "signal: signal 40", nil},
	}
	leak.Check(t)
	b := newBed(t)
	g, out := b.start(nil)
	g.do(request{Op: "open", Args: []string{"http"}, Text: "listener"})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b.install("#!/bin/sh\n" + test.script + "\n")
			pid := g.do(request{Op: "start", Args: []string{"http"}}).PID
			rep := g.do(request{Op: "wait"})
			requireGone(t, pid)
			assert.Equal(t, pid, rep.PID)
			assert.Equal(t, test.code, rep.Code)
			assert.Equal(t, int(test.signal), rep.Signal)
			assert.Equal(t, test.text, rep.Text)
			assert.Empty(t, rep.ExitOf)
			// Of two streams the order is not known.
			assert.ElementsMatch(t, test.output, rep.Lines)
			for _, line := range test.output {
				out.waitFor(line + "\n")
			}
			g.do(request{Op: "kill"})

			os.Remove(b.path("app"))
			b.install("")
			b.next(g, "http").exit(0)
			g.do(request{Op: "wait"})
		})
	}
	printed := g.do(request{Op: "printed"}).Lines
	for _, want := range []string{"2 boom", "1 one", "2 two", "1 unfinished", "1 bye"} {
		assert.Contains(t, printed, want)
	}
}

// TestPanicBeforeMain is about a Go program that says why on stderr, before any
// code of this package runs.
func TestPanicBeforeMain(t *testing.T) {
	b := newBed(t)
	g, out := b.start(nil)
	g.do(request{Op: "setenv", Args: []string{"GODEBUG", "madvdontneed=1"}})
	g.do(request{Op: "setenv", Args: []string{panicEnv, "no configuration"}})
	g.do(request{Op: "start"})
	rep := g.do(request{Op: "wait"})
	assert.Equal(t, 2, rep.Code)
	require.NotEmpty(t, rep.Lines)
	assert.Equal(t, "panic: no configuration", rep.Lines[0])
	assert.Contains(t, strings.Join(rep.Lines, "\n"), "goroutine 1")
	out.waitFor("panic: no configuration\n")
}

// panicEnv makes this program panic before main.
const panicEnv = "SPAWN_TEST_PANIC"

var _ = func() bool {
	if s := os.Getenv(panicEnv); s != "" {
		panic(s)
	}
	return true
}()

func TestOutput(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, out := b.start(nil)

	t.Run("as it comes", func(t *testing.T) {
		b.install("#!/bin/sh\necho first\nexec sleep 1000\n")
		g.do(request{Op: "start"})
		out.waitFor("first\n")
		assert.Equal(t, []string{"first"}, g.do(request{Op: "tail"}).Lines)
		g.do(request{Op: "kill"})
		assert.Equal(t, int(unix.SIGKILL), g.do(request{Op: "wait"}).Signal)
	})
	t.Run("all of it", func(t *testing.T) {
		b.install("#!/bin/sh\nseq 1 20000\nseq 20001 40000 >&2\nexit 1\n")
		g.do(request{Op: "start"})
		rep := g.do(request{Op: "wait"})
		assert.Len(t, rep.Lines, 50)
		// Of two streams the order is not known; of each it is.
		var stdout, stderr []int
		for _, line := range g.do(request{Op: "printed"}).Lines {
			var stream, n int
			if _, err := fmt.Sscanf(line, "%d %d", &stream, &n); err != nil {
				continue // of another test
			}
			if stream == 1 {
				stdout = append(stdout, n)
			} else {
				stderr = append(stderr, n)
			}
		}
		assert.Equal(t, upTo(1, 20000), stdout)
		assert.Equal(t, upTo(20001, 40000), stderr)
		out.waitFor("20000\n")
		out.waitFor("40000\n")
		seen := make(map[string]bool)
		for line := range strings.Lines(out.String()) {
			seen[strings.TrimSuffix(line, "\n")] = true
		}
		missing := slices.DeleteFunc(upTo(1, 40000), func(n int) bool { return seen[fmt.Sprint(n)] })
		assert.Empty(t, missing, "lost or torn lines")
	})
	t.Run("a process that is left behind", func(t *testing.T) {
		b.install("#!/bin/sh\n(echo $$; trap '' TERM; while read -r line; do echo \"$line\"; done; echo end) <" + b.path("fifo") + " &\nexit 4\n")
		require.NoError(t, unix.Mkfifo(b.path("fifo"), 0o600))
		fifo, err := os.OpenFile(b.path("fifo"), os.O_RDWR, 0)
		require.NoError(t, err)
		defer fifo.Close()
		g.do(request{Op: "start"})
		rep := g.do(request{Op: "wait"}) // not for ever
		assert.Equal(t, 4, rep.Code)
		g.do(request{Op: "print", N: 1, Text: "stdio is back\n"})
		out.waitFor("stdio is back\n")

		// What it prints is still passed on, and not recorded.
		_, err = fifo.WriteString("late\n")
		require.NoError(t, err)
		out.waitFor("\nlate\n")
		assert.NotContains(t, g.do(request{Op: "tail"}).Lines, "late")
		assert.NotContains(t, g.do(request{Op: "printed"}).Lines, "1 late")
		require.NoError(t, fifo.Close())
		out.waitFor("\nend\n")
	})
}

// upTo returns the numbers from first to last.
func upTo(first, last int) []int {
	var n []int
	for i := first; i <= last; i++ {
		n = append(n, i)
	}
	return n
}

func TestRestoreOutput(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, out := b.start(nil)
	real := []string{g.do(request{Op: "fds"}).Lines[1], g.do(request{Op: "fds"}).Lines[2]}
	s := b.next(g)
	s.do(request{Op: "print", N: 2, Text: "before\n"})
	out.waitFor("before\n")
	assert.Equal(t, real, g.do(request{Op: "fds"}).Lines[1:3])
	assert.NotEqual(t, real, s.do(request{Op: "fds"}).Lines[1:3])
	before := len(s.do(request{Op: "fds"}).Lines)

	s.do(request{Op: "printing", N: 2000, Text: "line"})
	s.do(request{Op: "restore"})
	out.waitFor("line 1999\n")
	assert.Equal(t, real, s.do(request{Op: "fds"}).Lines[1:3])
	assert.Len(t, s.do(request{Op: "fds"}).Lines, before-2)
	// Lines may overtake each other at the moment of the change; none is lost.
	for i := range 2000 {
		require.Equal(t, 1, strings.Count(out.String(), fmt.Sprintf("line %d\n", i)))
	}

	// It does not need its parent any more.
	g.exit(0)
	s.do(request{Op: "print", N: 1, Text: "after\n"})
	out.waitFor("after\n")
	assert.NotContains(t, out.String(), "SIGPIPE")
}

// TestRestoreOutputInStart is about a generation that is ready while it starts
// another one: its own pipes must not come back.
func TestRestoreOutputInStart(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, _ := b.start(nil)
	real := g.do(request{Op: "fds"}).Lines[1:3]
	s := b.next(g)
	for range 5 { // it can be too late for the moment
		next := b.generation(s.do(request{Op: "start restoring"}).PID)
		assert.Equal(t, real, s.do(request{Op: "fds"}).Lines[1:3])
		s = next
	}
}

func TestFiftyStarts(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, _ := b.start(nil)
	g.do(request{Op: "open", Args: []string{"http"}, Text: "listener"})
	g.do(request{Op: "open", Args: []string{"pipe"}, Text: "blocking pipe"})
	b.install("#!/bin/sh\necho no\nexit 1\n")
	start := func(i int) {
		if i%5 == 4 {
			require.NoError(t, os.Remove(b.path("app")))
			require.Equal(t, unix.ENOENT, g.try(request{Op: "start", Args: []string{"http"}}).Errno)
			b.install("#!/bin/sh\necho no\nexit 1\n")
			return
		}
		g.do(request{Op: "start", Args: []string{"http", "pipe"}[:1+i%2]})
		require.Equal(t, 1, g.do(request{Op: "wait"}).Code)
	}
	for i := range 5 {
		start(i)
	}
	before := g.do(request{Op: "fds"}).Lines
	goroutines := g.do(request{Op: "goroutines"}).N
	for i := range 50 {
		start(i)
	}
	assertSameFDs(t, before, g.do(request{Op: "fds"}).Lines)
	rep := g.do(request{Op: "goroutines"})
	assert.LessOrEqual(t, rep.N, goroutines, rep.Text)
}

// TestStarved lets each descriptor that a Start opens be the one too many.
func TestStarved(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, out := b.start(nil)
	g.do(request{Op: "open", Args: []string{"http"}, Text: "listener"})
	b.install("#!/bin/sh\nexec sleep 1000\n")
	g.do(request{Op: "starved", N: 1000})
	before := g.do(request{Op: "fds"}).Lines
	failed := 0
	limit := 3
	for {
		rep := g.try(request{Op: "starved", N: limit})
		if rep.Err == "" {
			break
		}
		failed++
		require.Equal(t, unix.EMFILE, rep.Errno, "%d: %s", limit, rep.Err)
		require.True(t, strings.HasPrefix(rep.Err, "start "+b.path("app")+": "), rep.Err)
		g.do(request{Op: "starved", N: 1000})
		limit++
		require.Less(t, limit, 200)
	}
	t.Logf("a Start works from %d descriptors on", limit)
	assert.Greater(t, failed, 10)
	assertSameFDs(t, before, g.do(request{Op: "fds"}).Lines)
	g.do(request{Op: "print", N: 2, Text: "alive\n"})
	out.waitFor("alive\n")
	os.Remove(b.path("app"))
	b.install("")
	b.next(g, "http")
}

func TestContext(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, _ := b.start(nil)
	rep := g.try(request{Op: "start", Limit: time.Nanosecond})
	assert.True(t, rep.Canceled, rep.Err)

	// In the middle of a start, and before and after.
	b.install("#!/bin/sh\nexec sleep 1000\n")
	for i := range 20 {
		rep = g.try(request{Op: "start", Limit: time.Duration(i) * 500 * time.Microsecond})
		if rep.Err == "" {
			g.do(request{Op: "kill"})
			g.do(request{Op: "wait"})
			continue
		}
		require.True(t, rep.Canceled, rep.Err)
	}
	os.Remove(b.path("app"))
	b.install("")
	s := b.next(g) // waits for the end of those
	children := g.do(request{Op: "run", Args: []string{"/bin/sh", "-c", "cat /proc/$PPID/task/*/children"}}).Text
	assert.Contains(t, strings.Fields(children), fmt.Sprint(s.PID))
	assert.Len(t, strings.Fields(children), 2, "and the helper")
}

// TestHelpers is about children of the service that are none of Start's.
func TestHelpers(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, _ := b.start(nil)
	s := b.next(g) // so that the sentinel was in the environment at its start
	s.do(request{Op: "restore"})
	var helpers []int
	for range 3 {
		helpers = append(helpers, s.do(request{Op: "helper", Args: []string{"/bin/sleep", "1000"}}).PID)
	}
	n := b.next(s)
	assert.NotContains(t, helpers, n.PID)
	s.do(request{Op: "kill"})
	assert.Equal(t, n.PID, s.do(request{Op: "wait"}).PID)
	for _, pid := range helpers {
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
}

// TestHiddenProcess is about a program that its parent must not look into.
func TestHiddenProcess(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	self, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	b.installFile(self, 0o711)
	require.NoError(t, os.Chmod(b.path("app"), 0o711))
	g, _ := b.start(func(cmd *exec.Cmd) {
		if os.Geteuid() == 0 { // who sees everything
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		} else {
			require.NoError(t, os.Chmod(b.path("app"), 0o111))
		}
	})
	s := b.next(g)
	assert.NotEmpty(t, g.try(request{Op: "run", Args: []string{"/bin/cat", fmt.Sprintf("/proc/%d/environ", s.PID)}}).Err)
	g.do(request{Op: "kill"})
	assert.Equal(t, int(unix.SIGKILL), g.do(request{Op: "wait"}).Signal)
}

// TestForgetfulProcess is about a program whose environment says nothing.
func TestForgetfulProcess(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, _ := b.start(nil)
	// The interpreter is the program that forgets, at once.
	b.install("#!/usr/bin/env -iS /bin/sh -c \"exec sleep 1000\"\n")
	for range 5 {
		g.do(request{Op: "start"})
		g.do(request{Op: "kill"})
		rep := g.do(request{Op: "wait"})
		assert.Equal(t, int(unix.SIGKILL), rep.Signal, rep.Lines)
	}
}

// TestRawChild is about a program that uses tableflip without this package.
func TestRawChild(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	g, out := b.start(nil)
	g.do(request{Op: "setenv", Args: []string{modeEnv, "stay"}})
	pid := g.do(request{Op: "start"}).PID
	out.waitFor("raw child is ready\n")
	rep := g.do(request{Op: "wait"})
	requireGone(t, pid)
	assert.Contains(t, rep.ExitOf, "not a program of this library")
	g.do(request{Op: "kill"})
	rep = g.try(request{Op: "start"})
	assert.Contains(t, rep.Err, "the service must be restarted")
	g.do(request{Op: "print", N: 1, Text: "alive\n"})
	out.waitFor("alive\n")
}

// TestRawParent is about being started by such a program.
func TestRawParent(t *testing.T) {
	leak.Check(t)
	b := newBed(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), modeEnv+"=hand over", socketEnv+"="+b.path("socket"))
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd.Stdout = w
	require.NoError(t, cmd.Start())
	w.Close()
	var g *generation
	require.Eventually(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, g = range b.gens {
			return true
		}
		return false
	}, patience, time.Millisecond)
	assert.Equal(t, "spawn: the parent uses tableflip without this library: it must be restarted once instead of upgraded", g.Err)
	g.conn.Close()
	require.NoError(t, cmd.Wait())
}

// TestForeignSentinel is about the helper of a program that has not removed
// tableflip's variable.
func TestForeignSentinel(t *testing.T) {
	leak.Check(t)
	for _, test := range []struct {
		name  string
		files func(t *testing.T) []*os.File
	}{
		{"nothing", func(*testing.T) []*os.File { return nil }},
		{"sockets of systemd", func(t *testing.T) []*os.File {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer ln.Close()
			f, err := ln.(*net.TCPListener).File()
			require.NoError(t, err)
			t.Cleanup(func() { f.Close() })
			return []*os.File{f, f}
		}},
		{"pipes the wrong way", func(t *testing.T) []*os.File {
			r, w, err := os.Pipe()
			require.NoError(t, err)
			t.Cleanup(func() { r.Close(); w.Close() })
			return []*os.File{r, w}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBed(t)
			g, _ := b.start(func(cmd *exec.Cmd) {
				cmd.Env = append(cmd.Env, "TABLEFLIP_HAS_PARENT_7DIU3=yes")
				cmd.ExtraFiles = test.files(t)
			})
			assert.Empty(t, g.Err)
			assert.False(t, g.Successor)
			assert.Empty(t, g.do(request{Op: "getenv", Text: "TABLEFLIP_HAS_PARENT_7DIU3"}).Text)
			b.next(g)
		})
	}
}

// TestPath is about what is started, after a change of directory.
func TestPath(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	tests := []struct {
		name  string
		argv0 string
		path  string // PATH
		want  func(b *bed) string
	}{
		{"relative", "./app", "", func(b *bed) string { return b.dir + "/app" }},
		{"relative with parents", "sub/../app", "", func(b *bed) string { return b.dir + "/sub/../app" }},
		{"by PATH", "app", "DIR", func(b *bed) string { return b.path("app") }},
		{"by relative PATH", "app", "sub:.", func(b *bed) string { return b.path("app") }},
		{"name of another program", "sh", "/bin:/usr/bin", func(*bed) string { return self }},
		{"made up", "my service", "/bin:/usr/bin", func(*bed) string { return self }},
		{"made up path", "/my/service", "", func(*bed) string { return self }},
		{"empty", "", "", func(*bed) string { return self }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBed(t)
			require.NoError(t, os.Mkdir(b.path("sub"), 0o755))
			g, _ := b.start(func(cmd *exec.Cmd) {
				cmd.Args = []string{test.argv0, "-flag", "argument"}
				cmd.Env = append(cmd.Env, "PATH="+strings.ReplaceAll(test.path, "DIR", b.dir), "PWD="+b.dir)
			})
			require.Empty(t, g.Err)
			g.do(request{Op: "chdir", Text: "/"})
			g.do(request{Op: "setenv", Args: []string{"PATH", "/nowhere"}})
			assert.Equal(t, test.want(b), g.do(request{Op: "path"}).Text)
			s := b.next(g)
			assert.Equal(t, []string{g.Path, "-flag", "argument"}, s.Args)
			assert.Equal(t, g.Path, s.Path)
			assert.Equal(t, b.dir, s.do(request{Op: "getwd"}).Text)
		})
	}

	t.Run("a symlink that is switched", func(t *testing.T) {
		b := newBed(t)
		g, _ := b.start(nil)
		g.do(request{Op: "chdir", Text: "/"})
		require.NoError(t, os.WriteFile(b.path("v2"), []byte("#!/bin/sh\nexit 42\n"), 0o755))
		require.NoError(t, os.Symlink("v2", b.path("new")))
		require.NoError(t, os.Rename(b.path("new"), b.path("app")))
		g.do(request{Op: "start"})
		assert.Equal(t, 42, g.do(request{Op: "wait"}).Code)
	})
}
