package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/upgrade/control"
)

// patience is how long the show waits for what takes a moment.
const patience = 20 * time.Second

// show is what is performed on a host.
type show struct {
	*stage
	host host
	load *load.Load

	upgrades int // that worked
	refused  int // upgrades to the broken version, none of which worked
}

func (sh *show) run(ctx context.Context) error {
	sh.heading("Start version v1")
	if err := sh.host.install(ctx, v1); err != nil {
		return err
	}
	if err := sh.host.start(ctx); err != nil {
		return err
	}

	sh.heading("Put load on it")
	sh.load = load.Start(ctx, load.Options{
		Dial:      sh.host.dial,
		New:       load.Traffic{Conns: 4, Rate: 100},
		KeepAlive: load.Traffic{Conns: 64, Rate: 250},
		Slow:      load.Traffic{Conns: 12, Rate: 6},
		SlowTime:  3 * time.Second,
		Idle:      6,
		ProbeIdle: true,
		Download:  load.Traffic{Conns: 2, Rate: 4},
		Stream:    3,
		WebSocket: load.Traffic{Conns: 4, Rate: 4},
	})
	defer sh.load.Stop()
	sh.say("100 new connections a second; 64 that are kept, with POST at random moments and no retry;")
	sh.say("answers that take up to 3 s; downloads, event streams, WebSockets; 6 idle connections.")
	if err := sh.answers(ctx, 1); err != nil {
		return err
	}

	for _, act := range []func(context.Context) error{
		func(ctx context.Context) error {
			return sh.upgrade(ctx, v2, "Upgrade to v2, as a package would", sh.host.reload)
		},
		sh.status,
		func(ctx context.Context) error {
			return sh.upgrade(ctx, v1, "And back to v1, by hdctl", sh.byHdctl)
		},
		sh.breakIt,
		func(ctx context.Context) error {
			return sh.upgrade(ctx, v2, "The next good version works at once", sh.byHdctl)
		},
		func(ctx context.Context) error {
			return sh.upgrade(ctx, v2, "Once more, while the others still drain", sh.host.reload)
		},
		sh.status,
	} {
		if err := act(ctx); err != nil {
			return cause(ctx, err)
		}
	}
	return sh.count(ctx)
}

func (sh *show) byHdctl(ctx context.Context) outcome {
	return sh.host.hdctl(ctx, "upgrade", "demo")
}

// upgrade performs an upgrade that must work.
func (sh *show) upgrade(ctx context.Context, version, title string, how func(context.Context) outcome) error {
	sh.heading("%s", title)
	before, err := sh.serving(ctx)
	if err != nil {
		return err
	}
	if err := sh.host.install(ctx, version); err != nil {
		return err
	}
	o := how(ctx)
	sh.ended(o)
	if o.code != 0 {
		return fmt.Errorf("an upgrade that should have worked did not: %w", o.err())
	}
	after, err := sh.serving(ctx)
	switch {
	case err != nil:
		return err
	case after.Number <= before.Number || after.Version != version:
		return fmt.Errorf("the upgrade was reported as done, but generation %d (%s) serves", after.Number, after.Version)
	}
	sh.upgrades++
	return sh.answers(ctx, after.Number)
}

// breakIt installs a version that cannot start, and tries it.
func (sh *show) breakIt(ctx context.Context) error {
	sh.heading("A broken version: the upgrade must fail, and the service stay")
	before, err := sh.serving(ctx)
	if err != nil {
		return err
	}
	if err := sh.host.install(ctx, broken); err != nil {
		return err
	}
	ways := []func(context.Context) outcome{sh.byHdctl}
	if sh.host.answersReload() {
		ways = []func(context.Context) outcome{sh.host.reload, sh.byHdctl}
	}
	for _, how := range ways {
		o := how(ctx)
		sh.ended(o)
		if o.code == 0 {
			return errors.New("the upgrade to a broken version was reported as done")
		}
		sh.refused++
	}
	after, err := sh.serving(ctx)
	switch {
	case err != nil:
		return err
	case after.PID != before.PID || after.State != control.StateServing:
		return fmt.Errorf("generation %d (PID %d) served before the broken version, generation %d (PID %d) is %s after it",
			before.Number, before.PID, after.Number, after.PID, after.State)
	}
	sh.good("generation %d serves as before, in process %d", after.Number, after.PID)
	if err := sh.answers(ctx, after.Number); err != nil {
		return err
	}
	return sh.status(ctx)
}

// status shows hdctl status.
func (sh *show) status(ctx context.Context) error {
	return sh.host.hdctl(ctx, "status", "demo").err()
}

// serving is the generation that is main.
func (sh *show) serving(ctx context.Context) (control.Generation, error) {
	status, err := sh.host.client().Status(ctx)
	if err != nil {
		return control.Generation{}, fmt.Errorf("ask the service: %w", err)
	}
	for _, g := range status.Generations {
		if g.Main {
			return g, nil
		}
	}
	return control.Generation{}, errors.New("ask the service: no generation is main")
}

// answers waits until the clients had some answers from a generation.
func (sh *show) answers(ctx context.Context, generation int) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := sh.load.WaitAnswered(limited, generation, 100); err != nil {
		return fmt.Errorf("generation %d answers no requests: %w\n%s", generation, cause(ctx, err), sh.load.Report())
	}
	r := sh.load.Report()
	t := r.Total()
	said := fmt.Sprintf("clients: %d answers, %d of them by generation %d; %d failed", t.Responses, r.Answered(generation), generation, t.Failed)
	if t.Failed > 0 {
		sh.line("  " + sh.paint(red, "!!") + " " + said)
	} else {
		sh.good("%s", said)
	}
	return nil
}

// count ends the load, lets the old generations go, and counts.
func (sh *show) count(ctx context.Context) error {
	sh.heading("The clients leave")
	report := sh.load.Stop()
	sh.say("Each idle connection had one more request, and was answered by the generation that it belongs to.")
	if err := sh.drained(ctx); err != nil {
		return err
	}
	if err := sh.status(ctx); err != nil {
		return err
	}

	sh.heading("The count")
	for _, line := range splitLines(report.String()) {
		sh.say("%s", line)
	}
	sh.say("(announced: the server ended the connection with its answer; closed: without a word)")
	t := report.Total()
	sh.line("")
	sh.say("%s requests   %s failed   %d upgrades, %d to a broken version refused   longest wait %s",
		sh.paint(bold, fmt.Sprint(t.Requests)), sh.paint(bold, fmt.Sprint(t.Failed)),
		sh.upgrades, sh.refused, t.LongestWait.Round(time.Millisecond))
	if t.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed", t.Failed, t.Requests)
	}
	if err := report.Err(); err != nil {
		return err
	}
	sh.good("nobody noticed (%.0f s)", time.Since(sh.start).Seconds())
	return nil
}

// drained waits until the old generations are gone.
func (sh *show) drained(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := sh.host.client().Status(limited)
		if err == nil && len(status.Generations) == 1 {
			sh.good("the old generations are gone: nothing was open any more")
			return nil
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			return fmt.Errorf("old generations stay, though their clients have left: %w", cause(ctx, context.Cause(limited)))
		}
	}
}
