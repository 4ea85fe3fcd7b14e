package launch_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/activation/launch"
	"github.com/hdctl/handoff/test/leak"
)

// command runs the test binary as one of the children.
func command(child string, sockets ...*launch.Socket) (launch.Command, *recorder) {
	rec := &recorder{arrived: make(chan struct{}, 1)}
	return launch.Command{
		Path: os.Args[0], Shim: []string{os.Args[0], "__exec"}, Sockets: sockets,
		Env: append(os.Environ(), "LAUNCH_CHILD="+child, "GORACE=atexit_sleep_ms=0"), Notify: rec.add,
	}, rec
}

// recorder keeps events.
type recorder struct {
	arrived chan struct{}

	mu  sync.Mutex
	all []launch.Event
}

func (r *recorder) add(e launch.Event) {
	r.mu.Lock()
	r.all = append(r.all, e)
	r.mu.Unlock()
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}

// kinds are what happened, in order, with texts.
func (r *recorder) kinds() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.all {
		out = append(out, strings.TrimSpace(e.Kind.String()+" "+e.Text))
	}
	return out
}

// wait waits for an event.
func (r *recorder) wait(t *testing.T, kind launch.Kind) launch.Event {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		r.mu.Lock()
		for _, e := range r.all {
			if e.Kind == kind {
				r.mu.Unlock()
				return e
			}
		}
		r.mu.Unlock()
		select {
		case <-r.arrived:
		case <-limit:
			t.Fatalf("no event %v in %v", kind, r.kinds())
		}
	}
}

func start(t *testing.T, c launch.Command) *launch.Process {
	t.Helper()
	p, err := launch.Start(c)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = p.Signal(unix.SIGKILL)
		p.Wait()
	})
	return p
}

func bind(t *testing.T, name, network, address string) *launch.Socket {
	t.Helper()
	s, err := launch.Bind(t.Context(), launch.Address{Name: name, Network: network, Address: address})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "l") // t.TempDir is too long for sockets
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// The program finds what it finds under systemd.
func TestStart(t *testing.T) {
	leak.Check(t)
	dir := tempDir(t)
	var inherited [2]int
	require.NoError(t, unix.Pipe(inherited[:])) // by us, of a shell
	defer unix.Close(inherited[0])
	defer unix.Close(inherited[1])
	c, rec := command("report",
		bind(t, "http", "tcp4", "127.0.0.1:0"), bind(t, "http", "unix", dir+"/s"), bind(t, "dns", "udp", "127.0.0.1:0"), bind(t, "x", "unixpacket", dir+"/p"))
	c.Argv0, c.Args, c.Dir = "app", []string{"-x", "", "a b"}, dir
	c.RuntimeDirectory, c.StateDirectory = dir+"/run", dir+"/state"
	c.Env = append(c.Env, "REPORT="+dir+"/report", "WATCHDOG_USEC=1", "LISTEN_PIDFDID=1", "MAINPID=1", "LISTEN_FDS=9", "SYSTEMD_EXEC_PID=1", "NOTIFY_SOCKET=/x")
	p := start(t, c)
	exit := p.Wait()
	assert.Equal(t, launch.Exit{PID: p.MainPID(), Known: true}, exit)
	assert.Equal(t, []string{"started", "ended"}, rec.kinds())

	data, err := os.ReadFile(dir + "/report")
	require.NoError(t, err)
	var r report
	require.NoError(t, json.Unmarshal(data, &r))
	assert.Empty(t, r.Err)
	assert.Equal(t, p.MainPID(), r.PID)
	assert.Equal(t, r.PID, r.Group)
	assert.Equal(t, []string{"app", "-x", "", "a b"}, r.Args)
	assert.Equal(t, dir, r.Dir)
	names := ""
	for _, s := range r.Sockets {
		names += s.Name + " " + s.Network + ", "
	}
	assert.Equal(t, "http tcp, http unix, dns udp, x unixpacket, ", names)
	self := strconv.Itoa(r.PID)
	assert.Equal(t, self, r.Environ["LISTEN_PID"])
	assert.Equal(t, self, r.Environ["SYSTEMD_EXEC_PID"])
	assert.Equal(t, "4", r.Environ["LISTEN_FDS"])
	assert.Equal(t, "http:http:dns:x", r.Environ["LISTEN_FDNAMES"])
	assert.Equal(t, p.Invocation(), r.Environ["INVOCATION_ID"])
	assert.Equal(t, dir+"/run", r.Environ["RUNTIME_DIRECTORY"])
	assert.Equal(t, dir+"/state", r.Environ["STATE_DIRECTORY"])
	assert.Equal(t, "@", r.Environ["NOTIFY_SOCKET"][:1])
	for _, name := range []string{"WATCHDOG_USEC", "LISTEN_PIDFDID", "MAINPID"} {
		assert.NotContains(t, r.Environ, name)
	}
	assert.Equal(t, 4, r.FDs, "nothing else is inherited")
	assert.ErrorIs(t, p.Signal(unix.SIGTERM), os.ErrProcessDone)
}

