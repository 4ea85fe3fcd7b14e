package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// stopCmd is "hdctl stop".
type stopCmd struct {
	Unit    string `arg:"" name:"unit" help:"The service."`
	NoBlock bool   `help:"Do not wait until it has ended."`
}

// Help is shown by hdctl stop --help.
func (stopCmd) Help() string {
	return `After systemctl stop of the service alone, the next client starts it again, by its socket. This stops both: clients who connect wait while the service finishes what it has, which takes up to its stop timeout, and are refused after that. Ctrl-C stops the waiting, not the stop.

Exit status: 0 it is stopped, or was; 4 no such service; 5 permission denied; 7 it has no unit; 9 it was not waited for.

Example:

    hdctl stop app
    hdctl stop app --no-block
`
}

// stopReport is what "hdctl stop -o json" prints.
type stopReport struct {
	Service     string   `json:"service"`
	Sockets     []string `json:"sockets"` // units that were stopped
	Changed     bool     `json:"changed"` // false: it was stopped already
	Took        float64  `json:"took_s,omitempty"`
	Generations []int    `json:"generations,omitempty"` // that were ended
	Connections int      `json:"connections"`           // that were open before
	Left        int      `json:"left"`                  // that were still open when the stop timeout was over
}

// Run stops the service.
func (c *stopCmd) Run(ctx context.Context, a *app) error {
	m, err := a.manage(ctx, c.Unit, "stop")
	if err != nil {
		return err
	}
	defer m.close()
	report := stopReport{Service: m.target.name, Sockets: names(m.sockets, (*unitState).up)}
	if m.service.down() && len(report.Sockets) == 0 {
		return a.printDone(report, fmt.Sprintf("%s: stopped already: %s is %s", m.target, m.service.Name, m.service.state()))
	}
	if others := m.service.otherTriggers(); len(others) > 0 {
		a.warnf("%s: %s can start it again", m.target, strings.Join(others, ", "))
	}
	began := a.now()
	seen := &stopWitness{client: a.client(m.target)}
	seen.look(ctx, a.patience.status)
	report.Changed = true
	report.Generations, report.Connections = seen.ended(), seen.open()

	// systemd stops in the reverse of the order in which it starts, so the sockets wait
	// for the service: until it has ended they are open, and clients wait in the backlog.
	units := []string{m.service.Name}
	for _, s := range m.sockets {
		if s.up() || s.LoadState == "loaded" { // systemd refuses to stop what does not exist
			units = append(units, s.Name)
		}
	}
	results := make(chan string, len(units))
	if err := m.stop(ctx, units, results); err != nil {
		return err
	}
	if c.NoBlock {
		return a.printDone(report, fmt.Sprintf("%s: is being stopped; %s tells how it goes", m.target, m.target.command("status")))
	}
	err = a.await(ctx, m, "stop", results, len(units), seen)
	if _, ok := errors.AsType[*jobResultError](err); err != nil && !ok { // of a job it is the state that counts
		return err
	}
	if err := m.look(ctx); err != nil {
		return exitf(exitUnknown, "%s: %w", m.target, err)
	}
	if up := names(append(m.sockets, m.service), (*unitState).up); len(up) > 0 {
		return exitf(exitFailed, "%s: still up: %s", m.target, strings.Join(up, ", ")).
			withHint("somebody has started it again: systemctl %sstatus %s", a.userFlag(), strings.Join(up, " "))
	}
	took := a.now().Sub(began)
	report.Took = took.Seconds()
	report.Left = seen.left(took)
	if m.service.ActiveState == "failed" {
		a.warnf("%s: %s is %s", m.target, m.service.Name, m.service.state())
	}
	return a.printDone(report, fmt.Sprintf("%s: %s", m.target, report.text()))
}

// text is "stopped in 1.2s: generations 7, 6, with 37 connections; app.socket".
func (r stopReport) text() string {
	parts := []string{"stopped in " + lasted(r.Took)}
	if len(r.Generations) > 0 {
		word := "generation"
		if len(r.Generations) > 1 {
			word = "generations"
		}
		parts = append(parts, fmt.Sprintf("%s %s ended, %s", word, numbers(r.Generations), count(r.Connections, "connection")+" before"))
	}
	if len(r.Sockets) > 0 {
		parts = append(parts, strings.Join(r.Sockets, " ")+" closed")
	}
	if r.Left > 0 {
		parts = append(parts, wereCut(r.Left)+" still open at the stop timeout")
	}
	return strings.Join(parts, "; ")
}

func numbers(all []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(all), " ", ", "), "[]")
}

// await waits for the results of jobs. seen, which may be nil, is kept up to date.
func (a *app) await(ctx context.Context, m *managed, what string, results <-chan string, n int, seen *stopWitness) error {
	if a.globals.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.globals.Timeout)
		defer cancel()
	}
	ticker := time.NewTicker(a.patience.poll)
	defer ticker.Stop()
	bad := ""
	for n > 0 {
		select {
		case result := <-results:
			n--
			if result != "done" && result != "skipped" {
				bad = result
			}
		case <-ticker.C:
			if seen != nil {
				seen.look(ctx, a.patience.poll)
			}
		case <-ctx.Done():
			return exitf(exitUnknown, "%s: stopped waiting; the %s goes on", m.target, what).withHint("%s", m.target.command("status"))
		}
	}
	if bad != "" {
		return &jobResultError{bad}
	}
	return nil
}

// jobResultError is a job that was not done.
type jobResultError struct{ result string }

func (e *jobResultError) Error() string { return "the job ended with the result " + clean(e.result) }

// stopWitness keeps the last that a service says about itself.
type stopWitness struct {
	client *control.Client
	first  *control.Status
	last   *control.Status
}

func (w *stopWitness) look(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := w.client.Status(ctx)
	if err != nil {
		return
	}
	if w.first == nil {
		w.first = s
	}
	w.last = s
}

// ended are the generations that there were.
func (w *stopWitness) ended() []int {
	if w.first == nil {
		return nil
	}
	var out []int
	for _, g := range w.first.Generations {
		out = append(out, g.Number)
	}
	return out
}

// open is how many connections there were.
func (w *stopWitness) open() int { return openIn(w.first) }

// left is how many were open at the end, if that was at the stop timeout.
func (w *stopWitness) left(took time.Duration) int {
	if w.last == nil || !w.last.Stopping || took < seconds(w.last.Options.StopTimeout) {
		return 0
	}
	return openIn(w.last)
}

func openIn(s *control.Status) int {
	n := 0
	if s != nil {
		for _, g := range s.Generations {
			n += g.Conns.Total
		}
	}
	return n
}
