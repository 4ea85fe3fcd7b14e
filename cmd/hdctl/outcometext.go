package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// lastText is the last upgrade in one line.
func (a *app) lastText(r *control.Record, now time.Time) string {
	what := anUpgrade
	if r.Rollback {
		what = aRollback
	}
	begin := fmt.Sprintf("%s %d -> %d%s %s ago", what, r.From, r.To, viaText(r.Trigger), since(now, r.Time))
	if r.Outcome == control.OutcomeConfirmed {
		text := fmt.Sprintf("%s: serving in %s, confirmed in %s", begin, lasted(r.Serving), lasted(r.Confirmed))
		cut := fmt.Sprintf("%d cut", r.Cut.Total)
		if r.Cut.Total > 0 {
			cut = a.paint(red, cut+inParens(kindsText(r.Cut)))
		}
		switch {
		case r.Migrated > 0:
			text += fmt.Sprintf(", %s migrated, %s", count(r.Migrated, "connection"), cut)
		case r.Cut.Total > 0:
			text += ", " + cut
		}
		return text
	}
	text := begin + " " + a.paint(red, strings.ToUpper(clean(r.Outcome)))
	if r.Phase != "" {
		text += " in " + clean(r.Phase)
	}
	return text + ": " + why(&r.Result)
}

// why is the reason for which an upgrade failed: what the service says, and how
// the process ended if that is not in it.
func why(r *control.Result) string {
	end := processEnd(r)
	if r.ExitCode != nil && *r.ExitCode == 0 && rolledBack(r) {
		end = "" // as it was told to
	}
	if r.Error == nil || r.Error.Message == "" {
		if end == "" {
			return "no reason was given"
		}
		return end
	}
	message := clean(r.Error.Message)
	if rolledBack(r) { // that it was is said already
		message = strings.TrimPrefix(message, rolledBackWords)
	}
	if strings.Contains(message, end) {
		return message
	}
	return message + inParens(end)
}

// rolledBackWords are what a service begins with if it says who, or what, has rolled
// an upgrade back.
const rolledBackWords = "rolled back "

// rolledBackWhy is "rolled back via hdctl: no", "rolled back: nobody has promoted it".
func rolledBackWhy(r *control.Result) string {
	if r.Error != nil && strings.HasPrefix(r.Error.Message, rolledBackWords) {
		return rolledBackWords + why(r)
	}
	return "rolled back: " + why(r)
}

// processEnd is how the new process ended; "" if it did not, or nobody knows.
func processEnd(r *control.Result) string {
	switch {
	case r.Signal != "":
		return "killed by " + clean(r.Signal)
	case r.ExitCode != nil:
		return "exit status " + strconv.Itoa(*r.ExitCode)
	}
	return ""
}

// diskText says what a restart or an upgrade would run, if that is not what runs.
func (a *app) diskText(s *control.Status) string {
	d := s.Disk
	if d == nil || d.State == control.DiskSame || d.State == "" {
		return ""
	}
	detail := d.Detail
	path := clean(d.Path)
	switch last := s.Last; {
	case d.Failed && last != nil && rolledBack(&last.Result):
		if detail == "" {
			detail = last.Version
		}
		return fmt.Sprintf("%s, upgrade %s %s%s: a restart would start it", path, a.paint(red, "ROLLED BACK"), clock(last.Time, s.Time), inParens(detail))
	case d.Failed:
		when := ""
		if last != nil && last.Outcome != control.OutcomeConfirmed {
			when = " " + clock(last.Time, s.Time)
			if detail == "" {
				detail = failedText(&last.Result)
			}
		}
		return fmt.Sprintf("%s, upgrade %s%s%s: a restart would start it", path, a.paint(red, "FAILED"), when, inParens(detail))
	case d.State == control.DiskDiffers && last != nil && rolledBack(&last.Result):
		return fmt.Sprintf("%s is not what runs since the %s %s%s: a restart would start it", path, a.paint(yellow, "ROLLBACK"), clock(last.Time, s.Time), inParens(detail))
	case d.State == control.DiskDiffers:
		return fmt.Sprintf("%s is not what runs%s: an upgrade or a restart would start it", path, inParens(detail))
	case d.State == control.DiskMissing:
		return fmt.Sprintf("%s is %s%s: neither upgrade nor restart is possible", path, a.paint(red, "MISSING"), inParens(detail))
	case d.State == control.DiskNotExecutable:
		return fmt.Sprintf("%s is %s%s: neither upgrade nor restart is possible", path, a.paint(red, "NOT EXECUTABLE"), inParens(detail))
	}
	return fmt.Sprintf("%s: %s%s", path, clean(d.State), inParens(detail))
}

// failedText is "v2.4.0, exit status 3" of an upgrade that failed.
func failedText(r *control.Result) string {
	switch end := processEnd(r); {
	case r.Version == "":
		return end
	case end == "":
		return r.Version
	default:
		return r.Version + ", " + end
	}
}

// rolledBack tells whether an older version serves because of r.
func rolledBack(r *control.Result) bool {
	switch r.Outcome {
	case control.OutcomeRolledBack, control.OutcomeInconclusive:
		return true
	}
	return r.Outcome == control.OutcomeConfirmed && r.Rollback
}

// previousText says what a rollback would run.
func previousText(p *control.Program) string {
	text := fmt.Sprintf("%s, %s", named(p.Generation, p.Version), clean(p.Path))
	if len(p.Digest) >= 12 {
		text += ", sha256 " + clean(p.Digest[:12])
	}
	return text + ": a rollback would run it"
}
