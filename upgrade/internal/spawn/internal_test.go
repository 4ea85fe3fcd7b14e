package spawn

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
)

func TestParseExited(t *testing.T) {
	tests := []struct {
		text string
		pid  int
		exit Exit
		ok   bool
	}{
		{"child pid=7 exited", 7, Exit{}, true},
		{"child pid=4242 exited: exit status 3", 4242, Exit{Code: 3}, true},
		{"child pid=7 exited: signal: killed", 7, Exit{Code: -1, Signal: syscall.SIGKILL}, true},
		{"child pid=7 exited: signal: aborted (core dumped)", 7, Exit{Code: -1, Signal: syscall.SIGABRT}, true},
		{"child pid=7 exited: signal: segmentation fault", 7, Exit{Code: -1, Signal: syscall.SIGSEGV}, true},
		{"child pid=7 exited: signal: signal 40", 7, Exit{Code: -1, Signal: 40}, true},
		{"process is not ready yet", 0, Exit{}, false},
		{"new child pid=7 timed out", 0, Exit{}, false},
		{"child pid=99999999999999999999 exited", 0, Exit{}, false},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			pid, exit, ok := parseExited(errors.New(test.text))
			assert.Equal(t, test.ok, ok)
			assert.Equal(t, test.pid, pid)
			assert.Equal(t, test.exit, exit)
		})
	}
	for _, text := range []string{"waitid: no child processes", "exit status x", "signal: unheard of"} {
		exit := parseExit(text)
		assert.Equal(t, -1, exit.Code, text)
		assert.EqualError(t, exit.Err, "unknown exit status: "+text)
	}
	assert.ErrorIs(t, parseExit("waitid: no child processes").Err, unix.ECHILD)
}

// TestParseExitOfSystem compares with what package os makes of each end.
func TestParseExitOfSystem(t *testing.T) {
	for status := range 1 << 16 {
		ws := syscall.WaitStatus(status)
		var text string
		var want Exit
		switch {
		case ws.Exited():
			text, want.Code = fmt.Sprintf("exit status %d", ws.ExitStatus()), ws.ExitStatus()
		case ws.Signaled() && ws.Signal() <= 64:
			text, want = "signal: "+ws.Signal().String(), Exit{Code: -1, Signal: ws.Signal()}
			if ws.CoreDump() {
				text += " (core dumped)"
			}
		default:
			continue
		}
		if got := parseExit(text); got != want {
			t.Fatalf("%q: %+v", text, got)
		}
	}
}

func TestStartError(t *testing.T) {
	const path = "/no/such/app"
	tests := []struct {
		text, want string
		is         error
	}{
		{
			"can't start child: can't start process " + path + ": fork/exec: exec format error",
			"neither a program for this machine nor a script with a #! line: exec format error", unix.ENOEXEC,
		},
		{
			"can't start child: can't start process " + path + ": exec: \"" + path + "\": stat " + path + ": no such file or directory",
			"no such file or directory", fs.ErrNotExist,
		},
		{
			"can't start child: can't start process " + path + ": exec: \"" + path + "\": permission denied",
			"permission denied", fs.ErrPermission,
		},
		{"can't start child: can't start process " + path + ": fork/exec: text file busy", "text file busy", unix.ETXTBSY},
		{
			"can't start child: can't start process " + path + ": fork/exec: resource temporarily unavailable",
			"resource temporarily unavailable", unix.EAGAIN,
		},
		{"can't start child: pipe failed: pipe2: too many open files", "pipe failed: pipe2: too many open files", unix.EMFILE},
		{"can't start child: something new", "something new", nil},
	}
	for _, test := range tests {
		t.Run(test.want, func(t *testing.T) {
			err := startError(test.text, path, "/")
			assert.EqualError(t, err, test.want)
			if test.is != nil {
				assert.ErrorIs(t, err, test.is)
			}
		})
	}
}

func TestManifest(t *testing.T) {
	leak.Check(t)
	var files []File
	for i := range 5000 {
		files = append(files, File{Name: fmt.Sprintf("name \"%d\"\n", i)})
	}
	for _, files := range [][]File{nil, files[:1], files} {
		m, err := newManifest(files)
		require.NoError(t, err)
		fd, err := m.memfd()
		require.NoError(t, err)
		defer unix.Close(fd)
		got, err := readManifest(fd)
		require.NoError(t, err)
		assert.Equal(t, m, got)
	}
	for content, want := range map[string]string{
		"":                           "decode manifest: unexpected end of JSON input",
		"{":                          "decode manifest: unexpected end of JSON input",
		`{"protocol":2,"names":[]}`:  "the parent hands over by protocol 2, this version by protocol 1",
		`{"protocol":1,"new":"yes"}`: "",
	} {
		fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
		require.NoError(t, err)
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte(content))
		require.NoError(t, err)
		_, err = readManifest(fd)
		if want == "" {
			assert.NoError(t, err)
		} else {
			assert.EqualError(t, err, want)
		}
	}
}

