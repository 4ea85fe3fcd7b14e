package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// stateDir is where the service keeps its history.
const stateDir = "/var/lib/handoff/demo"

// history runs "hdctl history".
func (s *site) history(args ...string) []control.Entry {
	s.t.Helper()
	r := s.hdctl(append([]string{"history", "-o", "json", "demo"}, args...)...)
	require.Equal(s.t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	var list []control.Entry
	require.NoError(s.t, json.Unmarshal([]byte(r.Stdout), &list), "%s", r.Stdout)
	return list
}

// waitHistory waits until the history has so many entries, and all drains have ended.
func (s *site) waitHistory(entries int) (list []control.Entry) {
	s.t.Helper()
	s.WaitFor(s.t, fmt.Sprintf("%d entries", entries), func() bool {
		list = s.history()
		return len(list) == entries && !slices.ContainsFunc(list, func(e control.Entry) bool {
			return e.Outcome == control.OutcomeConfirmed && e.DrainEnded.IsZero()
		})
	})
	return list
}

// past is what an entry of the history has to say.
type past struct {
	outcome       string
	from, to      int
	fromVersion   string
	version       string
	via, user     string
	reason        string
	rollback      bool
	migrated, cut int
	ended         bool // and so has the drain
	code          string
}

func pastOf(e control.Entry) past {
	p := past{
		e.Outcome, e.From, e.To, e.FromVersion, e.Version, e.Trigger.Via, e.User, e.Trigger.Reason, e.Rollback,
		e.Migrated, e.Cut.Total, !e.DrainEnded.IsZero(), "",
	}
	if e.Error != nil {
		p.code = e.Error.Code
	}
	return p
}

// TestHistory has one entry for each upgrade, whatever became of it, which says who
// wanted what, and outlasts the service.
func TestHistory(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{probation: 50 * time.Millisecond, unit: func(u *units.Service) {
		u.Environment = append(u.Environment, units.Variable{Name: "HANDOFF_DRAIN_DELAY", Value: "1h"})
	}})
	assert.Empty(t, s.history())
	digests := []string{s.digest(program)}
	idle := s.connect()
	idle.get("/")
	held := s.openEcho()
	require.Equal(t, "1: a", held.say("a"))
	s.deploy("demo-v2")
	digests = append(digests, s.digest(program))
	s.reload()
	s.mustHdctl("rollback", "demo", "--reason", "slow") // while generation 1 drains
	s.mustHdctl("end", "demo", "--generation", "1", "--grace", "10ms")
	s.mustHdctl("wait", "demo", "--for", "drained")
	s.MustRun(t, "rm", program)
	assert.Equal(t, 1, s.hdctl("upgrade", "demo").ExitCode)
	s.deploy("demo-v3")
	s.kill(s.MainPID(service), syscall.SIGHUP)
	s.waitMain(5)
	s.mustHdctl("upgrade", "demo", "--stage", "10%")
	s.mustHdctl("rollback", "demo")
	s.waitOnly(5)

	list := s.waitHistory(5)
	idle.get("/") // it has moved with each
	want := []past{
		{control.OutcomeRolledBack, 5, 6, "v3", "v3", control.ViaHdctl, "root", "", false, 0, 0, false, control.CodeRolledBack},
		{control.OutcomeConfirmed, 3, 5, "v1", "v3", control.ViaSignal, "", "", false, 1, 0, true, ""},
		{control.OutcomeFailed, 3, 4, "v1", "", control.ViaHdctl, "root", "", false, 0, 0, false, control.CodeStartFailed},
		{control.OutcomeConfirmed, 2, 3, "v2", "v1", control.ViaHdctl, "root", "slow", true, 1, 0, true, ""},
		{control.OutcomeConfirmed, 1, 2, "v1", "v2", control.ViaSystemctl, "root", "", false, 1, 1, true, ""},
	}
	var got []past
	for _, e := range list {
		got = append(got, pastOf(e))
		assert.Equal(t, "demo", e.Service)
		assert.Len(t, e.Invocation, 32)
		assert.Positive(t, e.Total)
	}
	assert.Equal(t, want, got)
	first, second := list[len(list)-1], list[len(list)-2]
	assert.Equal(t, digests, []string{first.FromDigest, first.ToDigest})
	assert.Equal(t, []string{digests[1], digests[0]}, []string{second.FromDigest, second.ToDigest})
	text := s.mustHdctl("history", "demo", "-o", "wide")
	for _, want := range []string{"confirmed rollback", "systemctl", "slow", digests[1][:12], "does not exist"} {
		assert.Contains(t, text, want)
	}
	assert.Len(t, s.history("-n", "2"), 2)

	// It is there when the service is not, and when it is again.
	s.stop()
	assert.Equal(t, list, s.history())
	assert.Contains(t, s.hdctl("history", "demo").Stderr, "demo is not running; this is from "+stateDir)
	s.MustSystemctl(t, "start", service)
	assert.Equal(t, list, s.history())
	s.upgradeTo(2, "v3")
	again := s.waitHistory(6)
	assert.Equal(t, list, again[1:])
	assert.NotEqual(t, list[0].Invocation, again[0].Invocation)
}

