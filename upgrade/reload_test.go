package upgrade_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify/sdnotifytest"
)

// reloader is a service with Type=notify-reload, and its systemd.
type reloader struct {
	*process
	systemd *sdnotifytest.Recorder
	main    int // its PID, as systemd knows it
}

func startReloader(t *testing.T, env ...string) *reloader {
	t.Helper()
	systemd := sdnotifytest.New(t)
	p := start(t, append([]string{"NOTIFY_SOCKET=" + systemd.Address(), "HANDOFF_NOTIFY_RELOAD=on"}, env...)...)
	r := &reloader{process: p, systemd: systemd, main: p.cmd.Process.Pid}
	assert.Equal(t, "READY=1 STATUS=generation 1 () serving", r.next())
	return r
}

// next is what systemd hears next, from the main process, with <usec> in the place of
// a time that is later than the last signal, and <pid> in that of another process,
// which is the main one from then on.
func (r *reloader) next() string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	d, err := r.systemd.Next(ctx)
	require.NoError(r.t, err, "%v", r.systemd.Datagrams())
	assert.Equal(r.t, r.main, d.PID, "%v", d)
	text := strings.Join(d.Lines, " ")
	if pid, ok := d.Value("MAINPID"); ok {
		if pid != strconv.Itoa(r.main) {
			text = strings.Replace(text, pid, "<pid>", 1)
		}
		r.main, err = strconv.Atoi(pid)
		require.NoError(r.t, err)
	}
	if usec, ok := d.Value("MONOTONIC_USEC"); ok {
		text = strings.Replace(text, usec, "<usec>", 1)
	}
	return text
}

// signal sends SIGHUP to the main process.
func (r *reloader) signal() {
	r.t.Helper()
	require.NoError(r.t, syscall.Kill(r.main, syscall.SIGHUP))
}

// keepBusy opens a request that lasts until the end of the test.
func (r *reloader) keepBusy() {
	r.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.address+"/sleep?d=1h", http.NoBody)
		if resp, err := client.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	r.t.Cleanup(func() { cancel(); <-done })
	require.Eventually(r.t, func() bool {
		st, err := r.client.Status(r.t.Context())
		return err == nil && st.Generations[0].Conns.Active == 1
	}, time.Minute, time.Millisecond)
}

// waitPhase waits until an upgrade has come so far, and returns its process.
func (r *reloader) waitPhase(phase string) (pid int) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		st, err := r.client.Status(r.t.Context())
		if err != nil || st.Upgrade == nil || st.Upgrade.Phase != phase {
			return false
		}
		pid = st.Upgrade.PID
		return true
	}, time.Minute, time.Millisecond, phase)
	return pid
}

const reloading = "RELOADING=1 MONOTONIC_USEC=<usec>"

func handedOver(number int) string {
	return "MAINPID=<pid> READY=1 STATUS=generation " + strconv.Itoa(number) + " () serving"
}

