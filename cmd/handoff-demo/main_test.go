package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/upgrade/control"
)

// This test binary is the service, if asked to be.
func TestMain(m *testing.M) {
	if os.Getenv("HANDOFF_DEMO_TEST") != "" {
		main()
		os.Exit(0)
	}
	leak.Main(m)
}

// demo returns the service as a command.
func demo(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "HANDOFF_DEMO_TEST=1")
	return cmd
}

func TestCommandLine(t *testing.T) {
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string
	}{
		{name: "version", args: []string{"--version"}, stdout: "dev\n"},
		{name: "help", args: []string{"--help"}, stderr: "default: the unit's, else that of the program"},
		{name: "unknown flag", args: []string{"--htpp"}, code: 2, stderr: "flag provided but not defined: -htpp"},
		{name: "argument", args: []string{"start"}, code: 2, stderr: `unexpected argument "start"`},
		{name: "bad address", args: []string{"--http", "127.0.0.1:http:"}, code: 1, stderr: "handoff-demo: error: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := demo(t.Context(), tt.args...)
			cmd.Env = append(cmd.Env, "HANDOFF_CONTROL=-")
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				require.NoError(t, err)
			}
			assert.Equal(t, tt.code, cmd.ProcessState.ExitCode())
			assert.Equal(t, tt.stdout, stdout.String())
			assert.Contains(t, stderr.String(), tt.stderr)
		})
	}
}

// running is a service that binds by itself.
type running struct {
	cmd               *exec.Cmd // the first generation
	ended             chan error
	control           control.Client
	http, echo, dgram string
}

// start starts a service with all its sockets, and waits until it serves. It is
// stopped at the end of the test, which fails if that does not work.
func start(t *testing.T) *running {
	t.Helper()
	r := &running{ended: make(chan error, 1), http: freePort(t), echo: freePort(t), dgram: freePort(t)}
	r.control.Socket = filepath.Join(t.TempDir(), "control.sock")
	r.cmd = demo(context.Background(), "--http", r.http, "--echo", r.echo, "--dgram", r.dgram, "--name", "test")
	r.cmd.Env = append(r.cmd.Env, "HANDOFF_CONTROL="+r.control.Socket, "HANDOFF_PROBATION=50ms", "HANDOFF_DRAIN_SPREAD=1ms")
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// All generations have this pipe: its end is that of the last one.
	out, err := r.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, r.cmd.Start())
	group := r.cmd.Process.Pid
	serving := make(chan struct{}, 100)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(t.Output(), lines.Text())
			if strings.Contains(lines.Text(), "msg=serving") {
				serving <- struct{}{}
			}
		}
		r.ended <- r.cmd.Wait()
	}()
	t.Cleanup(func() {
		kill := time.AfterFunc(20*time.Second, func() {
			syscall.Kill(-group, syscall.SIGKILL)
			t.Error("the service had to be killed")
		})
		defer kill.Stop()
		if s, err := r.control.Status(context.Background()); err == nil {
			syscall.Kill(s.Generations[0].PID, syscall.SIGTERM)
		} else {
			t.Errorf("status: %v", err)
			syscall.Kill(-group, syscall.SIGKILL)
		}
		assert.NoError(t, <-r.ended)
	})
	select {
	case <-serving:
	case err := <-r.ended:
		require.NoError(t, err, "the service ended")
		require.Fail(t, "the service ended")
	}
	return r
}

// freePort is an address that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

// line is a client of the TCP echo.
type line struct {
	net.Conn
	in *bufio.Reader
}

func (r *running) dial(t *testing.T) line {
	t.Helper()
	c, err := net.Dial("tcp", r.echo)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return line{c, bufio.NewReader(c)}
}

func (l line) ask(t *testing.T, text string) string {
	t.Helper()
	_, err := io.WriteString(l, text+"\n")
	require.NoError(t, err)
	got, err := l.in.ReadString('\n')
	require.NoError(t, err)
	return got
}