// TestHistoryOnAFullDisk has upgrades and a pause work where nothing can be written.
// Status tells, until it is over.
func TestHistoryOnAFullDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{probation: 50 * time.Millisecond})
	ballast := stateDir + "/ballast"
	s.MustRun(t, "mount", "-t", "tmpfs", "-o", "size=4k,mode=0750", "tmpfs", stateDir)
	s.MustRun(t, "sh", "-c", "head -c 4096 /dev/zero >"+ballast)
	warnings := func(n int) (list []string) {
		s.WaitFor(t, "warnings", func() bool {
			list = s.status().Warnings
			return len(list) == n
		})
		return list
	}
	s.deploy("demo-v2")
	s.upgradeTo(2, "v2")
	list := warnings(1)
	assert.Contains(t, list[0], "history of upgrades is not kept")
	assert.Contains(t, list[0], "no space left on device")
	assert.Contains(t, s.mustHdctl("status", "demo"), list[0])
	assert.Empty(t, s.history())

	s.mustHdctl("pause", "demo", "--reason", "full")
	list = warnings(2)
	assert.Contains(t, list[1], "does not survive a restart")
	assertRefused(t, s.hdctl("upgrade", "demo"), "full", "hdctl resume demo")
	s.mustHdctl("resume", "demo")
	warnings(1)

	s.MustRun(t, "rm", ballast)
	s.upgradeTo(3, "v2")
	warnings(0)
	assert.Equal(t, 2, s.waitHistory(1)[0].From)
}

// TestEventsAreFollowed follows the events from one generation to the next, and back:
// each is told once.
func TestEventsAreFollowed(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{probation: 50 * time.Millisecond})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := s.Command(ctx, "hdctl", "events", "--follow", "-o", "jsonl", "demo")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())

	s.deploy("demo-v2")
	s.upgradeTo(2, "v2")
	held := s.openEcho()
	require.Equal(t, "2: a", held.say("a"))
	s.mustHdctl("upgrade", "demo")
	s.kill(s.MainPID(service), syscall.SIGKILL)
	s.waitMain(2)
	require.Equal(t, "2: b", held.say("b"))
	s.mustHdctl("upgrade", "demo")
	require.NoError(t, held.c.Close())

	var got []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		var e control.Event
		require.NoError(t, json.Unmarshal(lines.Bytes(), &e))
		got = append(got, fmt.Sprint(e.Phase, " ", e.Generation))
		if got[len(got)-1] == "exited 2" {
			break
		}
	}
	cancel()
	_ = cmd.Wait()
	var want []string
	upgrade := func(generation int) {
		for _, phase := range []string{"preflight", "start", "start", "ready", "probation", "confirm", "confirmed"} {
			want = append(want, fmt.Sprint(phase, " ", generation))
		}
	}
	want = append(want, "serving 1")
	upgrade(2)
	want = append(want, "exited 1")
	upgrade(3)
	want = append(want, "serving 2", "fell-back 3")
	upgrade(4)
	want = append(want, "exited 2")
	assert.Equal(t, want, got)
	assert.NotContains(t, stderr.String(), "missed")
}
