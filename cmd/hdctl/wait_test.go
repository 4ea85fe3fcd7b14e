package main

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/control"
)

// serviceStatus is a service whose generation main serves, while the others drain.
func serviceStatus(main int, draining ...int) *control.Status {
	s := &control.Status{Service: "app", Main: main, State: control.StateServing, Generations: []control.Generation{
		{Number: main, PID: main, State: control.StateServing},
	}}
	for _, n := range draining {
		s.Generations = append(s.Generations, control.Generation{Number: n, PID: n, State: control.StateDraining, Conns: control.Counts{Total: n}})
	}
	return s
}

// startWait runs hdctl wait, and returns when that has told what is in the way,
// and follows the events of f.
func startWait(ctx context.Context, a *app, f *fakeService, goal string) (code chan int) {
	said := make(chan struct{})
	var once sync.Once
	a.stderr = &endAt{word: "app: ", end: func() { once.Do(func() { close(said) }) }}
	code = make(chan int)
	go func() { code <- a.run(ctx, []string{"wait", "app", "--for=" + goal}) }()
	<-said
	if f != nil {
		<-f.hanging
	}
	return code
}

// An event ends the wait at once: it looks by itself once an hour in tests.
func TestWaitWokenByEvent(t *testing.T) {
	for _, tt := range []struct {
		goal          string
		before, after *control.Status
		want          string
	}{
		{"drained", serviceStatus(7, 6), serviceStatus(7), "app: drained: only generation 7 is left\n"},
		{"generation=8", serviceStatus(7), serviceStatus(9, 7), "app: generation 9 serves\n"},
		{"ready", &control.Status{Service: "app", Main: 7, State: control.StateParked}, serviceStatus(7), "app: generation 7 serves\n"},
	} {
		t.Run(tt.goal, func(t *testing.T) {
			leak.Check(t)
			a, stdout, _ := testApp(t)
			f := &fakeService{Status: tt.before, End: "hang", Events: []control.Line{event(control.PhaseDraining, 6, "")}}
			f.run(t, a.runDir, "app")
			code := startWait(t.Context(), a, f, tt.goal)
			f.change(tt.after)
			assert.Equal(t, exitOK, <-code)
			assert.Equal(t, tt.want, stdout.String())
		})
	}
}

// The main generation goes away in the middle, and the next one has the control
// socket; or the whole service, which is started again.
func TestWaitSurvivesChangeOfMain(t *testing.T) {
	leak.Check(t)
	a, stdout, _ := testApp(t)
	events := []control.Line{event(control.PhaseDraining, 6, "")}
	first := &fakeService{Status: serviceStatus(7, 6), End: "hang", Events: events}
	require.NoError(t, first.start(a.runDir, "app"))
	code := startWait(t.Context(), a, first, "generation=9")
	first.stop()
	second := &fakeService{Status: serviceStatus(8, 7), End: "hang", Events: events}
	second.run(t, a.runDir, "app")
	<-second.hanging
	second.change(serviceStatus(9, 8))
	assert.Equal(t, exitOK, <-code)
	assert.Equal(t, "app: generation 9 serves\n", stdout.String())
}

// A service that is not there yet.
func TestWaitForStart(t *testing.T) {
	leak.Check(t)
	a, stdout, _ := testApp(t)
	code := startWait(t.Context(), a, nil, "ready")
	(&fakeService{Status: serviceStatus(1), End: "hang"}).run(t, a.runDir, "app")
	assert.Equal(t, exitOK, <-code)
	assert.Equal(t, "app: generation 1 serves\n", stdout.String())
}

// A service that ends while one waits for its drains has none any more, but
// nobody knows how they ended.
func TestWaitForDrainOfDeadService(t *testing.T) {
	leak.Check(t)
	a, stdout, _ := testApp(t)
	f := &fakeService{Status: serviceStatus(7, 6), End: "hang"}
	require.NoError(t, f.start(a.runDir, "app"))
	code := startWait(t.Context(), a, f, "drained")
	f.stop()
	assert.Equal(t, exitNotRunning, <-code)
	assert.Empty(t, stdout.String())
}