// TestRelay feeds the relay in pieces and compares what it writes and records.
func TestRelay(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	tests := []struct {
		name    string
		in      []string
		written string
		lines   []string
	}{
		{"nothing", nil, "", nil},
		{"lines", []string{"a\nb\n\nc\n"}, "a\nb\n\nc\n", []string{"a", "b", "", "c"}},
		{"torn", []string{"a", "b\nc", "d\n", "\n"}, "ab\ncd\n\n", []string{"ab", "cd", ""}},
		{"no newline", []string{"a\n", "b"}, "a\nb\n", []string{"a", "b"}},
		{"carriage return", []string{"a\r\nb\n"}, "a\r\nb\n", []string{"a", "b"}},
		{"long", []string{long + "y\nz\n"}, long + "y\nz\n", []string{long, "y", "z"}},
		{"as long as can be", []string{long + "\nz\n"}, long + "\nz\n", []string{long, "z"}},
		{"long, no newline", []string{long}, long + "\n", []string{long}},
		{"very long", []string{long, long, "y"}, long + long + "y\n", []string{long, long, "y"}},
		{"zeros", []string{"a\x00b\n"}, "a\x00b\n", []string{"a\x00b"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			inR, inW, err := os.Pipe()
			require.NoError(t, err)
			outR, outW, err := os.Pipe()
			require.NoError(t, err)
			defer outR.Close()
			var reported []string
			tl := new(tail)
			tl.report = func(stream int, line string) {
				assert.Equal(t, 2, stream)
				reported = append(reported, line)
				assert.Equal(t, reported, tl.last()) // may be asked for
			}
			var running sync.WaitGroup
			running.Go(func() { assert.NoError(t, (&stream{fd: 2, r: inR, real: outW}).relay(tl)) })
			for _, s := range test.in {
				_, err := inW.WriteString(s)
				require.NoError(t, err)
			}
			require.NoError(t, inW.Close())
			written, err := io.ReadAll(outR)
			require.NoError(t, err)
			running.Wait()
			assert.Equal(t, test.written, string(written))
			assert.Equal(t, test.lines, tl.last())
			assert.Equal(t, test.lines, reported)
		})
	}
}

// TestRelayWithoutReader is about a stdout that nobody reads any more: the child
// must not notice.
func TestRelayWithoutReader(t *testing.T) {
	leak.Check(t)
	inR, inW, err := os.Pipe()
	require.NoError(t, err)
	outR, outW, err := os.Pipe()
	require.NoError(t, err)
	outR.Close()
	tl := new(tail)
	done := make(chan error)
	go func() { done <- (&stream{fd: 1, r: inR, real: outW}).relay(tl) }()
	for range 10 {
		_, err := inW.Write(make([]byte, 1<<16))
		require.NoError(t, err)
	}
	_, err = inW.WriteString("\nlast words\n")
	require.NoError(t, err)
	inW.Close()
	assert.ErrorIs(t, <-done, unix.EPIPE)
	lines := tl.last()
	assert.Equal(t, "last words", lines[len(lines)-1])
}

func TestTailForgets(t *testing.T) {
	tl := new(tail)
	for i := range 120 {
		tl.add(1, fmt.Appendf(nil, "%d\n", i), false)
	}
	lines := tl.last()
	require.Len(t, lines, maxLines)
	assert.Equal(t, "70", lines[0])
	assert.Equal(t, "119", lines[maxLines-1])

	for range 10 {
		tl.add(1, []byte(strings.Repeat("x", 4000)+"\n"), false)
	}
	lines = tl.last()
	assert.Len(t, lines, 4)
	assert.LessOrEqual(t, len(strings.Join(lines, "\n")), maxBytes)

	tl.freeze()
	tl.add(1, []byte("late\n"), false)
	assert.Equal(t, lines, tl.last())
}

func TestParseStat(t *testing.T) {
	const rest = " 4242 1 1 0 -1 %d 1 2 3 4 5 6 7 8 20 0 9 0 123456 1000 100 1\n"
	tests := []struct {
		name string
		stat string
		want process
	}{
		{"usual", "7 (app) S" + fmt.Sprintf(rest, 0x400000), process{pid: 7, ppid: 4242, executed: true, started: 123456}},
		{"forked", "7 (app) R" + fmt.Sprintf(rest, 0x400040), process{pid: 7, ppid: 4242, started: 123456}},
		{"zombie", "7 (app) Z" + fmt.Sprintf(rest, 0), process{pid: 7, ppid: 4242, zombie: true, executed: true, started: 123456}},
		{"strange name", "7 (a) Z 1 (b) S" + fmt.Sprintf(rest, 0), process{pid: 7, ppid: 4242, executed: true, started: 123456}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := parseStat(test.stat)
			require.NoError(t, err)
			assert.Equal(t, test.want, p)
		})
	}
	for _, stat := range []string{"", "7", "7 (app)", "7 (app) S 1 2", "x (app) S" + fmt.Sprintf(rest, 0)} {
		_, err := parseStat(stat)
		assert.Error(t, err, stat)
	}
	self, err := readProcess(os.Getpid())
	require.NoError(t, err)
	assert.Equal(t, os.Getpid(), self.pid)
	assert.Equal(t, os.Getppid(), self.ppid)
	assert.True(t, self.executed)
}