// TestNotifyReload asserts every datagram of reloads that end well, and that do not.
func TestNotifyReload(t *testing.T) {
	r := startReloader(t)
	var now unix.Timespec
	require.NoError(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	first := r.main
	r.signal()
	assert.Equal(t, reloading, r.next())
	all := r.systemd.Datagrams()
	usec, _ := all[len(all)-1].Value("MONOTONIC_USEC")
	n, err := strconv.ParseInt(usec, 10, 64)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, n, now.Nano()/1000, "systemd ignores what is older than its signal")
	assert.Equal(t, handedOver(2), r.next())
	assert.NotEqual(t, first, r.main)
	r.main, first = first, r.main
	assert.Equal(t, "BARRIER=1", r.next())
	r.main = first
	assert.Equal(t, control.ViaSignal, r.waitMain(2).Last.Trigger.Via)

	// An operator's upgrade is none of systemd's.
	second := r.main
	_, err = r.upgrade()
	require.NoError(t, err)
	assert.Equal(t, handedOver(3), r.next())
	third := r.main
	r.main = second
	assert.Equal(t, "BARRIER=1", r.next())
	r.main = third
	r.waitMain(3)

	// A pause.
	_, err = r.client.Pause(t.Context(), control.PauseRequest{Reason: "why"})
	require.NoError(t, err)
	assert.Contains(t, r.next(), "STATUS=generation 3 () serving; upgrades are paused")
	r.signal()
	assert.Equal(t, reloading, r.next())
	assert.Regexp(t, "^READY=1 STATUS=generation 3 .* serving; upgrade refused: upgrades are paused: .*: why$", r.next())
	_, err = r.client.Pause(t.Context(), control.PauseRequest{Undo: true})
	require.NoError(t, err)
	assert.Contains(t, r.next(), "STATUS=generation 3 () serving; upgrades are allowed")

	// A closed door, which is a refusal of the upgrade itself.
	_, err = r.client.Drain(t.Context(), control.DrainRequest{})
	require.NoError(t, err)
	assert.Contains(t, r.next(), "STATUS=")
	r.signal()
	assert.Equal(t, reloading, r.next())
	assert.Contains(t, r.next(), "READY=1 STATUS=generation 3 () serving; upgrade refused: the door of generation 3")
	_, err = r.client.Drain(t.Context(), control.DrainRequest{Undo: true})
	require.NoError(t, err)
	assert.Contains(t, r.next(), "STATUS=")

	// A version that does not start.
	require.NoError(t, os.Remove(r.program))
	r.signal()
	assert.Equal(t, reloading, r.next())
	failed := r.next()
	assert.Regexp(t, "^STATUS=generation 3 .* serving; upgrade to generation 4 failed .* does not exist", failed)
	assert.Equal(t, "READY=1 "+failed, r.next())

	// The last words.
	require.NoError(t, syscall.Kill(r.main, syscall.SIGTERM))
	assert.Equal(t, "STOPPING=1 STATUS=stopping", r.next())
	assert.Equal(t, "BARRIER=1", r.next())
}

// TestNotifyReloadFallsBack ends reloads in the middle of their probation.
func TestNotifyReloadFallsBack(t *testing.T) {
	r := startReloader(t, "HANDOFF_PROBATION=1h", "HANDOFF_READY_TIMEOUT=2h")
	r.signal()
	assert.Equal(t, reloading, r.next())
	require.NoError(t, syscall.Kill(r.waitPhase(control.PhaseProbation), syscall.SIGKILL))
	failed := r.next()
	assert.Regexp(t, "^STATUS=generation 1 .* serving; upgrade to generation 2 .* fell back in probation: killed by SIGKILL", failed)
	assert.Equal(t, "READY=1 "+failed, r.next())

	// A stop: the reload ends before the service does.
	r.signal()
	assert.Equal(t, reloading, r.next())
	r.waitPhase(control.PhaseProbation)
	require.NoError(t, syscall.Kill(r.main, syscall.SIGTERM))
	assert.Equal(t, "READY=1", r.next())
	assert.Equal(t, "STOPPING=1 STATUS=stopping", r.next())
	assert.Equal(t, "BARRIER=1", r.next())
	require.Eventually(t, func() bool { return syscall.Kill(r.main, 0) != nil || len(r.exited) > 0 }, time.Minute, time.Millisecond)
	all := r.systemd.Datagrams()
	assert.True(t, all[len(all)-1].Has("BARRIER=1"), "%v", all)
}

