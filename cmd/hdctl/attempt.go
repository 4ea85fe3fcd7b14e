package main

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// attempt is one upgrade, or an operator's word about one, as its client sees it.
type attempt struct {
	target target
	client *control.Client
	before *control.Status // before it was asked for
	asked  time.Time

	what    attemptKind
	wait    string // control.WaitConfirmed or control.WaitDrained
	queue   bool
	noBlock bool
	share   float64       // it is over when the new generation gets this share; 0: no stage
	steps   time.Duration // what the service may take besides its own limit: the steps of an automatic one
	undoes  int           // of a rollback: the generation of the upgrade in progress
	send    func(context.Context, func(control.Event)) (*control.Result, error)

	generation int // the new one, from the events; 0 before that
	events     int // how many there were
	inferred   int // how often judge saw the same end without a record of it
}

// attemptKind is what was asked for, as it is called in messages.
type attemptKind string

const (
	anUpgrade  attemptKind = "upgrade"
	aPromotion attemptKind = "promotion"
	aRollback  attemptKind = "rollback"
	aCheck     attemptKind = "check"
)

// following are the flags of verbs that wait for the end of an upgrade.
type following struct {
	Wait   string `enum:"confirmed,drained" default:"confirmed" placeholder:"WHAT" help:"Wait until the new generation is confirmed, or until the old one is drained, too."`
	Reason string `placeholder:"TEXT" help:"Why, for the records of the service."`
}

// begin looks at the service before anything is asked of it: the limits that it
// will keep are needed, and the means to find out later what happened if its
// answer is lost.
func (a *app) begin(ctx context.Context, unit string, what attemptKind, wait string) (*attempt, error) {
	t, err := a.only(unit)
	if err != nil {
		return nil, err
	}
	at := &attempt{target: t, client: a.client(t), what: what, wait: wait, asked: a.now()}
	ctx, cancel := context.WithTimeout(ctx, a.patience.before)
	defer cancel()
	at.before, err = at.client.Status(ctx)
	switch {
	case err == nil:
		if at.target.name == "" {
			at.target.name = at.before.Service
		}
		return at, nil
	case notRunning(err):
		return nil, a.absent(ctx, t, err)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, exitf(exitUnknown, "%s does not answer; no %s was asked for", t, what).
			withHint("%s", t.command("status"))
	}
	return nil, apiError(t, err)
}

// Causes of the end of the context of a request.
var (
	errAccepted = errors.New("accepted")
	errOverdue  = errors.New("the service did not keep its own limit")
)

// try makes the attempt and returns its result. It is nil if nobody wants to
// wait for it: then that has been said.
func (a *app) try(ctx context.Context, at *attempt) (*control.Result, error) {
	result, err := a.follow(ctx, at)
	a.endProgress()
	switch {
	case errors.Is(err, errAccepted):
		return nil, a.reportAccepted(at)
	case result == nil && ctx.Err() != nil:
		return nil, exitf(exitUnknown, "%s: stopped waiting; the %s goes on", at.target, at.what).withHint("%s", at.target.command("status"))
	case errors.Is(err, errOverdue), result != nil && result.Outcome == control.OutcomeUnknown:
		return a.settle(ctx, at, err)
	case result != nil:
		return result, nil
	case notRunning(err): // it was not asked
		return nil, a.absent(ctx, at.target, err)
	}
	return nil, apiError(at.target, err)
}

// follow sends the request and shows how it goes. The error is errAccepted if
// nobody wants to wait for the result.
func (a *app) follow(ctx context.Context, at *attempt) (*control.Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The service enforces the limit. This is for one that does not.
	overdue := time.AfterFunc(time.Hour, func() { cancel(errOverdue) })
	defer overdue.Stop()
	limit(overdue, a.confirmLimit(at.before.Options), at.steps+a.patience.slack)

	at.asked = a.now()
	result, err := at.send(ctx, func(e control.Event) {
		at.note(e)
		a.showEvent(at, e)
		if at.noBlock {
			cancel(errAccepted)
		}
		if e.Phase == control.PhaseConfirmed || e.Phase == control.PhaseRollback {
			o := at.before.Options
			limit(overdue, seconds(o.DrainTimeout), seconds(o.DrainDelay+o.DrainSpread)+a.patience.slack+a.patience.settle)
		}
	})
	// If the result came all the same, it counts.
	if cause := context.Cause(ctx); result == nil && (errors.Is(cause, errAccepted) || errors.Is(cause, errOverdue)) {
		return nil, cause
	}
	return result, err
}

// note keeps what an event tells about the upgrade itself.
func (at *attempt) note(e control.Event) {
	at.events++
	switch e.Phase {
	case control.PhaseStart, control.PhaseReady, control.PhaseStaged, control.PhaseProbation, control.PhaseConfirm, control.PhaseConfirmed:
		if e.Generation > at.before.Main {
			at.generation = e.Generation
		}
	}
}

// staged is the result of an attempt that has come as far as it should for now,
// or nil. Nobody keeps a record of that.
func (at *attempt) staged(p *control.Progress) *control.Result {
	if at.share == 0 || p.Stage == nil || p.Stage.Auto != nil || math.Abs(p.Stage.Share-at.share) > 0.01 {
		return nil
	}
	return &control.Result{Outcome: control.OutcomeStaged, From: p.From, To: p.To, ToPID: p.PID, Trigger: p.Trigger}
}

// limit sets a timer for a limit of the service; 0 is none.
func limit(t *time.Timer, d, slack time.Duration) {
	if d <= 0 {
		t.Stop()
		return
	}
	t.Reset(d + slack)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// confirmLimit is the time after which the service answers whether the upgrade
// is confirmed; 0 is never.
func (a *app) confirmLimit(o control.Settings) time.Duration {
	switch {
	case a.globals.Timeout > 0:
		return a.globals.Timeout
	case o.ReadyTimeout <= 0:
		return 0
	}
	return seconds(o.ReadyTimeout+o.Probation) + 10*time.Second // see control.UpgradeRequest.Timeout
}