func TestUpgrade(t *testing.T) {
	r := start(t)
	old := r.dial(t)
	assert.Equal(t, "1: one\n", old.ask(t, "one"))
	ws, _, err := websocket.Dial(t.Context(), "http://"+r.http+"/ws", nil)
	require.NoError(t, err)
	defer ws.CloseNow()
	dgram, err := net.Dial("udp", r.dgram)
	require.NoError(t, err)
	defer dgram.Close()
	datagram := func(text string) string {
		t.Helper()
		_, err := io.WriteString(dgram, text)
		require.NoError(t, err)
		buf := make([]byte, 100)
		n, err := dgram.Read(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}
	assert.Equal(t, "1: a", datagram("a"))

	o := load.Mix()
	o.Network, o.Address, o.ProbeIdle = "tcp", r.http, true
	l := load.Start(t.Context(), o)
	require.NoError(t, l.WaitAnswered(t.Context(), 1, 100))

	result, err := r.control.Upgrade(t.Context(), control.UpgradeRequest{}, func(control.Event) {})
	require.NoError(t, err)
	assert.Equal(t, control.OutcomeConfirmed, result.Outcome)
	require.NoError(t, l.WaitAnswered(t.Context(), 2, 100))

	// What was open goes on, or is told.
	assert.Equal(t, "1: two\n", old.ask(t, "two"))
	assert.Equal(t, "2: new\n", r.dial(t).ask(t, "new"))
	assert.Equal(t, "2: b", datagram("b"))
	_, _, err = ws.Read(t.Context())
	assert.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err))

	status, err := r.control.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "test", status.Service)
	assert.Equal(t, 2, status.Main)
	require.Len(t, status.Generations, 2)
	assert.Equal(t, control.StateDraining, status.Generations[1].State)

	// SIGHUP, too.
	require.NoError(t, syscall.Kill(status.Generations[0].PID, syscall.SIGHUP))
	require.NoError(t, l.WaitAnswered(t.Context(), 3, 100))

	old.Close()
	report := l.Stop()
	t.Logf("\n%s", report)
	require.NoError(t, report.Err())
	assert.Equal(t, []int{1, 2, 3}, report.Generations())
	assert.Zero(t, report.ClosedByServer(), "no connection over HTTP/1.1 is closed at all")
	assert.GreaterOrEqual(t, report.ByKind[load.Stream].Announced, 2, "goodbyes")
}

func TestOnlyHTTPWithoutFlags(t *testing.T) {
	cmd := demo(t.Context(), "--http", freePort(t))
	socket := filepath.Join(t.TempDir(), "control.sock")
	cmd.Env = append(cmd.Env, "HANDOFF_CONTROL="+socket)
	out, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "msg=serving")
	client := control.Client{Socket: socket}
	status, err := client.Status(t.Context())
	require.NoError(t, err)
	require.Len(t, status.Sockets, 1)
	assert.Equal(t, "http", status.Sockets[0].Name)
	assert.Equal(t, filepath.Base(os.Args[0]), status.Service)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for lines.Scan() {
		t.Log(lines.Text())
	}
	assert.NoError(t, cmd.Wait())
}

// What it asks for is known without that it serves, and without traces.
func TestPrintsItsSockets(t *testing.T) {
	dir := t.TempDir()
	cmd := demo(t.Context(), "--http", "127.0.0.1:1", "--name", "app") // nobody may bind that
	cmd.Env = append(cmd.Env, control.NeedsEnv+"=1", "XDG_RUNTIME_DIR="+dir, "HANDOFF_STATE_DIR="+dir, "HANDOFF_PID_FILE="+dir+"/pid",
		"NOTIFY_SOCKET="+dir+"/notify", "GORACE=atexit_sleep_ms=0")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), stderr.String())
	var needs control.Needs
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &needs), stdout.String())
	assert.Equal(t, "app", needs.Service)
	assert.Equal(t, []control.Need{{Name: "http", Network: "tcp"}, {Name: "echo", Network: "tcp"}, {Name: "dgram", Network: "udp"}}, needs.Sockets)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
}
