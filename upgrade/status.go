package upgrade

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// view is what the driver lets others see of its state. It is never changed, but
// replaced.
type view struct {
	state       machine.State
	since       time.Time
	deadline    time.Time
	cut         control.Counts
	note        string
	hold        *control.Hold
	upgrade     *control.Progress
	last        *control.Record
	failedFile  fileID
	generations []control.Generation // the other ones
	reported    map[int]time.Time    // when those of them that drain last reported
	warnings    []string
	staged      *stagedView // nil: no upgrade is staged
	previous    *control.Program
	paused      *control.Pause
	totals      *control.Totals
}

// publish makes the driver's state visible.
func (u *Upgrader) publish() {
	v := &view{
		state: u.state, since: u.since, cut: toCounts(u.cut), note: u.note, hold: u.hold,
		last: u.last, failedFile: u.failedFile, warnings: u.allWarnings(), staged: u.viewStage(), paused: u.paused, totals: u.shownTotals(),
	}
	if u.previous != nil {
		v.previous = &u.previous.Program
	}
	if d := u.drainage; d != nil {
		v.deadline = d.deadline
	}
	if a := u.attempt; a != nil {
		v.upgrade = &control.Progress{
			Phase: phaseName(u.state.Candidate.Phase), Trigger: a.trigger, Since: a.began,
			From: u.number, To: a.number, PID: a.pid, Queued: len(u.queue),
		}
		if u.state.Candidate.Phase == machine.None { // its end is being told
			v.upgrade.Phase = phaseName(machine.Dying)
		}
	}
	v.reported = make(map[int]time.Time)
	for _, p := range u.peers {
		v.generations = append(v.generations, u.describePeer(p))
		if !p.reported.IsZero() {
			v.reported[p.number] = p.reported
		}
	}
	u.view.Store(v)
}

// describePeer describes another generation as main sees it.
func (u *Upgrader) describePeer(p *peer) control.Generation {
	c := u.state.Candidate
	g := control.Generation{Number: p.number, PID: p.pid, Version: p.version, Since: p.since, Started: p.since}
	switch {
	case c.Phase != machine.None && p.number == c.Number:
		g.State = control.StateStarting
		if c.Phase == machine.OnStage {
			g.State = control.StateStaged
		}
		if c.Phase >= machine.Probation && c.Phase <= machine.Notifying {
			g.State, g.Reason = control.StateServing, "on probation"
			if c.Manual {
				g.Reason = "on probation until it is promoted or rolled back"
			}
		}
		if c.Phase == machine.Dying {
			g.State, g.Reason = control.StateFailed, "ending"
		}
	case u.state.Life == machine.Draining && p.number == u.state.Lead && !u.state.Main:
		g.State = control.StateServing
	case u.state.Main && slices.Contains(u.state.Drainers, p.number):
		g.State = control.StateDraining
		if p.number > u.number {
			g.Reason = "rolled back"
		}
	case u.state.Main: // it has fallen, and its process is not gone yet
		g.State, g.Reason = control.StateFailed, "ending"
	case u.state.Life == machine.Draining:
		g.State = control.StateDraining
	case u.state.Life == machine.Staged:
		g.State = control.StateServing
	default:
		g.State, g.Reason = control.StateParked, "we are on probation"
	}
	if !p.reported.IsZero() {
		r := p.report
		g.Started, g.Since = time.Unix(0, r.Started), time.Unix(0, r.Since)
		g.Conns, g.RSS, g.Cut, g.CutBy = control.Counts(r.Counts), r.RSS, r.Cut.Total, control.Counts(r.Cut)
		g.Migrated, g.Note = r.Migrated, r.Note
		if r.Deadline != 0 {
			g.Deadline = time.Unix(0, r.Deadline)
		}
		if r.Oldest != 0 {
			g.Oldest = time.Unix(0, r.Oldest)
		}
	}
	return g
}

// ownState translates our own life for the API.
func (v *view) ownState() control.State {
	switch v.state.Life {
	case machine.Starting, machine.Waiting:
		return control.StateStarting
	case machine.Staged:
		return control.StateStaged
	case machine.Serving:
		if v.state.Held {
			return control.StateDraining
		}
		return control.StateServing
	case machine.Parked:
		return control.StateParked
	case machine.Draining:
		return control.StateDraining
	}
	return control.StateExited
}

