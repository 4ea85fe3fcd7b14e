package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
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

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/upgrade/control"
)

// running is hdctl run, without systemd.
type running struct {
	t       *testing.T
	name    string
	dir     string
	program string
	address string
	cmd     *exec.Cmd
	stderr  *tail
	ended   chan struct{}
}

// tail keeps what a process prints.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *tail) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *tail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// startRun starts a program by hdctl run, with the sockets http and admin.
func startRun(t *testing.T, first string, flags ...string) *running {
	t.Helper()
	data, err := os.ReadFile(binaries.path(t, first))
	require.NoError(t, err)
	return startRunOf(t, data, flags...)
}

func startRunOf(t *testing.T, first []byte, flags ...string) *running {
	t.Helper()
	dir, err := os.MkdirTemp("", "run") // t.TempDir is too long for sockets
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a free port
	require.NoError(t, err)
	address := ln.Addr().String()
	require.NoError(t, ln.Close())
	r := &running{
		t: t, dir: dir, program: filepath.Join(dir, "app"), address: address, stderr: new(tail), ended: make(chan struct{}),
		// The directories of root's services belong to all tests.
		name: fmt.Sprintf("run-test-%d-%s", os.Getpid(), filepath.Base(dir)),
	}
	r.install(first)
	args := append([]string{"run", "--name", r.name, "--listen", "http=" + address, "--listen", "admin=" + dir + "/s,mode=0600"}, flags...)
	r.cmd = exec.Command(binaries.path(t, "hdctl"), append(args, "--", r.program)...)
	r.cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "HANDOFF_STATE_DIR="+dir+"/state", "XDG_STATE_HOME="+dir,
		"HANDOFF_PROBATION=200ms", "HANDOFF_STOP_TIMEOUT=3s", "GORACE=atexit_sleep_ms=0")
	r.cmd.Args = append(r.cmd.Args[:2], append([]string{"--user"}, r.cmd.Args[2:]...)...)
	r.cmd.Stdout, r.cmd.Stderr = r.stderr, r.stderr
	require.NoError(t, r.cmd.Start())
	go func() {
		_ = r.cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		<-r.ended
		if t.Failed() {
			t.Log(r.stderr.String())
		}
		os.RemoveAll(dir)
	})
	return r
}

// deploy installs a program by rename(2).
func (r *running) deploy(name string) {
	r.t.Helper()
	data, err := os.ReadFile(binaries.path(r.t, name))
	require.NoError(r.t, err)
	r.install(data)
}

func (r *running) install(data []byte) {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(r.program+".new", data, 0o755))
	require.NoError(r.t, os.Rename(r.program+".new", r.program))
}

// says waits for a text.
func (r *running) says(text string) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return strings.Contains(r.stderr.String(), text) }, time.Minute, 5*time.Millisecond, "%q", text)
}

