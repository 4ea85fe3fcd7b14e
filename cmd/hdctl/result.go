package main

import (
	"fmt"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// outcomeUnchanged is the Outcome that hdctl itself gives to an upgrade with
// --if-changed that was not necessary.
const outcomeUnchanged = "unchanged"

// printResult prints a result as JSON, or for people as the line.
func (a *app) printResult(r *control.Result, line string) {
	var err error
	switch a.globals.Format {
	case "json":
		err = a.printJSON(r, true)
	case "jsonl":
		err = a.printJSON(control.Line{Result: r}, false)
	default:
		if line != "" && !a.quiet {
			a.printf("%s\n", line)
		}
	}
	if err != nil {
		a.warnf("print the result: %v", err)
	}
}

func (a *app) reportUnchanged(at *attempt) error {
	s := at.before
	r := &control.Result{Outcome: outcomeUnchanged, From: s.Main, FromPID: mainPID(s)}
	version := ""
	for _, g := range s.Generations {
		if g.Number == s.Main {
			version = g.Version
		}
	}
	r.Version = version
	a.printResult(r, fmt.Sprintf("%s: unchanged: %s is what is on disk", at.target, named(s.Main, version)))
	return nil
}

func (a *app) reportAccepted(at *attempt) error {
	if a.globals.Format == "table" || a.globals.Format == "wide" {
		if !a.quiet {
			a.printf("%s: upgrade has begun; %s tells how it goes\n", at.target, at.target.command("status"))
		}
	}
	return nil
}

// reportResult prints the end of an upgrade and returns the exit status.
func (a *app) reportResult(at *attempt, wait string, r *control.Result) error {
	if r.Outcome == control.OutcomeConfirmed {
		a.printResult(r, fmt.Sprintf("%s: %s", at.target, successText(r)))
		switch {
		case r.Cut.Total > 0:
			text := fmt.Sprintf("%s cut at the drain deadline of generation %d", wereCut(r.Cut.Total), r.From)
			if kinds := kindsText(r.Cut); kinds != "" {
				text += ": " + kinds
			}
			return exitf(exitCut, "%s: %s", at.target, text)
		case wait == control.WaitDrained && !r.Drained:
			return exitf(exitUnknown, "%s: upgraded, but nobody saw the drain of generation %d end", at.target, r.From).
				withHint("%s", at.target.command("status"))
		}
		return nil
	}
	a.printResult(r, "")
	code, text := failure(at, r)
	out := exitf(code, "%s: %s", at.target, text)
	for _, line := range r.Output {
		out.more = append(out.more, clean(line))
	}
	switch {
	case r.Error != nil && r.Error.Hint != "":
		out.hint = clean(r.Error.Hint)
	case len(r.Output) == 0 && r.ToPID != 0 && at.before.Invocation != "":
		out.hint = fmt.Sprintf("journalctl %s-u %s _PID=%d", a.userFlag(), at.target.unit(), r.ToPID)
	case code == exitUnknown:
		out.hint = at.target.command("status")
	}
	return out
}

func wereCut(n int) string {
	if n == 1 {
		return "1 connection was"
	}
	return fmt.Sprintf("%d connections were", n)
}

// successText is "upgraded 6 -> 7 (v2.3.1): serving in 41ms, confirmed in 2.04s".
func successText(r *control.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "upgraded %d -> %d%s", r.From, r.To, inParens(r.Version))
	var times []string
	if r.Serving > 0 {
		times = append(times, "serving in "+lasted(r.Serving))
	}
	if r.Confirmed > 0 {
		times = append(times, "confirmed in "+lasted(r.Confirmed))
	}
	if r.Drained {
		times = append(times, "drained in "+lasted(r.Total))
		if r.Migrated > 0 {
			times = append(times, count(r.Migrated, "connection")+" migrated")
		}
		times = append(times, fmt.Sprintf("%d cut", r.Cut.Total))
	}
	if len(times) > 0 {
		b.WriteString(": " + strings.Join(times, ", "))
	}
	return b.String()
}

// failure says what happened and what is now, and the exit status for it.
func failure(at *attempt, r *control.Result) (int, string) {
	from := r.From
	if from == 0 {
		from = at.before.Main
	}
	candidate := ""
	if r.To != 0 {
		candidate = fmt.Sprintf(" to generation %d", r.To)
		if r.ToPID != 0 {
			candidate += fmt.Sprintf(" (pid %d)", r.ToPID)
		}
	}
	phase := ""
	if r.Phase != "" {
		phase = " in " + clean(r.Phase)
	}
	switch r.Outcome {
	case control.OutcomeFailed:
		return exitFailed, fmt.Sprintf("upgrade%s failed%s: %s; generation %d still serves", candidate, phase, why(r), from)
	case control.OutcomeFellBack:
		return exitFailed, fmt.Sprintf("upgrade%s fell back%s: %s; generation %d serves again", candidate, phase, why(r), from)
	case control.OutcomeTimedOut:
		if r.To == 0 {
			return exitTimedOut, fmt.Sprintf("upgrade timed out before it began; generation %d still serves", from)
		}
		return exitTimedOut, fmt.Sprintf("upgrade%s timed out%s: %s; generation %d still serves", candidate, phase, why(r), from)
	case control.OutcomeStopped:
		return exitNobody, fmt.Sprintf("upgrade%s ended%s: the service is being stopped", candidate, phase)
	case control.OutcomeRefused:
		return refusalCode(r.Error), fmt.Sprintf("upgrade refused: %s", why(r))
	}
	return exitUnknown, fmt.Sprintf("upgrade%s: outcome %q: %s", candidate, clean(r.Outcome), why(r))
}

// refusalCode is the exit status for a refusal: the old generation serves.
func refusalCode(e *control.Error) int {
	if e == nil {
		return exitRefused
	}
	switch code := codeOf(e); code {
	case exitPermission, exitTimedOut:
		return code
	}
	return exitRefused
}
