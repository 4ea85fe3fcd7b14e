package main

import (
	"fmt"

	"github.com/hdctl/handoff/upgrade/control"
)

// showEvent prints a step of an upgrade: as progress, and for -o jsonl as what
// was asked for.
func (a *app) showEvent(at *attempt, e control.Event) {
	t := at.target
	if a.globals.Format == "jsonl" {
		// A broken stdout must not end the waiting: the exit status counts.
		_ = a.printJSON(control.Line{Event: &e}, false)
		return
	}
	switch {
	case a.quiet:
		return
	case e.Phase == control.PhaseFailed, e.Phase == control.PhaseRollback, e.Phase == control.PhaseConfirmed && at.wait == control.WaitConfirmed:
		return // the result says it
	case e.Phase == control.PhaseOutput && a.via() == control.ViaSystemctl:
		return // the service has put it into the journal already
	case e.Phase == control.PhaseOutput:
		// What the new process prints would be gone at once where the
		// progress is one line; it gets a line of its own.
		a.endProgress()
		fmt.Fprintf(a.stderr, "%s: | %s\n", t, clean(e.Message))
	default:
		a.progress(fmt.Sprintf("%s: %s: %s", t, clean(e.Phase), clean(eventText(e))))
	}
}

// eventText is the message of an event, or if it has none, whom it is about.
func eventText(e control.Event) string {
	switch {
	case e.Message != "":
		return e.Message
	case e.Generation == 0:
		return ""
	case e.PID == 0:
		return fmt.Sprintf("generation %d", e.Generation)
	}
	return fmt.Sprintf("generation %d (pid %d)", e.Generation, e.PID)
}
