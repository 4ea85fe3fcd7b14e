package upgrade_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify/sdnotifytest"
)

// process is the service, started as its first generation.
type process struct {
	t       testing.TB
	cmd     *exec.Cmd
	address string
	client  control.Client
	program string // what an upgrade runs
	exited  chan error
}

// start starts the service with the environment env besides.
func start(t testing.TB, env ...string) *process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	p := &process{
		t: t, client: control.Client{Socket: filepath.Join(dir, "control.sock")},
		program: filepath.Join(dir, "service"), exited: make(chan error, 1),
	}
	require.NoError(t, os.Symlink(self, p.program))
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a free port
	require.NoError(t, err)
	p.address = ln.Addr().String()
	require.NoError(t, ln.Close())

	p.cmd = exec.Command(p.program)
	p.cmd.Env = append(os.Environ(), "UPGRADE_TEST_SERVICE=1", "UPGRADE_TEST_ADDRESS="+p.address,
		"HANDOFF_CONTROL="+p.client.Socket, "HANDOFF_PROBATION=50ms", "GORACE=atexit_sleep_ms=0")
	p.cmd.Env = append(p.cmd.Env, env...)
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, p.cmd.Start())
	require.NoError(t, log.Close())
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // all generations, and nobody else
		<-p.exited
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("log of the service:\n%s", text)
		}
	})
	p.waitMain(1)
	return p
}

// waitMain waits until the given generation is main, serves, and is alone.
func (p *process) waitMain(number int) *control.Status {
	p.t.Helper()
	var st *control.Status
	require.Eventually(p.t, func() bool {
		var err error
		st, err = p.client.Status(p.t.Context())
		return err == nil && st.Main == number && st.State == control.StateServing && len(st.Generations) == 1
	}, time.Minute, time.Millisecond, "generation %d", number)
	return st
}

func (p *process) upgrade() (*control.Result, error) {
	return p.client.Upgrade(p.t.Context(), control.UpgradeRequest{}, nil)
}

func (p *process) get() page {
	p.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + p.address + "/")
	require.NoError(p.t, err)
	defer r.Body.Close()
	var pg page
	require.NoError(p.t, json.NewDecoder(r.Body).Decode(&pg))
	return pg
}

// TestOrderOfNotifications asserts what systemd is told, by whom, and in which
// order, over a good upgrade, a failed one, one in which the new generation dies
// in probation, and a stop.
func TestOrderOfNotifications(t *testing.T) {
	systemd := sdnotifytest.New(t)
	p := start(t, "NOTIFY_SOCKET="+systemd.Address(), "HANDOFF_PROBATION=100ms")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	next := func() sdnotifytest.Datagram {
		d, err := systemd.Next(ctx)
		require.NoError(t, err)
		return d
	}
	first := p.cmd.Process.Pid

	d := next()
	assert.Equal(t, first, d.PID)
	assert.Equal(t, []string{"READY=1", "STATUS=generation 1 () serving"}, d.Lines)

	r, err := p.upgrade()
	require.NoError(t, err)
	d = next()
	assert.Equal(t, first, d.PID, "the old one says who is main")
	require.True(t, d.Has("READY=1"), "%v", d)
	assert.True(t, d.Has("MAINPID="+strconv.Itoa(r.ToPID)), "%v", d)
	d = next()
	assert.Equal(t, first, d.PID)
	assert.Equal(t, []string{"BARRIER=1"}, d.Lines)
	p.waitMain(2)

	// A bad version: nothing but the status text, from the one that is main.
	require.NoError(t, os.Remove(p.program))
	_, err = p.upgrade()
	require.Error(t, err)
	d = next()
	assert.Equal(t, r.ToPID, d.PID)
	assert.Contains(t, d.String(), "does not exist")
	assert.Len(t, d.Lines, 1, "%v", d)

	require.NoError(t, syscall.Kill(r.ToPID, syscall.SIGTERM))
	d = next()
	assert.Equal(t, r.ToPID, d.PID)
	assert.True(t, d.Has("STOPPING=1"))
	assert.Equal(t, []string{"BARRIER=1"}, next().Lines)
	require.Eventually(t, func() bool { return syscall.Kill(r.ToPID, 0) != nil }, time.Minute, time.Millisecond)
	assert.Len(t, systemd.Datagrams(), 6, "nothing else")
}

// TestBarrierThatNeverComes upgrades under a systemd that takes the datagrams and
// never answers the barrier: the upgrade is confirmed all the same.
func TestBarrierThatNeverComes(t *testing.T) {
	systemd := sdnotifytest.New(t)
	release := systemd.HoldBarriers()
	defer release()
	p := start(t, "NOTIFY_SOCKET="+systemd.Address())
	r, err := p.upgrade()
	require.NoError(t, err)
	assert.Equal(t, control.OutcomeConfirmed, r.Outcome)
	p.waitMain(2)
}

