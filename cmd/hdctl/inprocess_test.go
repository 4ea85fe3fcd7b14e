package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/control"
)

// testApp returns an app with a run directory of its own and no systemd.
func testApp(t *testing.T) (a *app, stdout, stderr *bytes.Buffer) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hd") // t.TempDir is too long for sockets
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	a = newApp(stdout, stderr, nil)
	a.runDir = dir
	a.stateDir = dir
	a.systemd = fileSystemd("")
	a.drift = fileDrift("")
	a.patience = testPatience("")
	return a, stdout, stderr
}

// The function that main calls, once.
func TestRun(t *testing.T) {
	var stdout, stderr bytes.Buffer
	assert.Equal(t, exitOK, run(t.Context(), []string{"version"}, nil, &stdout, &stderr, []string{"X=y"}))
	assert.Equal(t, clientVersion()+"\n", stdout.String())
	assert.Equal(t, exitUsage, run(t.Context(), []string{"versio"}, nil, &stdout, &stderr, nil))
	assert.Contains(t, stderr.String(), `did you mean "version"?`)
}

// What systemd and the service say is asked one after the other. An upgrade in
// between is no mismatch.
func TestMismatchMustLast(t *testing.T) {
	leak.Check(t)
	for _, tt := range []struct {
		name  string
		views []int // main PIDs that systemd gives, one after the other
		want  int   // mismatches
	}{
		{"none", []int{4242}, 0},
		{"upgrade in between", []int{4100, 4242}, 0},
		{"slow", []int{4100, 4100, 4242}, 0},
		{"lasting", []int{4100, 4100, 4100, 4242}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, _, _ := testApp(t)
			(&fakeService{Status: sampleStatus()}).run(t, a.runDir, "app")
			a.systemd = func(_ context.Context, unit string, _ bool) (*systemdView, error) {
				pid := tt.views[0]
				tt.views = tt.views[1:]
				return &systemdView{Unit: unit, LoadState: "loaded", ActiveState: "active", SubState: "running", MainPID: pid}, nil
			}
			target, err := a.target("app")
			require.NoError(t, err)
			assert.Len(t, a.report(t.Context(), target).Mismatch, tt.want)
			assert.Len(t, tt.views, tt.want, "systemd was asked too often, or not often enough")
		})
	}
}

func TestMismatch(t *testing.T) {
	serving := func(change func(*control.Status)) *control.Status {
		s := &control.Status{Main: 1, State: control.StateServing, Invocation: "x", Generations: []control.Generation{{Number: 1, PID: 42}}}
		if change != nil {
			change(s)
		}
		return s
	}
	view := func(active string, pid int) *systemdView {
		return &systemdView{Unit: "app.service", LoadState: "loaded", ActiveState: active, SubState: "x", MainPID: pid}
	}
	for _, tt := range []struct {
		name   string
		status *control.Status
		view   *systemdView
		want   string
	}{
		{"agree", serving(nil), view("active", 42), ""},
		{"reloading", serving(nil), view("reloading", 42), ""},
		{"no systemd", serving(nil), nil, ""},
		{"no unit", serving(nil), &systemdView{LoadState: "not-found", ActiveState: "inactive"}, ""},
		{"other main", serving(nil), view("active", 43), "systemd says main PID is 43, the service says 42"},
		{"no main", serving(nil), view("active", 0), "systemd says there is no main process, the service says 42"},
		{"failed", serving(nil), view("failed", 42), "systemd says the unit is failed (x), the service says it is serving"},
		{"stopping", serving(func(s *control.Status) { s.Stopping = true }), view("deactivating", 42), ""},
		{"starting", serving(func(s *control.Status) { s.State = control.StateStarting }), view("activating", 42), ""},
		{"by hand", serving(func(s *control.Status) { s.Invocation = "" }), view("inactive", 0), ""},
		{"by hand and by systemd", serving(func(s *control.Status) { s.Invocation = "" }), view("active", 43), "systemd runs app.service (main PID 43), but the service that answers was not started by it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, strings.Join(mismatch(tt.status, tt.view), "; "))
		})
	}
}

// Events are followed from one generation to the next, and none is shown twice;
// and through a restart, after which the service counts from 1 again.
func TestEventsFollow(t *testing.T) {
	t.Run("upgrade", func(t *testing.T) {
		known := []control.Line{event("start", 7, "one"), event("ready", 7, "two")}
		known[1].Event.Seq = 2
		last := event("confirmed", 7, "three")
		last.Event.Seq = 3
		testEventsFollow(t, known, append(known[:2:2], last))
	})
	t.Run("restart", func(t *testing.T) {
		known := []control.Line{event("start", 7, "one"), event("ready", 7, "two")}
		known[1].Event.Seq = 2
		last := event("serving", 1, "three")
		last.Event.Time = last.Event.Time.Add(time.Second)
		testEventsFollow(t, known, []control.Line{last})
	})
}