// Status returns a snapshot of the service as this generation sees it: complete
// if it is the main one. It does not wait for anything that is going on.
func (u *Upgrader) Status() *control.Status {
	v := u.view.Load()
	now := time.Now()
	counts, oldest := u.counts()
	own := control.Generation{
		Number: u.number, PID: u.pid, Version: u.opts.Version, State: v.ownState(), Main: v.state.Main,
		Started: u.started, Since: v.since, Deadline: v.deadline, Conns: counts, Oldest: oldest,
		RSS: u.rss(), Cut: v.cut.Total, CutBy: v.cut, Note: v.note, Executable: executable(u.pid), Goroutines: runtime.NumGoroutine(),
	}
	own.Migrated, own.Adopted = u.moved()
	totals := v.totalsNow(own.Migrated)
	if v.state.Life == machine.Parked {
		own.Reason = "its successor is on probation"
	}
	s := &control.Status{
		APIVersion: control.APIVersion, Library: u.library, Service: u.name, State: own.State,
		Stopping: v.state.Stopping, Held: v.hold, Invocation: u.env.invocation, Time: now,
		Upgrade: v.upgrade, Last: v.last, Disk: u.disk.compare(v.failedFile),
		Generations: append([]control.Generation{own}, v.generations...),
		Sockets:     u.describeSockets(), Options: u.set.describe(u.env.watchdog), Warnings: v.warnings,
		Paused: v.paused, Previous: v.previous, Totals: totals,
	}
	s.Options.StateDir = u.statePath
	if s.Upgrade != nil {
		progress := *s.Upgrade
		progress.Stage = v.progressStage()
		s.Upgrade = &progress
	}
	if v.state.Main {
		s.Main = u.number
	} else {
		s.Main = v.state.Lead
	}
	for i := range s.Generations {
		g := &s.Generations[i]
		g.Main = g.Number == s.Main
		g.Health = v.health(g.Number, u.number)
		if at, ok := v.reported[g.Number]; ok {
			g.ReportAge = now.Sub(at).Seconds()
		}
		if g.PID != u.pid {
			g.Executable = executable(g.PID)
			if g.RSS == 0 {
				g.RSS = residentMemory(g.PID)
			}
		}
	}
	slices.SortFunc(s.Generations, func(a, b control.Generation) int { return cmp.Compare(b.Number, a.Number) })
	return s
}

// allWarnings are what an operator should know, lasting and passing.
func (u *Upgrader) allWarnings() []string {
	all := slices.Clip(u.warnings)
	if u.stalledText != "" {
		all = append(all, u.stalledText)
	}
	for _, what := range slices.Sorted(maps.Keys(u.recordsFailed)) {
		all = append(all, fmt.Sprintf("%s: %v", what, u.recordsFailed[what]))
	}
	return all
}

func (u *Upgrader) describeSockets() []control.Socket {
	u.mu.Lock()
	listeners := u.listeners
	u.mu.Unlock()
	described := []control.Socket{}
	counted := make(map[string]bool)
	for _, s := range u.table.all() {
		d := control.Socket{Name: s.name, Network: s.network, Address: s.address, Claimed: s.claimed}
		for _, l := range listeners {
			// Several sockets under one name share a listener: counted once.
			if l.name == s.name && s.claimed && !counted[s.name] {
				c, _ := l.conns.Counts()
				d.Conns, counted[s.name] = toCounts(c), true
			}
		}
		described = append(described, d)
	}
	return described
}

// noteDrain adds to the record of the last upgrade what has become of its drain.
// The driver calls it.
func (u *Upgrader) noteDrain(r link.Report) {
	if u.last == nil || u.last.From != r.Generation || u.last.Outcome != control.OutcomeConfirmed {
		return
	}
	last := *u.last // others may read the old one
	last.Migrated, last.Cut, last.Drained = r.Migrated, control.Counts(r.Cut), r.Final
	u.last = &last
}

func (u *Upgrader) rss() int64 { return residentMemory(u.pid) }

func describeAttempt(a *attempt) string {
	pid := ""
	if a.pid != 0 {
		pid = fmt.Sprintf(" (pid %d)", a.pid)
	}
	return fmt.Sprintf("%d%s, started %v ago via %s,", a.number, pid, round(time.Since(a.began)), a.trigger.Via)
}
