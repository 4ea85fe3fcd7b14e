package machine_test

import (
	"fmt"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// move is one thing that can happen next.
type move struct {
	what what
	gen  uint8 // the generation that it happens to
	arg  uint8 // another generation, or a timer
	bad  bool  // it goes wrong
	cut  uint8 // the generation is killed in the middle, after so many effects
}

type what uint8

const (
	// Sooner or later, by itself.
	hears      what = iota // a message from generation arg
	mourns                 // the death of generation arg is noticed, after all that it sent
	fires                  // timer arg
	checks                 // the check of the file ends
	starts                 // the candidate's process is started
	hasStarted             // and the driver is told
	greets                 // a process says hello
	getsReady
	handlesTerm
	notifies       // systemd gets the next datagram
	learns         // the machine is told what became of a NotifyMain
	missesLife     // it notices that generation arg hangs
	confirms       // the operator ends a probation that has no end by itself
	systemdNotices // that the main process is dead
	systemdInsists // and kills what does not end

	// By itself, but it can take as long as it likes.
	drains
	empties // the last client leaves through a door that is held

	// From outside, as long as the budget lasts.
	asksUpgrade
	asksStage
	asksPromote
	asksManual
	asksRollback
	asksHold
	asksRelease
	kills
	terms
	termsAll
	hangs
	wedges
	stalls
)

var whats = [...]string{
	"hears", "mourns", "fires", "checks", "starts a process", "has started it", "says hello", "gets ready", "handles SIGTERM",
	"notifies systemd", "learns what systemd says", "notices a hang of", "is asked to confirm", "is missed by systemd", "is killed by systemd",
	"has drained", "has no client any more",
	"is asked to upgrade", "is asked to upgrade in stages", "is asked to promote", "is asked to promote, and to wait", "is asked to roll back",
	"is asked to close its door", "is asked to open its door", "is killed", "gets SIGTERM", "and all others get SIGTERM", "hangs", "does not work any more", "has a check or a start that never ends",
}

func (v move) String() string {
	s := fmt.Sprintf("%d %s", v.gen, whats[v.what])
	switch v.what {
	case hears, mourns, missesLife:
		s += fmt.Sprintf(" %d", v.arg)
	case fires:
		s += fmt.Sprintf(" %v", machine.Timer(v.arg))
	}
	if v.bad {
		s += ", badly"
	}
	if v.cut != 0 {
		s += ", and is killed while it acts on that"
	}
	return s
}

// moves are all that can happen next: first own that are bound to happen, then
// ends of drains, then what comes from outside.
func (m *model) moves(w *world, list []move) (all []move, own, ends int) {
	if w.systemd.over {
		return list, 0, 0
	}
	for n := range w.gens {
		list = m.ownMoves(w, n, list)
	}
	if w.systemd.mainDied && !w.systemd.killing {
		list = append(list, move{what: systemdNotices, gen: w.systemd.main})
	}
	own = len(list)
	for n := range w.gens {
		if w.acts(n) && w.gens[n].pending.has(draining) {
			list = append(list, move{what: drains, gen: uint8(n)})
		}
		if w.acts(n) && w.gens[n].pending.has(leaving) {
			list = append(list, move{what: empties, gen: uint8(n)})
		}
	}
	ends = len(list) - own
	if w.left.terms > 0 {
		list = append(list, move{what: termsAll})
	}
	for n := range w.gens {
		list = m.movesFromOutside(w, n, list)
	}
	return list, own, ends
}

func (m *model) ownMoves(w *world, n int, list []move) []move {
	g := &w.gens[n]
	can := func(possible bool, what what, arg int) {
		if possible {
			list = append(list, move{what: what, gen: uint8(n), arg: uint8(arg)})
		}
	}
	can(g.notes != 0 && !g.hung, notifies, 0)
	can(g.process == started && !g.hung, greets, 0)
	can(g.hung && w.systemd.stopping, systemdInsists, 0)
	if !w.acts(n) {
		return list
	}
	for from := range w.gens {
		can(g.links.has(from) && g.inbox[from] != 0, hears, from)
		can(g.links.has(from) && g.inbox[from] == 0 && w.gens[from].process == gone, mourns, from)
	}
	if hung := m.watched(w, n); w.gens[hung].hung {
		// A hang is one only after a while, and what was said before is heard.
		can(!g.pending.has(alarmed) && g.inbox[hung] == 0, missesLife, hung)
	}
	s := m.state(w, n)
	can(s.Candidate.Manual && s.Candidate.Phase == machine.Probation, confirms, 0)
	can(g.answers != 0, learns, 0)
	can(g.pending.has(checking), checks, 0)
	can(g.pending.has(spawned), hasStarted, 0)
	can(g.pending.has(unready), getsReady, 0)
	can(g.pending.has(signalled), handlesTerm, 0)
	if g.pending.has(signalled) {
		return list // that is a matter of milliseconds, and the rest is not
	}
	can(g.pending.has(spawning) && w.child(n) == 0, starts, 0) // a process can have one child
	if g.pending.has(spawning) && g.pending.has(cancelled) && w.child(n) != 0 {
		list = append(list, move{what: starts, gen: uint8(n), bad: true})
	}
	for timer := range 16 {
		// The machine makes no difference between the two that end with ready.
		can(g.timers.has(timer) && machine.Timer(timer) != machine.RequestTimer, fires, timer)
	}
	return list
}

func (m *model) movesFromOutside(w *world, n int, list []move) []move {
	g, s := &w.gens[n], m.state(w, n)
	can := func(possible bool, v move) {
		if v.gen = uint8(n); possible {
			list = append(list, v)
		}
	}
	can(w.left.kills > 0 && w.alive(n), move{what: kills})
	can(w.left.terms > 0 && w.alive(n) && g.process != ending, move{what: terms})
	young := g.process == started || g.process == running && s.Successor && s.Life <= machine.Waiting
	can(w.left.hangs > 0 && young && !g.hung, move{what: hangs})
	if !w.acts(n) {
		return list
	}
	can(w.left.wedges > 0 && (s.Life == machine.Staged || s.Life == machine.Serving) && w.acts(int(g.parent)), move{what: wedges})
	can(w.left.hangs > 0 && (g.pending.has(checking) || g.pending.has(spawning)), move{what: stalls})
	can(w.left.holds > 0 && g.control && s.Held, move{what: asksRelease})
	can(w.left.holds > 0 && g.control && !s.Held, move{what: asksHold})
	can(w.left.upgrades > 0 && g.control && s.Next <= maxGens, move{what: asksUpgrade})
	can(w.left.upgrades > 0 && w.left.stages > 0 && g.control && s.Next <= maxGens, move{what: asksStage})
	can(g.control && s.Candidate.Phase == machine.OnStage, move{what: asksPromote})
	can(w.left.manuals > 0 && g.control && s.Candidate.Phase == machine.OnStage, move{what: asksManual})
	can(w.left.rollback > 0 && g.control && s.Candidate.Phase != machine.None, move{what: asksRollback})
	can((w.left.faults > 0 || g.pending.has(cancelled) && w.child(n) == 0) && g.pending.has(spawning), move{what: starts, bad: true})
	can(w.left.faults > 0 && g.pending.has(checking), move{what: checks, bad: true})
	can(w.left.faults > 0 && g.notes.next() == mainNote, move{what: notifies, bad: true})
	for from := range w.gens {
		kind := g.inbox[from].next()
		can(w.left.faults > 0 && g.links.has(from) && (kind == hello || kind == ready), move{what: hears, arg: uint8(from), bad: true})
		// It is too late to take a drain back.
		heir := w.left.faults > 0 && s.Life == machine.Draining && s.Lead == from && s.Heir == from
		can(heir && g.links.has(from) && g.inbox[from] == 0 && w.gens[from].process == gone, move{what: mourns, arg: uint8(from), bad: true})
		can(heir && w.gens[from].hung && g.inbox[from] == 0 && !g.pending.has(alarmed) && !s.Stopping, move{what: missesLife, arg: uint8(from), bad: true})
	}
	return list
}

// happen makes a move.
func (m *model) happen(w *world, v move) {
	n := int(v.gen)
	g := &w.gens[n]
	if v.bad && !g.pending.has(cancelled) {
		w.left.faults--
	}
	switch v.what {
	case hears:
		m.hear(w, n, v)
	case mourns:
		g.links.remove(int(v.arg))
		g.pending.remove(alarmed)
		m.give(w, n, machine.PeerGone{Number: int(v.arg), TooLate: v.bad}, v.cut)
	case fires:
		g.timers.remove(int(v.arg))
		m.give(w, n, machine.Fired{Timer: machine.Timer(v.arg)}, v.cut)
	case checks:
		g.pending.remove(checking)
		m.give(w, n, machine.Checked{OK: !v.bad}, v.cut)
	case starts:
		g.pending.remove(spawning)
		g.pending.remove(cancelled)
		if v.bad {
			m.give(w, n, machine.Spawned{}, v.cut)
			return
		}
		g.pending.add(spawned)
		w.gens[m.state(w, n).Candidate.Number] = generation{process: started, parent: v.gen}
	case hasStarted:
		g.pending.remove(spawned)
		g.links.add(m.state(w, n).Candidate.Number)
		m.give(w, n, machine.Spawned{OK: true}, v.cut)
	case greets:
		g.process, g.state = running, m.id(machine.Succeeding(n, int(g.parent), m.limits))
		g.pending.add(unready)
		g.links.add(int(g.parent))
		w.send(n, int(g.parent), say(hello, 0))
	case getsReady:
		g.pending.remove(unready)
		m.give(w, n, machine.Ready{}, v.cut)
	case handlesTerm:
		g.pending.remove(signalled)
		m.give(w, n, machine.Stop{}, v.cut)
	case notifies:
		m.notify(w, n, v.bad)
	case learns:
		kind, number := g.answers.pop()
		m.give(w, n, machine.Notified{Number: number, OK: kind == understood, Gone: !w.alive(number)}, v.cut)
	case missesLife:
		g.pending.add(alarmed)
		m.give(w, n, machine.Hung{Number: int(v.arg), TooLate: v.bad}, v.cut)
		m.must(v.bad || !w.alive(int(v.arg)), AlwaysSomebodyAtTheDoor, "generation %d hangs, and %d leaves it at that", v.arg, n)
	case confirms:
		m.give(w, n, machine.Confirm{}, v.cut)
	case systemdNotices:
		w.sigtermAll()
	case systemdInsists:
		w.die(n)
	case drains:
		g.pending.remove(draining)
		m.give(w, n, machine.Drained{}, v.cut)
	case empties: // a driver may well take it for the end of a drain
		g.pending.remove(leaving)
		m.give(w, n, machine.Drained{}, v.cut)
	case asksHold:
		w.left.holds--
		m.hold(w, n)
	case asksRelease:
		w.left.holds--
		m.give(w, n, machine.Release{}, 0)
		w.release(n)
	case asksUpgrade:
		w.left.upgrades--
		m.give(w, n, machine.Upgrade{}, v.cut)
	case asksStage:
		w.left.upgrades--
		w.left.stages--
		m.give(w, n, machine.Upgrade{Stage: true}, v.cut)
	case asksPromote:
		m.give(w, n, machine.Promote{}, v.cut)
	case asksManual:
		w.left.manuals--
		m.give(w, n, machine.Promote{Manual: true}, v.cut)
	case asksRollback:
		w.left.rollback--
		m.give(w, n, machine.Rollback{}, v.cut)
	case kills:
		w.sigkill(n)
	case terms:
		w.left.terms--
		w.seen.stop = w.seen.stop || m.leads(w, n) && !g.hung
		w.sigterm(n)
		if w.gens[n].pending.has(signalled) { // so that it is main still when it handles it
			m.happen(w, move{what: handlesTerm, gen: v.gen, cut: v.cut})
		}
	case termsAll:
		w.left.terms--
		w.sigtermAll()
	case hangs:
		w.left.hangs--
		g.hung = true
	case wedges:
		w.wedge(n)
	case stalls:
		w.left.hangs--
		w.seen.stalled = true
		g.pending.remove(checking)
		g.pending.remove(spawning)
		g.pending.remove(cancelled)
	}
}

// hold is an operator's request to close the door, which has to be obeyed by a main
// generation that serves, unless it is busy with an upgrade or told to stop.
func (m *model) hold(w *world, n int) {
	before := m.state(w, n)
	obeys := before.Main && before.Life == machine.Serving && before.Candidate.Phase == machine.None
	m.give(w, n, machine.Hold{}, 0)
	held := m.state(w, n).Held
	m.must(held == obeys, HeldAsAsked, "generation %d is asked to close its door: obeys %v, should %v", n, held, obeys)
	if held {
		w.seen.held = uint8(n)
	}
}

// watched is the generation whose hang would be noticed by generation n; 0 is none.
func (m *model) watched(w *world, n int) int {
	s := m.state(w, n)
	switch c := s.Candidate; {
	case s.Stopping:
		return 0
	case c.Phase == machine.OnStage, c.Phase == machine.Probation, c.Phase == machine.Notifying:
		return c.Number
	case s.Life == machine.Draining && s.Lead == s.Heir:
		return s.Lead
	}
	return 0
}

// unwatched tells whether a generation hangs, and nobody but systemd's watchdog can
// do something about it.
func (m *model) unwatched(w *world) bool {
	for n := range w.gens {
		g := &w.gens[n]
		if g.process != running || !g.hung {
			continue
		}
		parent := int(g.parent)
		if !w.acts(parent) || m.watched(w, parent) != n || w.gens[parent].pending.has(alarmed) {
			return true
		}
	}
	return false
}

// leads tells whether a generation is main, or is about to learn that it is.
func (m *model) leads(w *world, n int) bool {
	leads := m.state(w, n).Main
	for _, q := range w.gens[n].inbox {
		leads = leads || q.contains(say(promoted, 0))
	}
	return leads
}

// hear takes a message from a link.
func (m *model) hear(w *world, n int, v move) {
	g, from := &w.gens[n], int(v.arg)
	kind, number := g.inbox[from].pop()
	m.note("  (%s)", kinds[kind])
	switch kind {
	case hello:
		m.give(w, n, machine.Greeted{OK: !v.bad}, v.cut)
	case ready:
		m.give(w, n, machine.CandidateReady{Late: v.bad}, v.cut)
	case serve:
		m.give(w, n, machine.ServeNow{}, v.cut)
	case serving:
		if from == m.state(w, n).Candidate.Number { // not of one that was rolled back
			m.give(w, n, machine.CandidateServing{}, v.cut)
		}
	case stage:
		m.give(w, n, machine.StageNow{}, v.cut)
	case staged:
		if from == m.state(w, n).Candidate.Number {
			m.give(w, n, machine.CandidateStaged{}, v.cut)
		}
	case retire:
		m.give(w, n, machine.Retire{}, v.cut)
		if m.state(w, n).Life == machine.Draining { // who drains reports that, again and again
			w.send(n, from, say(retired, 0))
		}
	case retired:
		m.give(w, n, machine.Retired{Number: from}, v.cut)
		m.must(m.state(w, n).Retiring != from, OnlyACrashCuts, "generation %d drains, and %d is going to kill it", from, n)
	case numbers, covered:
		m.give(w, n, machine.Numbered{Number: from, Next: number, Covered: kind == covered}, v.cut)
	case promoted:
		m.give(w, n, machine.Promoted{}, v.cut)
	case stopping:
		before := m.state(w, n).Stopping
		m.give(w, n, machine.PeerStopping{Number: from}, v.cut)
		// It follows only a main generation, and then the service stops.
		w.seen.stop = w.seen.stop || !before && m.state(w, n).Stopping
	case hurry:
		m.give(w, n, machine.Hurried{}, v.cut)
	case meet:
		if !g.links.has(number) {
			g.links.add(number)
			m.give(w, n, machine.Met{Number: number}, v.cut)
		}
	}
}

// notify sends the next datagram to systemd.
func (m *model) notify(w *world, n int, fails bool) {
	g := &w.gens[n]
	kind, number := g.notes.pop()
	m.note("  (%s %d)", notes[kind], number)
	switch {
	case fails:
		w.seen.unheard = true
		g.answers.push(say(undelivered, number))
	case kind == mainNote:
		if w.alive(number) && !w.systemd.stopping { // it does not believe in the dead
			w.systemd.main, w.systemd.mainDied = uint8(number), false
		}
		g.answers.push(say(understood, number))
	case kind == stopNote:
		w.systemd.stopping = true
	}
	w.end(n)
}