func locked() *sync.Mutex {
	mu := new(sync.Mutex)
	mu.Lock()
	return mu
}

// newTestFinder returns a finder for a process with a pipe of the output as
// stdout, and that pipe.
func newTestFinder(t *testing.T) (*finder, *os.File) {
	t.Helper()
	out, err := newOutput(locked(), new(tail), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	n, err := dup(out.streams[0].w)
	require.NoError(t, err)
	w := os.NewFile(uintptr(n), "stdout")
	t.Cleanup(func() {
		w.Close()
		require.NoError(t, out.close())
		<-out.drained
	})
	f, err := newFinder("/bin/sleep", out)
	require.NoError(t, err)
	return f, w
}

// startSleep starts a process, and ends it after the test.
func startSleep(t *testing.T, stdout *os.File, env ...string) int {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "1000")
	cmd.Env = append([]string{"LANG=C"}, env...)
	if stdout != nil {
		cmd.Stdout = stdout
	}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	// Start returns a moment before the kernel has set up the environment.
	require.Eventually(t, func() bool {
		data, err := os.ReadFile(procFile(cmd.Process.Pid, "environ"))
		return err == nil && len(data) > 0
	}, 10*time.Second, time.Millisecond)
	return cmd.Process.Pid
}

func TestFinder(t *testing.T) {
	const sentinel = sentinelName + "=" + sentinelValue
	scan := func(t *testing.T, f *finder) int {
		p, err := f.scan()
		require.NoError(t, err)
		return p.pid
	}
	t.Run("by sentinel", func(t *testing.T) {
		leak.Check(t)
		f, w := newTestFinder(t)
		startSleep(t, nil)
		startSleep(t, w)
		assert.Zero(t, scan(t, f))
		assert.Equal(t, startSleep(t, w, sentinel), scan(t, f))
	})
	t.Run("not an older one", func(t *testing.T) {
		leak.Check(t)
		startSleep(t, nil, sentinel)
		f, w := newTestFinder(t)
		assert.Zero(t, scan(t, f))
		assert.Equal(t, startSleep(t, w, sentinel), scan(t, f))
	})
	t.Run("by pipe", func(t *testing.T) {
		leak.Check(t)
		f, w := newTestFinder(t)
		startSleep(t, nil)
		pid := startSleep(t, w)
		for range heirScans - 1 {
			require.Zero(t, scan(t, f))
		}
		assert.Equal(t, pid, scan(t, f))
	})
	t.Run("not by pipe if there are two", func(t *testing.T) {
		leak.Check(t)
		f, w := newTestFinder(t)
		startSleep(t, w)
		startSleep(t, w)
		for range 2 * heirScans {
			require.Zero(t, scan(t, f))
		}
	})
}

// TestSearchStarved leaves no descriptors but those in reserve.
func TestSearchStarved(t *testing.T) {
	leak.Check(t)
	f, w := newTestFinder(t)
	pid := startSleep(t, w, sentinelName+"="+sentinelValue)
	a := newAttempt(&Tableflip{logger: slog.New(slog.DiscardHandler)})
	var err error
	a.reserve, err = newReserve(2)
	require.NoError(t, err)

	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	var taken []int
	defer func() {
		assert.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
		closeAll(taken...)
	}()
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: limit.Max}))
	for {
		fd, err := openNull()
		if err != nil {
			require.True(t, outOfFDs(err))
			break
		}
		taken = append(taken, fd)
	}
	p, pidfd, err := a.search(f)
	require.NoError(t, err)
	assert.Equal(t, pid, p.pid)
	unix.Close(pidfd)
}

func TestPidfdOfAnother(t *testing.T) {
	leak.Check(t)
	p, err := readProcess(startSleep(t, nil))
	require.NoError(t, err)
	fd, err := p.pidfd()
	require.NoError(t, err)
	unix.Close(fd)

	p.started++ // as if it were gone and its number given away
	_, err = p.pidfd()
	assert.ErrorIs(t, err, unix.ESRCH)
}

// TestChildrenOf compares the two ways to list children.
func TestChildrenOf(t *testing.T) {
	want := startSleep(t, nil)
	fast, err := children()
	require.NoError(t, err)
	assert.Contains(t, fast, want)
	slow, err := childrenOf(os.Getpid())
	require.NoError(t, err)
	assert.ElementsMatch(t, fast, slow)
}

func TestOutputWaits(t *testing.T) {
	leak.Check(t)
	tl := new(tail)
	out, err := newOutput(locked(), tl, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	n, err := dup(out.streams[1].w)
	require.NoError(t, err)
	require.NoError(t, out.close())
	out.wait(time.Microsecond) // it is still open
	tl.add(2, []byte("late\n"), false)
	assert.Empty(t, tl.last())
	unix.Close(n)
	<-out.drained
}
