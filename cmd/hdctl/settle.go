package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// settle finds out how an upgrade ended of which the answer was lost: the
// generation that gave it has died, or was replaced meanwhile, or hangs. The
// service remembers its last upgrade, so whoever is main now can tell. cause is
// why there is no answer.
func (a *app) settle(ctx context.Context, at *attempt, cause error) (*control.Result, error) {
	a.notef("%s: no answer (%s); asking what became of it", at.target, clean(cause.Error()))
	// As long as somebody says that it is in progress, the service's own limit
	// counts. Where nobody does, it will not take long to find out.
	// An automatic upgrade has none: it stays at its step while upgrades are paused.
	if limit := a.confirmLimit(at.before.Options); limit > 0 && at.steps == 0 {
		left := time.Until(at.asked.Add(limit + a.patience.slack))
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(left, a.patience.settle))
		defer cancel()
	}
	silence := time.NewTimer(a.patience.settle)
	defer silence.Stop()
	tick := time.NewTicker(a.patience.poll)
	defer tick.Stop()
	var last error
	for {
		s, err := a.statusOnce(ctx, at)
		if err == nil {
			result, err := at.judge(s, a.pid)
			if result != nil || err != nil {
				return result, err
			}
			last = errors.New("the service does not remember it")
			if s.Upgrade != nil {
				last = errors.New("it is still in progress")
				silence.Reset(a.patience.settle)
			}
		} else if last == nil || ctx.Err() == nil {
			last = err // and not that the time was up while it was asked
		}
		select {
		case <-silence.C:
			return nil, a.unsettled(at, last)
		case <-ctx.Done():
			return nil, a.unsettled(at, last)
		case <-tick.C:
		}
	}
}

func (a *app) statusOnce(ctx context.Context, at *attempt) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, a.patience.status)
	defer cancel()
	return at.client.Status(ctx)
}

// unsettled is the end if nobody could tell.
func (a *app) unsettled(at *attempt, last error) error {
	if notRunning(last) {
		// Nobody has the control socket: the service has gone down with it.
		// If systemd is about to start it again, that will take a moment.
		ctx := context.Background() // the patience of the other one is used up
		view, err := a.askSystemd(ctx, at.target.unit())
		if err != nil || !view.exists() || view.ActiveState == "failed" || view.ActiveState == "inactive" {
			return exitf(exitNobody, "%s: the service died during the %s, and is not running", at.target, at.what)
		}
	}
	return exitf(exitUnknown, "%s: what became of the %s is unknown: %w", at.target, at.what, cleanError{last}).
		withHint("ask: %s", at.target.command("status"))
}

// judge reads from a status what became of the attempt. All nil: it is still in
// progress, or not to be seen yet.
func (at *attempt) judge(s *control.Status, pid int) (*control.Result, error) {
	switch {
	case fellBackBehind(at.before, s):
		return nil, exitf(exitFailed, "%s: generation %d, which was asked, is gone; %s serves again", at.target, at.before.Main, currentText(s))
	case s.Invocation != at.before.Invocation || s.Main < at.before.Main:
		return nil, exitf(exitUnknown, "%s: the service died during the %s and was started again: %s serves now", at.target, at.what, currentText(s))
	}
	mine := func(to int, t control.Trigger) bool {
		if at.generation != 0 {
			return to == at.generation
		}
		return t.PID == pid
	}
	if r := s.Last; r != nil && mine(r.To, r.Trigger) && !r.Time.Before(at.asked) {
		return &r.Result, nil
	}
	if p := s.Upgrade; p != nil && (at.queue || mine(p.To, p.Trigger)) {
		at.inferred = 0
		if mine(p.To, p.Trigger) {
			return at.staged(p), nil
		}
		return nil, nil
	}
	result, err := at.infer(s)
	if result == nil && err == nil {
		at.inferred = 0
		return nil, nil
	}
	// The record may be on its way: what has no record must be so twice.
	if at.inferred++; at.inferred < 2 {
		return nil, nil
	}
	return result, err
}

// infer says what became of an attempt that the service does not remember, as
// far as its generations show it.
func (at *attempt) infer(s *control.Status) (*control.Result, error) {
	switch {
	case at.generation != 0 && s.Main == at.generation:
		// Main moves at the confirm, and not before.
		r := &control.Result{
			Outcome: control.OutcomeConfirmed, From: at.before.Main, To: s.Main, ToPID: mainPID(s),
			Rollback: at.what == aRollback && at.generation != at.undoes,
		}
		for _, g := range s.Generations {
			if g.Number == s.Main {
				r.Version = g.Version
			}
		}
		return r, nil
	case s.Main != at.before.Main || s.Upgrade != nil:
	case at.undoes != 0 && at.generation == at.undoes:
		return &control.Result{Outcome: control.OutcomeRolledBack, From: s.Main, FromPID: mainPID(s), To: at.undoes}, nil
	case at.generation != 0 && !lives(s, at.generation):
		return nil, exitf(exitFailed, "%s: %s to generation %d failed, and the reason was lost; %s still serves", at.target, at.what, at.generation, currentText(s))
	case at.generation == 0 && at.events == 0 && !at.queue && newest(s) <= newest(at.before):
		// Main remembers no upgrade, has none in progress, and has started no
		// process: the request did not get there, or died with a generation.
		return nil, exitf(exitFailed, "%s: the request was lost; %s still serves", at.target, currentText(s))
	}
	return nil, nil
}

// fellBackBehind tells whether an older generation that lived at the time of before
// is the main one again.
func fellBackBehind(before, now *control.Status) bool {
	if now.Invocation != before.Invocation || now.Main >= before.Main {
		return false
	}
	return slices.ContainsFunc(before.Generations, func(g control.Generation) bool {
		return g.Number == now.Main && g.PID == mainPID(now) && g.PID != 0
	})
}

// newest is the largest number of a generation.
func newest(s *control.Status) int {
	n := 0
	for _, g := range s.Generations {
		n = max(n, g.Number)
	}
	return n
}

func lives(s *control.Status, generation int) bool {
	for _, g := range s.Generations {
		if g.Number == generation && g.State != control.StateFailed && g.State != control.StateExited {
			return true
		}
	}
	return false
}

// currentText is "generation 7 (v2)" of main.
func currentText(s *control.Status) string {
	for _, g := range s.Generations {
		if g.Number == s.Main {
			return named(g.Number, g.Version)
		}
	}
	return fmt.Sprintf("generation %d", s.Main)
}
