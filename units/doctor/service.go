package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// Service returns what there is to say about a service that says st about itself,
// and about its unit. unit is "" for a service that systemd has not started. st is
// nil for one that does not run: then only its unit is looked at.
func (s System) Service(ctx context.Context, unit string, st *control.Status) []control.Check {
	var checks []control.Check
	if st != nil {
		checks = append(checks, s.said(st)...)
		checks = append(checks, s.libraries(st)...)
		checks = append(checks, s.listening(st)...)
	}
	pid := 0
	if st != nil {
		pid = mainOf(st).PID
	}
	values, found := s.unit(ctx, unit, st)
	checks = append(checks, found...)
	if values != nil {
		checks = append(checks, s.unitFiles(ctx, unit)...)
		checks = append(checks, s.socketUnits(ctx, values)...)
		checks = append(checks, s.commands(values)...)
		checks = append(checks, deadlines(values, st)...)
		checks = append(checks, s.room(values, st)...)
	}
	if pid != 0 {
		checks = append(checks, s.descriptors(pid))
		checks = append(checks, s.confinement(pid, programOf(st))...)
	}
	if pid != 0 && values != nil && s.Drift != nil {
		drift, err := s.Drift(ctx, unit, pid)
		if err != nil {
			drift = []control.Check{unseen("unit", err)}
		}
		checks = append(checks, drift...)
	}
	return checks
}

// mainOf returns the main generation, or a zero one if it is not listed.
func mainOf(st *control.Status) control.Generation {
	for _, g := range st.Generations {
		if g.Number == st.Main {
			return g
		}
	}
	return control.Generation{}
}

// programOf is the path of the program that the next upgrade would run, as far as
// it is known.
func programOf(st *control.Status) string {
	if st.Disk != nil {
		return st.Disk.Path
	}
	return ""
}

// said judges what the service says about itself.
func (s System) said(st *control.Status) []control.Check {
	checks := []control.Check{stateOf(st)}
	if st.Paused != nil {
		why := ""
		if st.Paused.Trigger.Reason != "" {
			why = ": " + st.Paused.Trigger.Reason
		}
		checks = append(checks, warn("paused", "hdctl resume "+st.Service, "upgrades are refused since %s%s", clock(st.Paused.Since), why))
	}
	checks = append(checks, onDisk(st), lastUpgrade(st))
	checks = append(checks, drains(st)...)
	for _, sock := range st.Sockets {
		if !sock.Claimed {
			checks = append(checks, warn(
				"sockets", "serve it, or disable its socket unit",
				"the socket %s (%s %s) is passed to the service, which does not serve it: its clients wait in vain", sock.Name, sock.Network, sock.Address,
			))
		}
	}
	if st.Options.PIDFile != "" {
		checks = append(checks, warn(
			"pid-file", "who reads it should ask systemctl show -p MainPID, or hdctl status",
			"a PID file is kept (%s): between two generations it is out of date for a moment", st.Options.PIDFile,
		))
	}
	for _, text := range st.Warnings {
		checks = append(checks, warn("service", "", "%s", text))
	}
	return checks
}

// stateOf is whether an upgrade could begin.
func stateOf(st *control.Status) control.Check {
	const name = "state"
	switch {
	case st.Stopping:
		return fail(name, "", "the service is being stopped")
	case st.Held != nil:
		return warn(name, "hdctl drain --undo "+st.Service, "its door is closed since %s: upgrades are refused", clock(st.Held.Since))
	case st.Upgrade != nil:
		return warn(name, "hdctl status "+st.Service, "an upgrade from generation %d to %d is in progress (%s)", st.Upgrade.From, st.Upgrade.To, st.Upgrade.Phase)
	case st.State != control.StateServing:
		return fail(name, "hdctl status "+st.Service, "generation %d is %s", st.Main, st.State)
	}
	return good(name, "generation %d serves", st.Main)
}