// TestSystemdCannotBeTold takes systemd's socket away: the new generation must not
// become main, and the old one serves on.
func TestSystemdCannotBeTold(t *testing.T) {
	systemd := sdnotifytest.New(t)
	p := start(t, "NOTIFY_SOCKET="+systemd.Address())
	systemd.Close()
	r, err := p.upgrade()
	require.Error(t, err)
	assert.Equal(t, control.CodeNotify, r.Error.Code)
	st := p.waitMain(1)
	assert.Equal(t, p.cmd.Process.Pid, st.Generations[0].PID)
	assert.Equal(t, 1, p.get().Generation)
}

// TestEnvironmentOfLaterGenerations looks for what is stale in a successor, or is
// none of the business of the processes that it starts.
func TestEnvironmentOfLaterGenerations(t *testing.T) {
	systemd := sdnotifytest.New(t)
	p := start(t, "NOTIFY_SOCKET="+systemd.Address(), "WATCHDOG_USEC=60000000", "LISTEN_PID=1", "LISTEN_FDS=3",
		"LISTEN_FDNAMES=a:b:c", "INVOCATION_ID=0123", "SYSTEMD_EXEC_PID=1")
	for number := 1; number <= 3; number++ {
		pg := p.get()
		require.Equal(t, number, pg.Generation)
		for _, env := range [][]string{pg.Env, pg.HelperEnv} {
			for _, v := range env {
				key, _, _ := strings.Cut(v, "=")
				switch key {
				case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
					"LISTEN_PIDFDID", "SYSTEMD_EXEC_PID", "TABLEFLIP_HAS_PARENT_7DIU3":
					t.Errorf("generation %d: %s", number, v)
				}
			}
			assert.Contains(t, env, "INVOCATION_ID=0123")
		}
		for _, fd := range pg.HelperFDs {
			_, target, _ := strings.Cut(fd, " -> ")
			assert.False(t, strings.HasPrefix(target, "socket:") || strings.Contains(target, "pidfd"),
				"generation %d: a helper process has %s", number, target)
		}
		_, err := p.upgrade()
		require.NoError(t, err)
		p.waitMain(number + 1)
	}
}

// TestNothingPilesUpOverUpgrades compares the descriptors and the environment of
// the third and the twelfth generation.
func TestNothingPilesUpOverUpgrades(t *testing.T) {
	p := start(t)
	var third page
	for number := 1; ; number++ {
		p.waitMain(number)
		pg := p.get()
		switch number {
		case 3:
			third = pg
		case 12:
			assert.Len(t, pg.FDs, len(third.FDs), "third:\n%s\ntwelfth:\n%s", strings.Join(third.FDs, "\n"), strings.Join(pg.FDs, "\n"))
			assert.ElementsMatch(t, third.Env, pg.Env)
			return
		}
		_, err := p.upgrade()
		require.NoError(t, err)
	}
}

// TestFailedUpgradesLeakNothing counts the descriptors of a generation after
// failed upgrades.
func TestFailedUpgradesLeakNothing(t *testing.T) {
	p := start(t)
	fail := func(n int) int {
		for range n {
			require.NoError(t, os.Remove(p.program))
			require.NoError(t, os.WriteFile(p.program, []byte("#!/bin/sh\nexit 1\n"), 0o755))
			_, err := p.upgrade()
			require.Error(t, err)
		}
		return len(p.get().FDs)
	}
	before := fail(3)
	assert.LessOrEqual(t, fail(20), before)
	assert.Equal(t, p.cmd.Process.Pid, p.get().PID)
}

// TestOldGenerationDiesBeforeTheNewOneServes kills the predecessor while its
// successor starts: an orphan must not stay.
func TestOldGenerationDiesBeforeTheNewOneServes(t *testing.T) {
	p := start(t, "HANDOFF_PROBATION=1h")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pids := make(chan int, 1)
	go func() {
		_, _ = p.client.Upgrade(ctx, control.UpgradeRequest{}, func(e control.Event) {
			if e.Phase == control.PhaseStart && e.PID != 0 {
				// Its hello is not there yet, or has just come.
				_ = p.cmd.Process.Kill()
				pids <- e.PID
			}
		})
	}()
	pid := <-pids
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, time.Minute, time.Millisecond)
}

// TestSIGHUP upgrades by signal, and does nothing where that is turned off.
func TestSIGHUP(t *testing.T) {
	p := start(t)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	st := p.waitMain(2)
	assert.Equal(t, control.ViaSignal, st.Last.Trigger.Via)

	p = start(t, "HANDOFF_SIGHUP=off")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	r, err := p.upgrade()
	require.NoError(t, err)
	assert.Equal(t, 2, r.To, "no number was used by the signal")
}