// Where the events cannot be had, looking from time to time is enough.
func TestWaitWithoutEvents(t *testing.T) {
	leak.Check(t)
	a, stdout, _ := testApp(t)
	a.patience.look = a.patience.poll
	f := &fakeService{Status: serviceStatus(7, 6), Hang: []string{"/v1/events"}}
	f.run(t, a.runDir, "app")
	code := startWait(t.Context(), a, nil, "drained")
	f.change(serviceStatus(7))
	assert.Equal(t, exitOK, <-code)
	assert.Equal(t, "app: drained: only generation 7 is left\n", stdout.String())
}

// What is in the way is said again when it is something else, and not when only
// the numbers have changed: not off a terminal.
func TestWaitProgress(t *testing.T) {
	a, _, stderr := testApp(t)
	w := &waiting{app: a, target: target{name: "app"}, goal: goalDrained}
	say := func(s *control.Status) { w.note(w.goal.obstacle(s)) }
	say(serviceStatus(7, 6))
	fewer := serviceStatus(7, 6)
	fewer.Generations[1].Conns.Total = 5
	say(fewer)
	say(fewer)
	say(serviceStatus(8, 7, 6))
	assert.Equal(t, "app: generation 6 drains (6 connections open, without a deadline)\n"+
		"app: generation 7 drains (7 connections open, without a deadline), generation 6 drains (6 connections open, without a deadline)\n", stderr.String())
	assert.Contains(t, w.obstacle.text, "generation 7")
}

// An upgrade in progress is in the way of "drained" even if nobody drains yet:
// it is about to leave an old generation behind.
func TestGoalObstacles(t *testing.T) {
	upgrading := serviceStatus(7)
	upgrading.Upgrade = &control.Progress{Phase: control.PhaseReady, From: 7, To: 8}
	parked := &control.Status{Main: 7, State: control.StateParked}
	held := serviceStatus(7)
	held.Held = &control.Hold{}
	heldDraining := serviceStatus(7, 6)
	heldDraining.Held, heldDraining.State, heldDraining.Generations[0].State = &control.Hold{}, control.StateDraining, control.StateDraining
	for _, tt := range []struct {
		name   string
		status *control.Status
		want   map[goal]bool // reached
	}{
		{"serves", serviceStatus(7), map[goal]bool{"ready": true, "drained": true, "generation=7": true, "generation=6": true, "generation=8": false}},
		{"one drains", serviceStatus(7, 6), map[goal]bool{"ready": true, "drained": false, "generation=7": true}},
		{"upgrading", upgrading, map[goal]bool{"ready": true, "drained": false, "generation=7": true, "generation=8": false}},
		{"parked", parked, map[goal]bool{"ready": false, "drained": true, "generation=7": false, "generation=6": false}},
		{"held", held, map[goal]bool{"ready": false, "drained": true, "generation=7": false}},
		{"held, one drains", heldDraining, map[goal]bool{"ready": false, "drained": false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for g, want := range tt.want {
				assert.Equal(t, want, g.obstacle(tt.status) == obstacle{}, "%s: %v", g, g.obstacle(tt.status))
			}
		})
	}
	assert.Equal(t, "generation 6 drains (6 connections open, without a deadline)", goalDrained.obstacle(heldDraining).text, "main is not an old generation")
}

func TestGoalSyntax(t *testing.T) {
	for text, want := range map[string]int{"ready": 0, "drained": 0, "generation=8": 8, "generation=+8": 8} {
		var g goal
		require.NoError(t, g.UnmarshalText([]byte(text)), text)
		assert.Equal(t, want, g.generation(), text)
	}
	for _, text := range []string{"", "Ready", "generation", "generation=", "generation=0", "generation=-1", "generation=x", "generation=99999999999999999999"} {
		var g goal
		assert.Error(t, g.UnmarshalText([]byte(text)), text)
	}
}

// Ctrl-C: the exit status does not say that it is so.
func TestWaitInterrupted(t *testing.T) {
	leak.Check(t)
	a, stdout, _ := testApp(t)
	f := &fakeService{Status: serviceStatus(7, 6), End: "hang"}
	f.run(t, a.runDir, "app")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	code := startWait(ctx, a, f, "drained")
	cancel()
	assert.Equal(t, exitUnknown, <-code)
	assert.Empty(t, stdout.String())
}
