package spawn_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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

func TestMain(m *testing.M) {
	switch mode := os.Getenv(modeEnv); mode {
	case "":
		// Programs with the race detector wait a second at their exit, in case
		// there is a report to come.
		os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
		leak.Main(m)
	case "service":
		runService()
	default:
		runRaw(mode)
	}
}

// patience is for what must come. Nothing waits that long in a run that passes.
const patience = 20 * time.Second

// bed is a place for the generations of one service.
type bed struct {
	t   *testing.T
	dir string
	ln  *net.UnixListener

	mu      sync.Mutex
	arrived *sync.Cond
	gens    map[int]*generation // by PID
	closed  bool
	over    bool // who says hello now is too late
}

// generation is a process that has said hello.
type generation struct {
	hello
	t     *testing.T
	conn  net.Conn
	in    *json.Decoder
	pidfd int
}

// newBed returns an empty bed, with the test binary as program "app".
func newBed(t *testing.T) *bed {
	t.Helper()
	// Not TempDir: other users have to get in.
	dir, err := os.MkdirTemp("", "spawn")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))

	b := &bed{t: t, dir: dir, gens: make(map[int]*generation)}
	b.arrived = sync.NewCond(&b.mu)
	b.ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: b.path("socket"), Net: "unix"})
	require.NoError(t, err)
	require.NoError(t, os.Chmod(b.path("socket"), 0o777))
	var accepting sync.WaitGroup
	accepting.Go(b.accept)
	t.Cleanup(func() {
		b.ln.Close()
		accepting.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, g := range b.gens {
			g.end()
		}
	})
	b.install("")
	return b
}

func (b *bed) path(name string) string { return filepath.Join(b.dir, name) }

// accept takes the hellos of new processes.
func (b *bed) accept() {
	for {
		conn, err := b.ln.Accept()
		if err != nil {
			return
		}
		g := &generation{t: b.t, conn: conn, in: json.NewDecoder(conn)}
		if err = g.in.Decode(&g.hello); err == nil {
			g.pidfd, err = unix.PidfdOpen(g.PID, 0)
		}
		if err != nil {
			conn.Close() // it was killed
			continue
		}
		b.mu.Lock()
		b.gens[g.PID] = g
		if b.over {
			g.end()
		}
		b.arrived.Broadcast()
		b.mu.Unlock()
	}
}

// install replaces app by a script, or with "" by the test binary. It renames,
// as it is done with programs that run.
func (b *bed) install(script string) {
	b.t.Helper()
	if script == "" {
		self, err := os.Executable()
		require.NoError(b.t, err)
		require.NoError(b.t, os.Symlink(self, b.path("new")))
	} else {
		b.installFile([]byte(script), 0o755)
		return
	}
	require.NoError(b.t, os.Rename(b.path("new"), b.path("app")))
}

func (b *bed) installFile(content []byte, mode os.FileMode) {
	b.t.Helper()
	// In a process of its own: a fork of this one in the wrong moment would
	// have the file open for writing, which is ETXTBSY to who executes it.
	cmd := exec.Command("cp", "/dev/stdin", b.path("new"))
	cmd.Stdin = bytes.NewReader(content)
	out, err := cmd.CombinedOutput()
	require.NoError(b.t, err, "%s", out)
	require.NoError(b.t, os.Chmod(b.path("new"), mode))
	require.NoError(b.t, os.Rename(b.path("new"), b.path("app")))
}

// start starts the first generation; change may modify how.
func (b *bed) start(change func(*exec.Cmd)) (*generation, *transcript) {
	b.t.Helper()
	out := newTranscript(b.t)
	r, w, err := os.Pipe()
	require.NoError(b.t, err)
	cmd := exec.Command(b.path("app"))
	cmd.Env = append(os.Environ(), modeEnv+"=service", socketEnv+"="+b.path("socket"))
	cmd.Dir = b.dir
	cmd.Stdout, cmd.Stderr = w, w
	if change != nil {
		change(cmd)
	}
	require.NoError(b.t, cmd.Start())
	w.Close()
	var reading sync.WaitGroup
	reading.Go(func() {
		io.Copy(out, r)
		r.Close()
	})
	b.t.Cleanup(func() {
		b.mu.Lock()
		b.over = true
		for _, g := range b.gens {
			g.end()
		}
		b.mu.Unlock()
		cmd.Wait()
		reading.Wait() // for all that have this stdout
		if b.t.Failed() {
			text := out.String()
			b.t.Logf("end of the output:\n%s", text[max(0, len(text)-4000):])
		}
	})
	return b.generation(cmd.Process.Pid), out
}

