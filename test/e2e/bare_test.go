package e2e

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/upgrade/control"
)

// bare is the demo service started by hand, without systemd.
type bare struct {
	t       testing.TB
	program string
	address string
	socket  string
	cmd     *exec.Cmd
}

func startBare(t *testing.T, wrapper ...string) *bare {
	t.Helper()
	dir := t.TempDir()
	b := &bare{t: t, program: filepath.Join(dir, "demo"), socket: filepath.Join(dir, "control.sock")}
	b.deploy("v1")
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a free port
	require.NoError(t, err)
	b.address = ln.Addr().String()
	require.NoError(t, ln.Close())
	args := append(wrapper, b.program, "--http", b.address)
	b.cmd = exec.Command(args[0], args[1:]...)
	b.cmd.Env = append(os.Environ(), "HANDOFF_CONTROL="+b.socket, "HANDOFF_PROBATION=200ms", "HANDOFF_STOP_TIMEOUT=3s")
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, b.cmd.Start())
	t.Cleanup(func() {
		// All generations are of this group, and nobody else.
		_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
		_ = b.cmd.Wait()
	})
	b.waitServing(1)
	return b
}

func (b *bare) deploy(version string) {
	b.t.Helper()
	next := b.program + ".new"
	data, err := os.ReadFile(binaries.path(b.t, "demo-"+version))
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(next, data, 0o755))
	require.NoError(b.t, os.Rename(next, b.program))
}

func (b *bare) hdctl(args ...string) (int, string) {
	b.t.Helper()
	cmd := exec.Command(binaries.path(b.t, "hdctl"), append([]string{"--socket", b.socket}, args...)...)
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

func (b *bare) status() (*control.Status, error) {
	c := control.Client{Socket: b.socket}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return c.Status(ctx)
}

// waitServing waits until the given generation is main and the only one.
func (b *bare) waitServing(number int) *control.Status {
	b.t.Helper()
	var st *control.Status
	require.Eventually(b.t, func() bool {
		var err error
		st, err = b.status()
		return err == nil && st.Main == number && st.State == control.StateServing && len(st.Generations) == 1
	}, time.Minute, 5*time.Millisecond, "generation %d", number)
	return st
}

// TestWithoutSystemdItWorksToo starts the same program by hand: it binds by
// itself, is upgraded by SIGHUP and by hdctl under load, survives a bad version,
// and ends at SIGTERM, all of it.
func TestWithoutSystemdItWorksToo(t *testing.T) {
	b := startBare(t)
	l := load.Start(context.Background(), load.Options{
		Network: "tcp", Address: b.address,
		New: load.Traffic{Conns: 4, Rate: 60}, KeepAlive: load.Traffic{Conns: 16, Rate: 100},
	})
	defer l.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, l.WaitAnswered(ctx, 1, 20))

	b.deploy("v2")
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGHUP))
	require.NoError(t, l.WaitAnswered(ctx, 2, 20))
	b.waitServing(2)
	b.deploy("v3")
	code, out := b.hdctl("upgrade")
	require.Equal(t, 0, code, out)
	require.NoError(t, os.Remove(b.program))
	code, out = b.hdctl("upgrade")
	require.Equal(t, 1, code, out)
	assert.Contains(t, out, "does not exist")
	b.deploy("v1")
	code, out = b.hdctl("upgrade")
	require.Equal(t, 0, code, out)
	st := b.waitServing(5)
	assert.Equal(t, "v1", st.Generations[0].Version)
	requireNoFailure(t, l)

	main, err := os.FindProcess(st.Generations[0].PID)
	require.NoError(t, err)
	require.NoError(t, main.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool { return main.Signal(syscall.Signal(0)) != nil }, time.Minute, 5*time.Millisecond)
	_, err = net.Dial("tcp", b.address)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	assert.NoFileExists(t, b.socket)
}

// TestSecondInstanceIsRefused starts the service twice by accident.
func TestSecondInstanceIsRefused(t *testing.T) {
	b := startBare(t)
	second := exec.Command(b.program, "--http", "127.0.0.1:0")
	second.Env = b.cmd.Env
	out, err := second.CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), b.socket)
	b.waitServing(1)
}

// TestPID1IsNotUpgraded runs the service as PID 1 of a PID namespace, as in a
// container: its end would be the end of all, so it says no, with a hint.
func TestPID1IsNotUpgraded(t *testing.T) {
	testbed.Require(t)
	b := startBare(t, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
	code, out := b.hdctl("upgrade")
	assert.Equal(t, 7, code, out)
	assert.Contains(t, out, "PID 1")
	assert.Contains(t, out, "hint")
	b.waitServing(1)
}

// TestFirstPage looks at the demo's first page as a user does.
func TestFirstPage(t *testing.T) {
	b := startBare(t)
	r, err := http.Get("http://" + b.address + "/")
	require.NoError(t, err)
	defer r.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	var page map[string]any
	require.NoError(t, json.NewDecoder(r.Body).Decode(&page))
	assert.Equal(t, "v1", page["version"])
	assert.Equal(t, "1", r.Header.Get("X-Handoff-Generation"))
}
