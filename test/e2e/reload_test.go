package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// mixedLoad is new connections, keep-alive POST without retry, slow requests, and
// idle keep-alive connections that never send again.
func mixedLoad() load.Options {
	return load.Options{
		New:       load.Traffic{Conns: 4, Rate: 60},
		KeepAlive: load.Traffic{Conns: 32, Rate: 150},
		Slow:      load.Traffic{Conns: 8, Rate: 8},
		Idle:      8,
		SlowTime:  300 * time.Millisecond,
	}
}

// TestFiftyReloadsUnderLoad is the main job: 50 upgrades in a row, no request
// lost, nothing refused, nothing piles up.
func TestFiftyReloadsUnderLoad(t *testing.T) {
	s := newSite(t, options{unit: func(u *units.Service) {
		// A path beside the port, under the same name.
		l, err := units.ParseListen("/run/demo.sock")
		require.NoError(t, err)
		u.Sockets[0].Listen = append(u.Sockets[0].Listen, l)
		u.Probation = 100 * time.Millisecond
	}})
	inodes := s.socketInodes()

	upgrades := func(from, to int) load.Report {
		l := s.startLoad(mixedLoad())
		for n := from; n <= to; n++ {
			s.deploy("demo-" + versions[n%len(versions)])
			s.reload()
			st := s.status()
			require.Equal(t, n+1, st.Main)
			require.Equal(t, fmt.Sprint(mainOf(t, st).PID), s.unit()["MainPID"])
		}
		return requireNoFailure(t, l)
	}
	// What a process holds is compared between two that have had no load: how much
	// memory that takes differs from one time to the next.
	sample := func() usage {
		s.reload()
		return s.quiet()
	}
	first := upgrades(1, 10)
	before := sample()
	second := upgrades(12, 51)
	after := sample()

	t.Logf("%d requests, 0 failed, longest wait %v", first.Total().Requests+second.Total().Requests,
		max(first.Total().LongestWait, second.Total().LongestWait))
	t.Logf("\n%v\n%v", before, after)
	assert.Len(t, after.fds, len(before.fds), "file descriptors\n%s\n%s", strings.Join(before.fds, "\n"), strings.Join(after.fds, "\n"))
	assert.InDelta(t, before.goroutines, after.goroutines, 5)
	assert.InDelta(t, before.rss, after.rss, 0.1*float64(before.rss))
	assert.Equal(t, inodes, s.socketInodes())
	s.noZombies()
	s.requireJournalAttribution(52)
}

// usage is what the main generation holds.
type usage struct {
	generation, goroutines int
	rss                    int64
	fds                    []string
}

func (u usage) String() string {
	return fmt.Sprintf("generation %d: %d descriptors, %d goroutines, RSS %.1f MiB", u.generation, len(u.fds), u.goroutines, float64(u.rss)/(1<<20))
}

// quiet waits until nobody drains and no connection is open, and looks at what
// the main generation holds.
func (s *site) quiet() usage {
	s.t.Helper()
	var st control.Status
	s.WaitFor(s.t, "the end of all drains and connections", func() bool {
		st = s.status()
		return len(st.Generations) == 1 && st.Generations[0].Conns.Total == 0
	})
	g := st.Generations[0]
	pid, err := s.HostPID(g.PID)
	require.NoError(s.t, err)
	u := usage{generation: g.Number, goroutines: g.Goroutines, rss: g.RSS}
	// The one that asks is a connection of the control socket: wait it out.
	s.WaitFor(s.t, "an equal number of descriptors twice", func() bool {
		n := len(u.fds)
		u.fds, err = leak.OfPID(pid)
		return err == nil && n == len(u.fds)
	})
	return u
}

// socketInodes identifies the files of the unix sockets.
func (s *site) socketInodes() string {
	s.t.Helper()
	return s.MustRun(s.t, "stat", "-c", "%n %i", "/run/demo.sock", "/run/handoff/demo/control.sock").Stdout
}

// requireJournalAttribution asserts that what a generation logged from ready on
// is attributed to its own PID.
func (s *site) requireJournalAttribution(upgrades int) {
	s.t.Helper()
	seen := make(map[string]bool)
	s.WaitFor(s.t, "the journal lines of all generations", func() bool {
		entries, err := s.Journal("--unit=" + service)
		require.NoError(s.t, err)
		for _, e := range entries {
			var number, pid int
			_, rest, ok := strings.Cut(e.Message, "msg=serving ")
			if !ok {
				continue
			}
			if _, err := fmt.Sscanf(rest, "generation=%d pid=%d", &number, &pid); err != nil {
				continue
			}
			require.Equal(s.t, pid, e.PID, "attributed to the wrong process: %q", e.Message)
			seen[rest] = true
		}
		return len(seen) == upgrades+1
	})
}

// TestReloadWaitsForItsTurn has two operators at once: with --queue, as
// ExecReload= has it, the second waits and gets an upgrade of its own; without it
// is told of the first.
func TestReloadWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{probation: 2 * time.Second})
	first := s.inBackground("hdctl", "upgrade", "demo")
	s.waitPhase(control.PhaseProbation)

	refused := s.hdctl("upgrade", "demo")
	assert.Equal(t, 7, refused.ExitCode, "%s%s", refused.Stdout, refused.Stderr)
	assert.Contains(t, refused.Stderr, "in progress")

	reload := s.inBackground("systemctl", "reload", service)
	require.NoError(t, (<-first).Err())
	require.NoError(t, (<-reload).Err())
	s.requireServing(3, "v1")
}

// TestSecondClientFollows has a client that goes away in the middle: the upgrade
// goes on, and status tells how it ended.
func TestSecondClientFollows(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{probation: time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	first := make(chan testbed.Result, 1)
	go func() { first <- s.Run(ctx, "hdctl", "upgrade", "demo") }()
	s.waitPhase(control.PhaseProbation)
	cancel()
	<-first
	s.WaitFor(t, "the confirm", func() bool { return s.status().Main == 2 })
	s.requireServing(2, "v1")
}
