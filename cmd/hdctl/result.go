package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

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

func (a *app) reportAccepted(at *attempt) error {
	if a.globals.Format == "table" || a.globals.Format == "wide" {
		if !a.quiet {
			a.printf("%s: upgrade has begun; %s tells how it goes\n", at.target, at.target.command("status"))
		}
	}
	return nil
}

// reportStaged prints that the new generation serves a share, and what can follow.
// left is until it is rolled back by itself; 0 is never.
func (a *app) reportStaged(at *attempt, r *control.Result, left time.Duration) error {
	gets := fmt.Sprintf("generation %d gets %s of the new connections", r.To, percent(at.share))
	if at.share == 0 {
		gets = "an operator has taken over, with a share that is not in its steps"
	}
	a.printResult(r, fmt.Sprintf("%s: staged %d -> %d%s: %s", at.target, r.From, r.To, inParens(r.Version), gets))
	without := ""
	if left > 0 {
		without = fmt.Sprintf("; without either it is rolled back in %s", brief(left.Round(time.Second).Seconds()))
	}
	if !a.quiet {
		a.hintf("%s gives it all, %s ends it%s", at.target.command("promote"), at.target.command("rollback"), without)
	}
	return nil
}

// reportUnchanged prints that there was nothing to do.
func (a *app) reportUnchanged(at *attempt, r *control.Result) error {
	for _, g := range at.before.Generations {
		if g.Number == r.From && r.Version == "" {
			r.Version = cmp.Or(r.FromVersion, g.Version)
		}
	}
	a.printResult(r, fmt.Sprintf("%s: unchanged: %s is what is on disk", at.target, named(r.From, r.Version)))
	return nil
}

// reportResult prints the end of an upgrade and returns the exit status.
func (a *app) reportResult(at *attempt, r *control.Result) error {
	switch r.Outcome {
	case control.OutcomeUnchanged:
		return a.reportUnchanged(at, r)
	case control.OutcomeConfirmed:
		a.printResult(r, fmt.Sprintf("%s: %s", at.target, successText(r)))
		a.printVerdict(r)
		return drainError(at, r)
	}
	a.printResult(r, "")
	a.printVerdict(r)
	return a.failed(at, r)
}

// failed is the end of an upgrade that did not come about.
func (a *app) failed(at *attempt, r *control.Result) error {
	code, text := failure(at, r)
	out := exitf(code, "%s: %s", at.target, text)
	for _, line := range r.Output {
		out.more = append(out.more, clean(line))
	}
	if r.Error != nil {
		for _, c := range r.Checks {
			out.more = append(out.more, unsaid(c, r.Error.Message)...)
		}
	}
	tried := r.ToPID != 0 && r.Outcome != control.OutcomeRolledBack && r.Outcome != control.OutcomeInconclusive
	switch {
	case r.Error != nil && r.Error.Hint != "":
		out.hint = clean(r.Error.Hint)
	case len(r.Output) == 0 && tried && at.before.Invocation != "":
		out.hint = fmt.Sprintf("journalctl %s-u %s _PID=%d", a.userFlag(), at.target.unit(), r.ToPID)
	case code == exitUnknown:
		out.hint = at.target.command("status")
	}
	return out
}

// unsaid is what there is to say of a check beyond what was said, line by line;
// nothing if it went well.
func unsaid(c control.Check, said string) []string {
	if c.Result == control.CheckOK {
		return nil
	}
	message, output, _ := strings.Cut(c.Message, "\n")
	var lines []string
	if !strings.Contains(said, message) {
		lines = append(lines, clean(fmt.Sprintf("%s: %s: %s", c.Name, c.Result, message)))
	}
	for line := range strings.Lines(output) {
		if line = strings.TrimSuffix(line, "\n"); !strings.Contains(said, line) {
			lines = append(lines, clean(line))
		}
	}
	return lines
}

// printVerdict prints the figures that have decided an automatic upgrade, for
// people.
func (a *app) printVerdict(r *control.Result) {
	if r.Verdict == nil || a.quiet || a.globals.Format == "json" || a.globals.Format == "jsonl" {
		return
	}
	a.printf("verdict: %s%s\n", clean(r.Verdict.Verdict), inParens(r.Verdict.Reason))
	verdict(r).print(&a.terminal, !a.globals.NoLegend)
}

// drainError is the end of an upgrade that was confirmed, where the drain of the old
// generation was waited for and did not end well; else nil.
func drainError(at *attempt, r *control.Result) error {
	switch {
	case r.Cut.Total > 0:
		text := fmt.Sprintf("%s cut at the drain deadline of generation %d", wereCut(r.Cut.Total), r.From)
		if kinds := kindsText(r.Cut); kinds != "" {
			text += ": " + kinds
		}
		return exitf(exitCut, "%s: %s", at.target, text)
	case r.Outcome == control.OutcomeConfirmed && at.wait == control.WaitDrained && !r.Drained:
		return exitf(exitUnknown, "%s: upgraded, but nobody saw the drain of generation %d end", at.target, r.From).
			withHint("%s", at.target.command("status"))
	}
	return nil
}

func wereCut(n int) string {
	if n == 1 {
		return "1 connection was"
	}
	return fmt.Sprintf("%d connections were", n)
}

// successText is "upgraded 6 -> 7 (v2.3.1): serving in 41ms, confirmed in 2.04s".
func successText(r *control.Result) string {
	return fmt.Sprintf("upgraded %d -> %d%s%s", r.From, r.To, inParens(r.Version), timesText(r))
}

// timesText is ": serving in 41ms, confirmed in 2.04s".
func timesText(r *control.Result) string {
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
	if len(times) == 0 {
		return ""
	}
	return ": " + strings.Join(times, ", ")
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
	what := at.what
	if what == aPromotion {
		what = anUpgrade // that is what ended
	}
	switch r.Outcome {
	case control.OutcomeFailed:
		return exitFailed, fmt.Sprintf("%s%s failed%s: %s; generation %d still serves", what, candidate, phase, why(r), from)
	case control.OutcomeFellBack:
		return exitFailed, fmt.Sprintf("%s%s fell back%s: %s; generation %d serves again", what, candidate, phase, why(r), from)
	case control.OutcomeTimedOut:
		if r.To == 0 {
			return exitTimedOut, fmt.Sprintf("%s timed out before it began; generation %d still serves", what, from)
		}
		return exitTimedOut, fmt.Sprintf("%s%s timed out%s: %s; generation %d still serves", what, candidate, phase, why(r), from)
	case control.OutcomeRolledBack:
		return exitFailed, fmt.Sprintf("%s%s was %s; generation %d serves all", what, candidate, rolledBackWhy(r), from)
	case control.OutcomeInconclusive:
		return exitFailed, fmt.Sprintf("%s%s was inconclusive, and %s; generation %d serves all", what, candidate, rolledBackWhy(r), from)
	case control.OutcomeStopped:
		return exitNobody, fmt.Sprintf("%s%s ended%s: the service is being stopped", what, candidate, phase)
	case control.OutcomeRefused:
		return refusalCode(r.Error), fmt.Sprintf("%s refused: %s", at.what, why(r))
	}
	return exitUnknown, fmt.Sprintf("%s%s: outcome %q: %s", what, candidate, clean(r.Outcome), why(r))
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
