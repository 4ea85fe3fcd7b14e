package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// startCmd is "hdctl start".
type startCmd struct {
	Unit    string `arg:"" name:"unit" help:"The service."`
	NoBlock bool   `help:"Do not wait until it is ready."`
}

// Help is shown by hdctl start --help.
func (startCmd) Help() string {
	return `The sockets first, then the service; then its being ready is waited for. If it cannot start, the last lines of its journal are printed.

Exit status: 0 it serves, or did already; 4 no such service; 5 permission denied; 7 it has no unit; 9 it was not waited for; 10 it failed.

Example:

    hdctl start app
`
}

// startReport is what "hdctl start -o json" prints.
type startReport struct {
	Service string   `json:"service"`
	Sockets []string `json:"sockets"` // units that were started
	Changed bool     `json:"changed"` // false: it ran already
	Took    float64  `json:"took_s,omitempty"`
	PID     int      `json:"pid,omitempty"`
	Version string   `json:"version,omitempty"`
}

// Run starts the service.
func (c *startCmd) Run(ctx context.Context, a *app) error {
	m, err := a.manage(ctx, c.Unit, "start")
	if err != nil {
		return err
	}
	defer m.close()
	report := startReport{Service: m.target.name, Sockets: names(m.sockets, (*unitState).down)}
	if runs := m.service.ActiveState; (runs == "active" || runs == "reloading") && len(report.Sockets) == 0 {
		return a.printDone(report, fmt.Sprintf("%s: runs already: %s is %s", m.target, m.service.Name, m.service.state()))
	}
	report.Changed = true
	began := a.now()
	results := make(chan string, len(m.sockets)+1)
	n := 0
	for _, unit := range append(report.Sockets, m.service.Name) {
		if err := m.start(ctx, unit, results); err != nil {
			if n > 0 {
				a.notef("%s: %s started before that; %s stops it again", m.target, strings.Join(report.Sockets[:n], " "), m.target.command("stop"))
			}
			return err
		}
		n++
	}
	if c.NoBlock {
		return a.printDone(report, fmt.Sprintf("%s: is being started; %s tells how it goes", m.target, m.target.command("status")))
	}
	err = a.await(ctx, m, "start", results, n, nil)
	if result, ok := errors.AsType[*jobResultError](err); ok {
		return a.startFailed(ctx, m, began, result)
	}
	if err != nil {
		return err
	}
	s, err := a.awaitServing(ctx, m)
	if err != nil {
		return err
	}
	report.Took = a.now().Sub(began).Seconds()
	if s != nil {
		report.PID = mainPID(s)
		for _, g := range s.Generations {
			if g.Number == s.Main {
				report.Version = g.Version
			}
		}
	}
	return a.printDone(report, fmt.Sprintf("%s: %s", m.target, report.text()))
}

// text is "started in 0.2s: process 42 (v2.3.1); app.socket".
func (r startReport) text() string {
	text := "started in " + lasted(r.Took)
	if r.PID != 0 {
		text += fmt.Sprintf(": process %d%s serves", r.PID, inParens(r.Version))
	}
	if len(r.Sockets) > 0 {
		text += "; " + strings.Join(r.Sockets, " ") + " opened"
	}
	return text
}

// startFailed says why.
func (a *app) startFailed(ctx context.Context, m *managed, began time.Time, result *jobResultError) error {
	if err := m.look(ctx); err != nil {
		return exitf(exitNobody, "%s: not started: %w", m.target, result)
	}
	text := m.service.Name + " is " + m.service.state()
	if m.service.ActiveState != "failed" && m.service.Result != "" && m.service.Result != "success" {
		text += ", result " + clean(m.service.Result)
	}
	unit := m.service.Name
	for _, s := range m.sockets {
		if s.ActiveState == "failed" {
			text, unit = s.Name+" is "+s.state(), s.Name
		}
	}
	code := exitNobody
	if m.service.ActiveState == "active" { // it was a socket that could not be started
		code = exitFailed
	}
	e := exitf(code, "%s: not started: %s", m.target, text)
	e.more = a.journalLines(ctx, unit, began)
	switch down := names(m.sockets, (*unitState).down); {
	case code == exitFailed && len(down) > 0:
		e.hint = fmt.Sprintf("it runs without %s; a socket is not opened under a service that runs: %s, then start it again", strings.Join(down, ", "), m.target.command("stop"))
	case m.service.up():
		e.hint = fmt.Sprintf("systemd tries it again; %s ends that", m.target.command("stop"))
	case len(e.more) == 0:
		e.hint = fmt.Sprintf("journalctl %s-u %s", a.userFlag(), unit)
	}
	return e
}

// awaitServing waits until the service says that it serves; systemd takes some for
// started before that. It returns nil for one that has no control socket.
func (a *app) awaitServing(ctx context.Context, m *managed) (*control.Status, error) {
	limit := a.patience.before
	if a.globals.Timeout > 0 {
		limit = a.globals.Timeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(a.patience.poll)
	defer ticker.Stop()
	for {
		s, err := a.client(m.target).Status(ctx)
		switch {
		case err == nil && s.State == control.StateServing:
			return s, nil
		case notRunning(err):
			a.warnf("%s has no control socket: nobody says whether it serves", m.target)
			return nil, nil
		case err != nil && ctx.Err() == nil:
			return nil, apiError(m.target, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, exitf(exitUnknown, "%s: started, but it does not serve yet", m.target).withHint("%s", m.target.command("status"))
		}
	}
}