// TestNotifyReloadDuringAnUpgrade has systemd ask while somebody else upgrades, at
// each of the moments in which it is not clear whom it asks. Its reload begins when
// that upgrade is over, whose end would be its own otherwise.
func TestNotifyReloadDuringAnUpgrade(t *testing.T) {
	for _, tt := range []struct {
		name string
		when func(r *reloader) (release func())
	}{
		{"probation", func(r *reloader) func() {
			r.waitPhase(control.PhaseProbation)
			r.signal()
			r.signal() // as good as one
			return func() {}
		}},
		{"systemd is being told, and has asked before", func(r *reloader) func() {
			release := r.systemd.HoldBarriers()
			r.waitPhase(control.PhaseConfirm)
			r.signal()
			return release
		}},
		{"systemd has been told, and nobody else", func(r *reloader) func() {
			release := r.systemd.HoldBarriers()
			require.NoError(r.t, syscall.Kill(r.waitPhase(control.PhaseConfirm), syscall.SIGHUP))
			return release
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := startReloader(t, "HANDOFF_PROBATION=200ms")
			done := make(chan error, 1)
			go func() {
				_, err := r.upgrade()
				done <- err
			}()
			release := tt.when(r)
			first := r.main
			assert.Equal(t, handedOver(2), r.next())
			second := r.main
			r.main = first
			assert.Equal(t, "BARRIER=1", r.next())
			release()
			r.main = second
			require.NoError(t, <-done)
			assert.Equal(t, reloading, r.next())
			assert.Equal(t, handedOver(3), r.next())
			third := r.main
			r.main = second
			assert.Equal(t, "BARRIER=1", r.next())
			r.waitMain(3)
			assert.Len(t, r.systemd.Datagrams(), 6, "%v", r.systemd.Datagrams())
			assert.Equal(t, third, r.get().PID)
		})
	}
}

// TestNotifyReloadOfADeadGeneration: systemd has asked the new generation, which dies
// before it can answer. The old one takes over again, and answers.
func TestNotifyReloadOfADeadGeneration(t *testing.T) {
	r := startReloader(t)
	r.keepBusy() // the old one drains
	first := r.main
	_, err := r.upgrade()
	require.NoError(t, err)
	assert.Equal(t, handedOver(2), r.next())
	second := r.main
	r.main = first
	assert.Equal(t, "BARRIER=1", r.next())
	require.NoError(t, syscall.Kill(second, syscall.SIGKILL))
	d, err := r.systemd.Next(t.Context())
	require.NoError(t, err)
	require.Len(t, d.Lines, 5, "%v", d)
	assert.Equal(t, "MAINPID="+strconv.Itoa(first), d.Lines[0])
	assert.Equal(t, "RELOADING=1", d.Lines[1])
	assert.Contains(t, d.Lines[2], "MONOTONIC_USEC=")
	assert.Equal(t, "READY=1", d.Lines[3])
	assert.Contains(t, d.Lines[4], "STATUS=generation 1")
}

// TestNotifyReloadWithoutUpgrade has SIGHUP do other things: systemd gets its answer.
func TestNotifyReloadWithoutUpgrade(t *testing.T) {
	r := startReloader(t, "HANDOFF_SIGHUP=off")
	r.signal()
	assert.Equal(t, reloading, r.next())
	assert.Equal(t, "READY=1 STATUS=generation 1 () serving; SIGHUP: ignore", r.next())

	config := filepath.Join(t.TempDir(), "config")
	r = startReloader(t, "UPGRADE_TEST_CONFIG="+config)
	r.signal()
	assert.Equal(t, reloading, r.next())
	assert.Contains(t, r.next(), "STATUS=generation 1 () serving; the configuration was not changed: ")
	assert.Equal(t, "READY=1", r.next())
	require.NoError(t, os.WriteFile(config, nil, 0o600))
	r.signal()
	assert.Equal(t, reloading, r.next())
	assert.Contains(t, r.next(), "STATUS=generation 1 () serving; the configuration was read again via signal")
	assert.Equal(t, "READY=1", r.next())
}

// TestSIGHUPWithoutNotifyReload: with Type=notify nobody waits.
func TestSIGHUPWithoutNotifyReload(t *testing.T) {
	r := startReloader(t, "HANDOFF_NOTIFY_RELOAD=off")
	first := r.main
	r.signal()
	assert.Equal(t, handedOver(2), r.next())
	r.main = first
	assert.Equal(t, "BARRIER=1", r.next())
	r.waitMain(2)
	assert.Len(t, r.systemd.Datagrams(), 3)
}
