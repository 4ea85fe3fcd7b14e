package e2e

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
)

// knockers connect to all ports of the service, all the time, and count how they fare.
type knockers struct {
	answered, refused atomic.Int64
	stop              context.CancelFunc
	wg                sync.WaitGroup
}

func (s *site) knock() *knockers {
	ctx, cancel := context.WithCancel(context.Background())
	k := &knockers{stop: cancel}
	for _, port := range []string{address, "127.0.0.1:7777"} {
		for range 2 {
			k.wg.Go(func() {
				for ctx.Err() == nil {
					c, err := s.Dial(ctx, "tcp", port)
					if err == nil {
						k.answered.Add(1)
						c.Close()
					} else {
						k.refused.Add(1)
					}
					// The next try must not take the CPU from those whom it waits for.
					select {
					case <-time.After(time.Millisecond):
					case <-ctx.Done():
					}
				}
			})
		}
	}
	s.t.Cleanup(k.end)
	return k
}

func (k *knockers) end() {
	k.stop()
	k.wg.Wait()
}

// starts is how often the service was started: each start has an id of its own.
func (s *site) starts() int {
	s.t.Helper()
	entries, err := s.Journal("_SYSTEMD_UNIT=" + service)
	require.NoError(s.t, err)
	ids := make(map[string]bool)
	for _, e := range entries {
		ids[e.Fields["_SYSTEMD_INVOCATION_ID"]] = true
	}
	return len(ids)
}

// TestStartAndStop starts and stops sockets and service together, while clients
// connect to each of the sockets all the time: it stays down.
func TestStartAndStop(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{stopped: true, unit: func(u *units.Service) { u.StopTimeout = time.Second }})
	running := func() []string {
		var up []string
		for _, unit := range append([]string{service}, s.sockets...) {
			if state := s.Show(unit, "ActiveState")["ActiveState"]; state != "inactive" {
				up = append(up, unit+" "+state)
			}
		}
		return up
	}

	r := s.hdctl("start", "demo")
	require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	assert.Contains(t, r.Stdout, "(v1) serves; demo-dgram.socket demo-echo.socket demo.socket opened")
	s.requireServing(1, "v1")
	r = s.hdctl("start", "demo")
	assert.Equal(t, 0, r.ExitCode)
	assert.Contains(t, r.Stdout, "demo: runs already")

	starts := 0
	for range 2 {
		k := s.knock()
		s.WaitFor(t, "clients", func() bool { return k.answered.Load() > 20 })
		r = s.hdctl("stop", "demo")
		require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
		assert.Empty(t, running(), "%s", r.Stdout)
		// And it stays so, whoever connects.
		refused := k.refused.Load()
		s.WaitFor(t, "clients that are refused", func() bool { return k.refused.Load() > refused+100 })
		assert.Empty(t, running())
		k.end()
		starts++
		assert.Equal(t, starts, s.starts(), "somebody has started it again")
		require.Equal(t, 0, s.hdctl("start", "demo", "-q").ExitCode)
	}

	// What is open gets its time, and clients wait as long as it takes.
	stream, held := s.openStream(), s.openEcho()
	require.Equal(t, "1: a", held.say("a"))
	s.deploy("demo-v2")
	s.reload()
	assert.True(t, stream.goodbye(), "at the upgrade")
	stream = s.openStream()
	l := s.startLoad(load.Options{New: load.Traffic{Conns: 2, Rate: 50}})
	r = s.hdctl("stop", "demo")
	require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	assert.True(t, stream.goodbye(), "at the stop")
	assert.Contains(t, r.Stdout, "generations 2, 1 ended")
	assert.Empty(t, held.say("b"))
	for _, f := range l.Stop().Failures {
		if f.Phase != load.PhaseDial {
			t.Logf("not refused, but failed: %v", f)
		}
	}
	assert.Empty(t, running())
	r = s.hdctl("stop", "demo")
	assert.Equal(t, 0, r.ExitCode)
	assert.Contains(t, r.Stdout, "demo: stopped already: demo.service is inactive (dead)")
	assert.Equal(t, 4, s.hdctl("stop", "none").ExitCode)

	// One that cannot start says why.
	s.deployFaulty("no such mode")
	r = s.hdctl("start", "demo")
	assert.Equal(t, 10, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	assert.Contains(t, r.Stderr, "demo: not started: demo.service is ")
	assert.Contains(t, r.Stderr, `there is no mode "no such mode"`, "from the journal")
	assert.Contains(t, r.Stderr, "systemd tries it again; hdctl stop demo ends that")
	require.Equal(t, 0, s.hdctl("stop", "demo").ExitCode)
	assert.Empty(t, running())
}

// TestStopWhereTheServiceEndsAtOnce is about the moment between two jobs: a service
// that ends as soon as it is told to, with many sockets, and clients at each.
func TestStopWhereTheServiceEndsAtOnce(t *testing.T) {
	t.Parallel()
	s := &site{Testbed: testbed.Boot(t), t: t}
	require.NoError(t, s.CopyFile(binaries.path(t, "hdctl"), units.DefaultHdctl))
	sockets := []string{"a.socket", "b.socket", "c.socket", "d.socket"}
	for _, requires := range []string{"Requires=" + strings.Join(sockets, " ") + "\nAfter=" + strings.Join(sockets, " "), ""} {
		files := map[string]string{"quick.service": "[Unit]\nStartLimitIntervalSec=0\n" + requires + "\n[Service]\nExecStart=/bin/sleep inf\nRestart=always\nRestartSec=10ms\n"}
		for i, name := range sockets {
			files[name] = "[Socket]\nListenStream=127.0.0.1:600" + string(rune('0'+i)) + "\nService=quick.service\nTriggerLimitIntervalSec=0\n"
		}
		require.NoError(t, s.InstallUnits(files))
		for range 3 {
			s.MustRun(t, "hdctl", "start", "quick")
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			for i := range sockets {
				wg.Go(func() {
					for ctx.Err() == nil {
						c, err := s.Dial(ctx, "tcp", "127.0.0.1:600"+string(rune('0'+i)))
						if err == nil {
							c.Close()
							continue
						}
						select {
						case <-time.After(time.Millisecond):
						case <-ctx.Done():
						}
					}
				})
			}
			r := s.hdctl("stop", "quick")
			assert.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
			cancel()
			wg.Wait()
			for _, unit := range append([]string{"quick.service"}, sockets...) {
				show := s.Show(unit, "ActiveState", "Result")
				assert.Equal(t, "inactive", show["ActiveState"], "%s: %v", unit, show)
			}
			_, err := s.Dial(context.Background(), "tcp", "127.0.0.1:6001")
			assert.ErrorIs(t, err, syscall.ECONNREFUSED)
			assert.Empty(t, s.Systemctl("list-units", "--plain", "--no-legend", "hdctlstop*").Stdout, "left behind")
		}
	}
}