func testEventsFollow(t *testing.T, before, after []control.Line) {
	leak.Check(t)
	a, _, stderr := testApp(t)
	first := &fakeService{Status: sampleStatus(), End: "die", Events: before}
	require.NoError(t, first.start(a.runDir, "app"))
	second := &fakeService{Status: sampleStatus(), End: "hang", Events: after}

	// Ctrl-C after the last event.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &endAt{word: "three", end: cancel}
	a.stdout = out
	code := make(chan int)
	go func() { code <- a.run(ctx, []string{"events", "app", "-f", "-o", "jsonl"}) }()
	<-first.done
	second.run(t, a.runDir, "app")
	assert.Equal(t, exitOK, <-code)
	assert.Equal(t, []string{"one", "two", "three"}, messagesIn(out.String()), stderr.String())
}

// After a confirm the old generation lives on, for as long as it drains, but it is
// the new one that has the news. Both tell of the confirm.
func TestEventsFollowMain(t *testing.T) {
	leak.Check(t)
	a, _, stderr := testApp(t)
	confirmed := event(control.PhaseConfirmed, 8, "two")
	confirmed.Event.Seq, confirmed.Event.PID = 2, 88
	first := &fakeService{Status: serviceStatus(7), End: "hang", Events: []control.Line{event(control.PhaseStart, 8, "one"), confirmed}}
	require.NoError(t, first.start(a.runDir, "app"))
	defer first.stop()

	again, last := event(control.PhaseConfirmed, 8, "two again"), event(control.PhaseDraining, 7, "three")
	again.Event.Seq, again.Event.PID, last.Event.Seq = 3, 88, 4
	again.Event.Time, last.Event.Time = again.Event.Time.Add(time.Second), last.Event.Time.Add(time.Second)
	second := &fakeService{Status: serviceStatus(8, 7), End: "hang", Events: []control.Line{event(control.PhaseStart, 8, "one"), again, last}}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &endAt{word: "three", end: cancel}
	a.stdout = out
	code := make(chan int)
	go func() { code <- a.run(ctx, []string{"events", "app", "-f", "-o", "jsonl"}) }()
	<-first.hanging
	first.leave()
	second.run(t, a.runDir, "app")
	assert.Equal(t, exitOK, <-code, stderr.String())
	assert.Equal(t, []string{"one", "two", "three"}, messagesIn(out.String()), stderr.String())
}

// A service does not remember everything: that some are missing is said.
func TestEventsFollowGap(t *testing.T) {
	leak.Check(t)
	a, _, stderr := testApp(t)
	late := event(control.PhaseDraining, 7, "two")
	late.Event.Seq = 5
	(&fakeService{Status: serviceStatus(8, 7), End: "hang", Events: []control.Line{event(control.PhaseStart, 8, "one"), late}}).run(t, a.runDir, "app")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a.stdout = &endAt{word: "two", end: cancel}
	assert.Equal(t, exitOK, a.run(ctx, []string{"events", "app", "-f"}))
	assert.Equal(t, "hdctl: warning: app: 3 events missed: too long ago for the service to remember\n", stderr.String())
}

// messagesIn are the messages of events as JSON, a line each.
func messagesIn(lines string) []string {
	var messages []string
	for line := range strings.Lines(lines) {
		_, rest, _ := strings.Cut(line, `"message":"`)
		messages = append(messages, strings.TrimRight(rest, "\"}\n"))
	}
	return messages
}

// stdout that cannot be written to: an upgrade is waited for all the same, since
// the exit status counts.
func TestUpgradeWithoutStdout(t *testing.T) {
	leak.Check(t)
	a, _, _ := testApp(t)
	a.stdout = brokenWriter{}
	(&fakeService{Status: sampleStatus(), Upgrade: []control.Line{
		event(control.PhaseStart, 8, "started"),
		{Result: &control.Result{Outcome: control.OutcomeConfirmed, From: 7, To: 8}},
	}}).run(t, a.runDir, "app")
	for _, format := range []string{"table", "json", "jsonl"} {
		assert.Equal(t, exitOK, a.run(t.Context(), []string{"upgrade", "app", "-o", format}))
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// endAt is a buffer that calls end when word was written to it.
type endAt struct {
	bytes.Buffer
	word string
	end  func()
}

func (b *endAt) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(b.word)) {
		b.end()
	}
	return b.Buffer.Write(p)
}
