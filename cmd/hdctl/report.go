package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// Conditions of a service, as status judges them: statusReport.Condition.
const (
	condServing      = "serving"
	condNotServing   = "not-serving"   // runs, but serves not yet, or no more
	condNotRunning   = "not-running"   // nobody has the control socket
	condNoService    = "no-service"    // and nothing knows of it
	condNotAnswering = "not-answering" // somebody has it, but says nothing
	condNoPermission = "no-permission"
	condError        = "error" // it answered with an error
)

// statusReport is what "hdctl status -o json" prints for a service: what the
// service says about itself (all fields of a control.Status, if it answers),
// and beside it what others say. Fields are only added.
type statusReport struct {
	*control.Status

	Service   string `json:"service"`
	Unit      string `json:"unit,omitempty"`
	Path      string `json:"control_socket"`
	Condition string `json:"condition"`

	// Systemd is what systemd says about the unit; null if it cannot be asked,
	// and SystemdError says why.
	Systemd      *systemdView `json:"systemd"`
	SystemdError string       `json:"systemd_error,omitempty"`

	// Mismatch has a sentence for each thing in which the service and systemd
	// do not agree. There should be none.
	Mismatch []string `json:"mismatch,omitempty"`

	// Error is why there is no status, and Processes are then those that
	// systemd's cgroup and /proc show.
	Error     *control.Error `json:"error,omitempty"`
	Processes []process      `json:"processes,omitempty"`

	target target
	exit   int
}

// report asks a service, and systemd about it.
func (a *app) report(ctx context.Context, t target) *statusReport {
	r := a.ask(ctx, t)
	// Main and systemd are asked one after the other, and in between the main
	// process may have changed. What is still so when both are asked again has
	// not just happened.
	for range 2 {
		if len(r.Mismatch) == 0 || ctx.Err() != nil {
			break
		}
		r = a.ask(ctx, t)
	}
	return r
}

func (a *app) ask(ctx context.Context, t target) *statusReport {
	r := &statusReport{Service: t.name, Unit: t.unit(), Path: t.socket, target: t}
	askCtx, cancel := context.WithTimeout(ctx, a.answerLimit())
	defer cancel()
	s, err := a.client(t).Status(askCtx)
	if err == nil {
		r.Status = s
		if s.Service != "" {
			r.Service, r.Unit = s.Service, s.Service+".service"
		}
		if unit := unitOf(mainPID(s)); unit != "" && s.Invocation != "" {
			r.Unit = unit // it may be called differently
		}
	}
	var viewErr error
	if r.Unit != "" {
		if r.Systemd, viewErr = a.askSystemd(ctx, r.Unit); viewErr != nil {
			r.SystemdError = viewErr.Error()
		}
	}
	if err != nil {
		a.judgeFailure(r, err, viewErr)
		return r
	}
	r.Mismatch = mismatch(s, r.Systemd)
	r.Condition, r.exit = condNotServing, exitNotRunning
	if s.Held == nil && slices.ContainsFunc(s.Generations, func(g control.Generation) bool { return g.State == control.StateServing }) {
		r.Condition, r.exit = condServing, exitOK
	}
	return r
}

// answerLimit is how long a service may take to answer a simple question.
func (a *app) answerLimit() time.Duration {
	if a.globals.Timeout > 0 {
		return a.globals.Timeout
	}
	return a.patience.status
}

// judgeFailure fills in a report without a status.
func (a *app) judgeFailure(r *statusReport, err, viewErr error) {
	e, ok := errors.AsType[*control.Error](err)
	switch {
	case ok:
		r.Error = e
	case errors.Is(err, context.DeadlineExceeded):
		r.Error = control.Errorf(control.CodeUnknown, "no answer within %v", a.answerLimit())
	default:
		r.Error = control.Errorf(control.CodeUnknown, "%v", err)
	}
	switch r.exit = codeOf(err); {
	case r.exit == exitPermission:
		r.Condition = condNoPermission
	case notRunning(err):
		e := apiError(r.target, err)
		if r.target.name != "" && a.globals.Socket == "" {
			e = a.absence(r.target, r.Systemd, viewErr, err)
		}
		r.Error.Message, r.Error.Hint, r.exit = e.Error(), e.hint, e.code
		r.Condition = map[int]string{exitNotRunning: condNotRunning, exitNoService: condNoService, exitUnknown: condNotAnswering}[e.code]
	case r.exit == exitUnknown:
		r.Condition = condNotAnswering
	default:
		r.Condition, r.exit = condError, exitUnknown
	}
	if r.Condition == condNotAnswering {
		group := ""
		if r.Systemd != nil {
			group = r.Systemd.ControlGroup
		}
		r.Processes = processes(group, r.Path)
	}
}

// mainPID is the PID of the main generation, 0 if it is not listed.
func mainPID(s *control.Status) int {
	for _, g := range s.Generations {
		if g.Number == s.Main {
			return g.PID
		}
	}
	return 0
}

// mismatch says in what the service and systemd do not agree.
func mismatch(s *control.Status, v *systemdView) []string {
	if v == nil || !v.exists() {
		return nil
	}
	if s.Invocation == "" {
		// Not started by systemd. Then its unit should not run as well.
		if v.running() {
			return []string{fmt.Sprintf("systemd runs %s (main PID %d), but the service that answers was not started by it", clean(v.Unit), v.MainPID)}
		}
		return nil
	}
	var out []string
	if pid := mainPID(s); v.MainPID != pid {
		says := fmt.Sprintf("main PID is %d", v.MainPID)
		if v.MainPID == 0 {
			says = "there is no main process"
		}
		out = append(out, fmt.Sprintf("systemd says %s, the service says %d", says, pid))
	}
	if s.State == control.StateServing && !s.Stopping && !v.running() {
		out = append(out, fmt.Sprintf("systemd says the unit is %s, the service says it is %s", v.state(), s.State))
	}
	return out
}