// get asks the service.
func (r *running) get() (version string, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Get("http://" + r.address + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.Header.Get("X-Handoff-Version"), err
}

func (r *running) requireVersion(version string) {
	r.t.Helper()
	got, err := r.get()
	require.NoError(r.t, err)
	require.Equal(r.t, version, got)
}

// hdctl runs another one, as in another terminal.
func (r *running) hdctl(args ...string) (int, string) {
	r.t.Helper()
	cmd := exec.Command(r.cmd.Path, append([]string{"--user"}, args...)...)
	cmd.Env = r.cmd.Env
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

func (r *running) status() *control.Status {
	r.t.Helper()
	c := control.Client{Socket: control.SocketIn(control.UserRunDir(r.dir), r.name)}
	s, err := c.Status(r.t.Context())
	require.NoError(r.t, err)
	return s
}

// end waits for the end of hdctl run and returns its exit status.
func (r *running) end() int {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(time.Minute):
		r.t.Fatal("hdctl run does not end")
	}
	_, err := net.Dial("tcp", r.address)
	assert.ErrorIs(r.t, err, syscall.ECONNREFUSED)
	assert.NoFileExists(r.t, r.dir+"/s")
	assert.NoDirExists(r.t, filepath.Dir(control.SocketIn(control.UserRunDir(r.dir), r.name)))
	return r.cmd.ProcessState.ExitCode()
}

// TestRun starts the demo service by hdctl run and, under load, replaces it: when its
// file changes, by hdctl upgrade, and by SIGHUP; bad builds change nothing.
func TestRun(t *testing.T) {
	t.Parallel()
	r := startRun(t, "demo-v1", "--watch", "--debounce=50ms")
	r.says("ready")
	r.requireVersion("v1")
	info, err := os.Stat(r.dir + "/s")
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	st := r.status()
	assert.Equal(t, r.name, st.Service)
	assert.NotEmpty(t, st.Invocation)
	l := load.Start(context.Background(), load.Options{
		Network: "tcp", Address: r.address,
		New: load.Traffic{Conns: 4, Rate: 60}, KeepAlive: load.Traffic{Conns: 16, Rate: 100},
	})
	defer l.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, l.WaitAnswered(ctx, 1, 20))

	r.deploy("demo-v2")
	r.says("the program has changed: upgrade")
	r.says(r.name + ": upgraded 1 -> 2 (v2)")
	r.says("(generation 2, v2)")
	r.requireVersion("v2")
	r.says(fmt.Sprintf("process %d exited with status 0", mainOf(t, *st).PID))

	// A broken build: said, and nothing else. Half a build: not even tried.
	r.install([]byte("not a program\n"))
	r.says("upgrade to generation 3 failed")
	r.says("generation 2 still serves")
	r.deploy("faulty") // without a plan it serves, too
	r.says("upgraded 2 -> 4")
	half, err := os.ReadFile(binaries.path(t, "demo-v3"))
	require.NoError(t, err)
	r.install(half[:len(half)/2])
	r.deploy("demo-v3")
	r.says("upgraded 4 -> 5 (v3)")
	r.requireVersion("v3")

	code, out := r.hdctl("upgrade", r.name)
	require.Equal(t, 0, code, out)
	r.says("(generation 6, v3)")
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGHUP))
	r.says("SIGHUP: upgrade")
	r.says("upgraded 6 -> 7 (v3)")
	code, out = r.hdctl("status", r.name)
	assert.Equal(t, 0, code, out)
	assert.Contains(t, out, "serving generation 7 (v3)")
	requireNoFailure(t, l)

	code, out = r.hdctl("run", "--name", r.name, "/bin/true")
	assert.Equal(t, 7, code, out)
	assert.Contains(t, out, "runs already")
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGINT))
	assert.Equal(t, 0, r.end())
}

// TestRunCrash kills the service: hdctl run says how it ended, keeps the sockets, and
// starts the next build, which serves who has connected meanwhile.
func TestRunCrash(t *testing.T) {
	t.Parallel()
	r := startRun(t, "demo-v1", "--watch", "--debounce=50ms")
	r.says("ready")
	pid := r.status().Generations[0].PID
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	r.says(fmt.Sprintf("process %d was killed by SIGKILL; clients wait until %s changes", pid, r.program))
	answer := make(chan string, 1)
	go func() {
		version, err := r.get()
		answer <- fmt.Sprint(version, err)
	}()
	r.deploy("demo-v2")
	assert.Equal(t, "v2<nil>", <-answer)

	// And without --watch it is over.
	other := startRun(t, "demo-v1")
	other.says("ready")
	require.NoError(t, syscall.Kill(other.status().Generations[0].PID, syscall.SIGKILL))
	assert.Equal(t, 128+9, other.end())
}

// TestRunRestart has hdctl start the service again.
func TestRunRestart(t *testing.T) {
	t.Parallel()
	r := startRun(t, "demo-v1", "--restart")
	r.says("ready")
	pid := r.status().Generations[0].PID
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	r.says("it is started again")
	r.requireVersion("v1")
	assert.NotEqual(t, pid, r.status().Generations[0].PID)
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGTERM))
	assert.Equal(t, 0, r.end())
}

// TestRunPlain starts a program that knows of sockets, and not of handoff: another
// process takes its place, if that one lives.
func TestRunPlain(t *testing.T) {
	t.Parallel()
	script := func(text string) []byte { return []byte("#!/bin/sh\n" + text + "\n") }
	r := startRunOf(t, script("echo one $LISTEN_FDS $LISTEN_FDNAMES; exec sleep 1000"), "--watch", "--debounce=20ms")
	r.says("one 2 http:admin\n")
	r.install(script("echo two $LISTEN_FDS; exec sleep 1000"))
	r.says("so there is no handoff")
	r.says("two 2\n")
	r.says("replaced: process ")
	r.says("was killed by SIGTERM")
	r.install(script("exit 3"))
	r.says("exited with status 3; the old one goes on")
	// One that does not listen is killed by the second signal.
	r.install(script("trap '' TERM; echo three; while :; do sleep 1000; done"))
	r.says("three\n")
	require.Eventually(t, func() bool { return strings.Count(r.stderr.String(), "was killed by SIGTERM") == 2 }, time.Minute, 5*time.Millisecond)
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGTERM))
	r.says("stopping; a second signal kills")
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGINT))
	assert.Equal(t, 128+9, r.end())
}