// Without sockets LISTEN_PID is not set, as with systemd.
func TestStartWithoutSockets(t *testing.T) {
	leak.Check(t)
	dir := tempDir(t)
	c, _ := command("report")
	c.Env = append(c.Env, "REPORT="+dir+"/report")
	start(t, c).Wait()
	data, err := os.ReadFile(dir + "/report")
	require.NoError(t, err)
	var r report
	require.NoError(t, json.Unmarshal(data, &r))
	assert.NotContains(t, r.Environ, "LISTEN_PID")
	assert.Contains(t, r.Environ, "SYSTEMD_EXEC_PID")
}

func TestStartErrors(t *testing.T) {
	leak.Check(t)
	dir := tempDir(t)
	file := dir + "/file"
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	shim := []string{os.Args[0], "__exec"}
	for _, tt := range []struct {
		name string
		c    launch.Command
		is   error
		says string
	}{
		{"missing", launch.Command{Path: dir + "/none", Shim: shim}, unix.ENOENT, "execute " + dir + "/none: no such file or directory"},
		{"not executable", launch.Command{Path: file, Shim: shim}, unix.EACCES, "permission denied"},
		{"no path", launch.Command{Shim: shim}, nil, "no path"},
		{"no slash", launch.Command{Path: "true", Shim: shim}, nil, "a path has a slash"},
		{"no shim", launch.Command{Path: "/bin/true"}, nil, "no shim"},
		{"missing shim", launch.Command{Path: "/bin/true", Shim: []string{dir + "/none"}}, unix.ENOENT, "find the shim"},
		{"no directory", launch.Command{Path: "/bin/true", Shim: shim, Dir: dir + "/none"}, unix.ENOENT, "start the shim"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leak.Check(t)
			_, err := launch.Start(tt.c)
			require.ErrorContains(t, err, tt.says)
			if tt.is != nil {
				assert.ErrorIs(t, err, tt.is)
			}
		})
	}
	// Whoever calls it by mistake is told.
	for _, args := range [][]string{nil, {"x", "/bin/true", "true"}, {"-1", "/bin/true", "true"}, {"100000", "/bin/true", "true"}} {
		assert.ErrorIs(t, launch.Exec(args), launch.ErrNotStarted)
	}
}

// How it ended is known, whatever it was.
func TestExit(t *testing.T) {
	for child, want := range map[string]struct {
		code int
		says string
	}{
		"exit 3": {3, "exited with status 3"},
		"killed": {137, "was killed by SIGKILL"},
	} {
		t.Run(child, func(t *testing.T) {
			leak.Check(t)
			c, rec := command(child)
			p := start(t, c)
			exit := p.Wait()
			assert.Equal(t, want.code, exit.Code())
			assert.Equal(t, fmt.Sprintf("process %d %s", p.MainPID(), want.says), exit.String())
			assert.Equal(t, exit, rec.wait(t, launch.Ended).Exit)
		})
	}
}

// A service replaces its process: the new one is waited for, although somebody else
// has started it, and it is the one whose end counts. A word that is read after the
// death of the one who said it counts as well.
func TestReplace(t *testing.T) {
	for _, child := range []string{"replace", "last word"} {
		t.Run(child, func(t *testing.T) {
			leak.Check(t)
			c, rec := command(child)
			waiting := filepath.Join(tempDir(t), "waiting")
			c.Env = append(c.Env, "WAITING="+waiting)
			p := start(t, c)
			first := rec.wait(t, launch.Started).PID
			assert.Equal(t, first, rec.wait(t, launch.Ended).PID)
			assert.NotEqual(t, first, p.MainPID())
			assert.Equal(t, []string{"started", "main", "ready", "ended"}, rec.kinds())
			awaitFile(t, waiting)
			require.NoError(t, p.Signal(unix.SIGTERM))
			exit := p.Wait()
			assert.Equal(t, launch.Exit{PID: p.MainPID(), Known: true, Status: 7}, exit)
			assert.ErrorIs(t, unix.Kill(exit.PID, 0), unix.ESRCH, "it was reaped")
		})
	}
}