// onDisk is what the next upgrade, or a restart, would run.
func onDisk(st *control.Status) control.Check {
	const name = "disk"
	if st.Disk == nil {
		return warn(name, "", "the service does not say what is on disk")
	}
	d := st.Disk
	detail := ""
	if d.Detail != "" {
		detail = ": " + d.Detail
	}
	deleted := ""
	if strings.HasSuffix(mainOf(st).Executable, " (deleted)") {
		deleted = ", and the file that runs is deleted"
	}
	switch {
	case d.Failed:
		return fail(
			name, "install a version that works, then hdctl upgrade "+st.Service,
			"%s is the file with which the last upgrade failed%s: a restart would start it", d.Path, detail,
		)
	case d.State == control.DiskMissing, d.State == control.DiskNotExecutable:
		return fail(name, "install the program there", "%s is %s%s: neither an upgrade nor a restart would find a program", d.Path, strings.ReplaceAll(d.State, "-", " "), detail)
	case d.State == control.DiskDiffers:
		return warn(name, "hdctl upgrade "+st.Service, "%s is another file than the one that runs%s: a restart would start it untried%s", d.Path, detail, deleted)
	case d.State == control.DiskUnknown:
		return warn(name, "", "whether %s is what runs is not known%s", d.Path, detail)
	}
	return good(name, "%s is what runs", d.Path)
}

// lastUpgrade is how the last one ended.
func lastUpgrade(st *control.Status) control.Check {
	const name = "last"
	if st.Last == nil {
		return good(name, "no upgrade since the service was started")
	}
	r := st.Last
	switch r.Outcome {
	case control.OutcomeConfirmed, control.OutcomeUnchanged, control.OutcomeChecked, control.OutcomeStaged:
		return good(name, "the last upgrade (%d -> %d, %s) was %s", r.From, r.To, clock(r.Time), r.Outcome)
	}
	why := ""
	if r.Error != nil {
		why = ": " + r.Error.Message
	}
	return warn(
		name, "hdctl history "+st.Service+" has all of them, and the journal what the new version printed",
		"the last upgrade (%d -> %d, %s) was %s%s", r.From, r.To, clock(r.Time), r.Outcome, why,
	)
}

// drains looks at how long old generations may stay, and how many there are.
func drains(st *control.Status) []control.Check {
	const name = "drain"
	var checks []control.Check
	n := 0
	for _, g := range st.Generations {
		if g.State != control.StateDraining {
			continue
		}
		n++
		if g.Deadline.IsZero() {
			checks = append(checks, warn(
				name, fmt.Sprintf("hdctl conns %s --generation %d; hdctl end %s --generation %d", st.Service, g.Number, st.Service, g.Number),
				"generation %d drains without a deadline, with %s", g.Number, several(g.Conns.Total, "connection"),
			))
		}
	}
	o := st.Options
	what := "the oldest is hurried at the next upgrade"
	if o.Overflow == "refuse" {
		what = "the next upgrade is refused"
	}
	switch {
	case o.MaxDraining > 0 && n >= o.MaxDraining && o.Overflow == "refuse":
		checks = append(checks, fail(name, "hdctl end "+st.Service, "%s draining, which is the limit: %s", several(n, "generation"), what))
	case o.MaxDraining > 0 && n >= o.MaxDraining:
		checks = append(checks, warn(name, "HANDOFF_MAX_DRAINING=, or a shorter HANDOFF_DRAIN_TIMEOUT=, in the unit", "%s draining, which is the limit: %s", several(n, "generation"), what))
	case o.DrainTimeout == 0:
		checks = append(checks, warn(
			name, "HANDOFF_DRAIN_TIMEOUT=10m in the unit, or hdctl unit generate --drain-timeout",
			"drains have no deadline: an old version stays as long as its last client, and after %d of them %s", o.MaxDraining, what,
		))
	case len(checks) == 0:
		checks = append(checks, good(name, "old generations have %s for their connections; %d of at most %d drain", brief(o.DrainTimeout), n, o.MaxDraining))
	}
	return checks
}

// brief is a number of seconds as a duration.
func brief(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Millisecond).String()
}

// clock is a time for people.
func clock(t time.Time) string { return t.Local().Format(time.DateTime) }