// generation waits for the hello of pid.
func (b *bed) generation(pid int) *generation {
	b.t.Helper()
	timer := time.AfterFunc(patience, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.closed = true
		b.arrived.Broadcast()
	})
	defer timer.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.gens[pid] == nil && !b.closed {
		b.arrived.Wait()
	}
	require.False(b.t, b.closed, "process %d has not said hello", pid)
	return b.gens[pid]
}

// next has g start its successor, with the files named.
func (b *bed) next(g *generation, names ...string) *generation {
	b.t.Helper()
	s := b.generation(g.do(request{Op: "start", Args: names}).PID)
	require.Empty(b.t, s.Err)
	require.True(b.t, s.Successor)
	return s
}

// end ends the process; in a failed test it may not be in a state to do so.
func (g *generation) end() {
	g.conn.Close()
	if g.pidfd < 0 {
		return
	}
	if g.t.Failed() {
		unix.PidfdSendSignal(g.pidfd, unix.SIGKILL, nil, 0)
	}
	unix.Close(g.pidfd)
	g.pidfd = -1
}

// try sends a request and returns the reply.
func (g *generation) try(req request) reply {
	g.t.Helper()
	require.NoError(g.t, json.NewEncoder(g.conn).Encode(req))
	require.NoError(g.t, g.conn.SetReadDeadline(time.Now().Add(patience)))
	var rep reply
	require.NoError(g.t, g.in.Decode(&rep), "%s by process %d", req.Op, g.PID)
	return rep
}

// do is try, and the request must succeed.
func (g *generation) do(req request) reply {
	g.t.Helper()
	rep := g.try(req)
	require.Empty(g.t, rep.Err, req.Op)
	return rep
}

// exit ends the process with a status.
func (g *generation) exit(code int) {
	g.t.Helper()
	require.NoError(g.t, json.NewEncoder(g.conn).Encode(request{Op: "exit", N: code}))
	var rep reply
	require.ErrorIs(g.t, g.in.Decode(&rep), io.EOF)
}

// transcript is output that can be waited for.
type transcript struct {
	t       *testing.T
	mu      sync.Mutex
	changed *sync.Cond
	text    strings.Builder
	late    bool
}

func newTranscript(t *testing.T) *transcript {
	tr := &transcript{t: t}
	tr.changed = sync.NewCond(&tr.mu)
	return tr
}

func (tr *transcript) Write(b []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.changed.Broadcast()
	return tr.text.Write(b)
}

func (tr *transcript) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.text.String()
}

// waitFor blocks until text has been printed.
func (tr *transcript) waitFor(text string) {
	tr.t.Helper()
	timer := time.AfterFunc(patience, func() {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.late = true
		tr.changed.Broadcast()
	})
	defer timer.Stop()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for !strings.Contains(tr.text.String(), text) && !tr.late {
		tr.changed.Wait()
	}
	require.False(tr.t, tr.late, "not printed: %q", text)
}

// requireGone waits until there is no process pid, not even a zombie.
func requireGone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH }, patience, 5*time.Millisecond)
}

// kinds counts what file descriptors refer to, without numbers.
func kinds(lines []string) map[string]int {
	n := make(map[string]int)
	for _, line := range lines {
		_, what, _ := strings.Cut(line, " ")
		if kind, _, ok := strings.Cut(what, ":["); ok {
			what = kind
		}
		n[what]++
	}
	return n
}

// assertSameFDs compares two answers to "fds".
func assertSameFDs(t *testing.T, before, after []string) {
	t.Helper()
	assert.Equal(t, kinds(before), kinds(after), fmt.Sprintf("before: %q\nafter: %q", before, after))
}