func awaitFile(t *testing.T, path string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := os.Stat(path)
		return err == nil
	}, time.Minute, time.Millisecond)
}

// The end of the main process is the end of all.
func TestMainEnds(t *testing.T) {
	leak.Check(t)
	c, rec := command("leave")
	p := start(t, c)
	assert.Equal(t, 3, p.Wait().Code())
	assert.Equal(t, []string{"started", "ended", "ended"}, rec.kinds())
}

// What others say does not count.
func TestStrangers(t *testing.T) {
	leak.Check(t)
	c, rec := command("foreign")
	p := start(t, c)
	assert.Contains(t, rec.wait(t, launch.Refused).Text, "not of this service")
	require.NoError(t, p.Signal(unix.SIGTERM))
	p.Wait()
	assert.NotContains(t, rec.kinds(), "ready")
}

func TestNotifications(t *testing.T) {
	leak.Check(t)
	for text, want := range map[string][]string{
		"READY=1\nSTATUS=hello":          {"status hello", "ready"},
		"STOPPING=1":                     {"stopping"},
		"RELOADING=1\nMONOTONIC_USEC=12": {"reloading"},
		"WATCHDOG=1\nFDSTORE=1\nX":       nil,
		"WATCHDOG=trigger":               {"watchdog"},
		"MAINPID=1":                      {`refused MAINPID="1": no process of this service`},
		"MAINPID=x":                      {`refused MAINPID="x": no process of this service`},
		strings.Repeat("x", 4097):        {"refused a notification of more than 4096 bytes"},
	} {
		t.Run(text[:min(len(text), 20)], func(t *testing.T) {
			t.Parallel()
			c, rec := command("notify")
			c.Args = []string{text}
			waiting := filepath.Join(tempDir(t), "waiting")
			c.Env = append(c.Env, "WAITING="+waiting)
			p := start(t, c)
			awaitFile(t, waiting)
			require.NoError(t, p.Signal(unix.SIGTERM))
			p.Wait()
			assert.Equal(t, append(append([]string{"started"}, want...), "ended"), rec.kinds())
		})
	}
}

// A socket stays open while nobody serves it: who has connected meanwhile is served
// by the next one.
func TestSocketOutlivesTheService(t *testing.T) {
	leak.Check(t)
	dir := tempDir(t)
	s := bind(t, "echo", "unix", dir+"/s")
	c, rec := command("serve", s)
	p := start(t, c)
	assert.Equal(t, "serving", rec.wait(t, launch.Status).Text)
	rec.wait(t, launch.Ready)
	assert.Equal(t, p.MainPID(), ask(t, dir+"/s")())
	require.NoError(t, p.Signal(unix.SIGKILL))
	p.Wait()

	answer := ask(t, dir+"/s")
	c, _ = command("serve", s)
	p = start(t, c)
	assert.Equal(t, p.MainPID(), answer())
	require.NoError(t, p.Signal(unix.SIGTERM))
	assert.Zero(t, p.Wait().Code())
}

// ask connects, and returns what gets the PID of who answers.
func ask(t *testing.T, path string) func() int {
	t.Helper()
	conn, err := net.Dial("unix", path)
	require.NoError(t, err)
	return func() int {
		defer conn.Close()
		data, err := io.ReadAll(conn)
		require.NoError(t, err)
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		require.NoError(t, err)
		return pid
	}
}

func TestBind(t *testing.T) {
	leak.Check(t)
	dir := tempDir(t)
	path := dir + "/s"
	s, err := launch.Bind(t.Context(), launch.Address{Name: "a", Network: "unix", Address: path, Mode: 0o600})
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	_, err = launch.Bind(t.Context(), launch.Address{Name: "a", Network: "unix", Address: path})
	assert.ErrorIs(t, err, unix.EADDRINUSE, "it lives")
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	assert.NoFileExists(t, path)

	// One that died is replaced; what is somebody else's by then is not removed.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	ln.SetUnlinkOnClose(false)
	require.NoError(t, ln.Close())
	s, err = launch.Bind(t.Context(), launch.Address{Name: "a", Network: "unix", Address: path})
	require.NoError(t, err)
	info, err = os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o666), info.Mode().Perm())
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, s.Close())
	assert.FileExists(t, path)

	for _, name := range []string{"", "a:b", "ä", strings.Repeat("x", 256)} {
		_, err := launch.Bind(t.Context(), launch.Address{Name: name, Network: "tcp", Address: "127.0.0.1:0"})
		assert.Error(t, err, name)
	}
}
