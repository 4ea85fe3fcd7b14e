package machine_test

import (
	"fmt"
	"slices"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// The promises of the project, as far as a machine can break them.
const (
	AlwaysSomebodyAtTheDoor  = "AlwaysSomebodyAtTheDoor"  // at every instant somebody accepts, unless an operator wants nobody to; after a crash somebody will
	OldServesUntilNewIsReady = "OldServesUntilNewIsReady" // a gate closes only when the next one is open
	FailedChangesNothing     = "FailedChangesNothing"     // after a failure the old generation serves, and nothing is left over
	NextUpgradeCanSucceed    = "NextUpgradeCanSucceed"    // whatever happened before, it is not refused
	AnswerIsTruth            = "AnswerIsTruth"            // each request gets one answer, and it is true
	FenceFirst               = "FenceFirst"               // two accept only until the old one hears that the new one does
	NoTwoMains               = "NoTwoMains"               // at most one generation believes that it is main
	ControlIsAnswered        = "ControlIsAnswered"        // by main, and by no other
	SystemdViewRight         = "SystemdViewRight"         // MAINPID is main's; STOPPING=1 comes from main on a real stop only
	StopIsStop               = "StopIsStop"               // who is told to stop does not accept again, and the service ends
	DrainersKnown            = "DrainersKnown"            // main knows who drains
	DrainersLimited          = "DrainersLimited"          // no more than MaxDraining drain at leisure
	NoOrphans                = "NoOrphans"                // who is not main follows main
	OnlyACrashCuts           = "OnlyACrashCuts"           // a generation that accepted ends when it has drained, or main was killed
	HeldAsAsked              = "HeldAsAsked"              // an operator closes and opens the door of main while nothing else goes on; nobody else does
	FallBackStaysPossible    = "FallBackStaysPossible"    // main is gone while its predecessor drains: that one serves again, or main's candidate does
	SharedOnStage            = "SharedOnStage"            // connections are passed on to a candidate that is on stage, by one who accepts
	NoNumberTwice            = "NoNumberTwice"            // no two generations of a service have the same number
	DriverIsNotMisled        = "DriverIsNotMisled"        // what the driver takes for granted
)

var promises = []string{
	AlwaysSomebodyAtTheDoor, OldServesUntilNewIsReady, FailedChangesNothing, NextUpgradeCanSucceed, AnswerIsTruth, FenceFirst, NoTwoMains,
	ControlIsAnswered, SystemdViewRight, StopIsStop, DrainersKnown, DrainersLimited, NoOrphans, OnlyACrashCuts, HeldAsAsked, FallBackStaysPossible,
	SharedOnStage, NoNumberTwice, DriverIsNotMisled,
}

// violation is a promise that was broken.
type violation struct{ promise, how string }

func (v *violation) String() string { return v.promise + ": " + v.how }

// must notes that a promise was broken, unless it was kept.
func (m *model) must(kept bool, promise, format string, args ...any) {
	if !kept && m.broken == nil {
		m.broken = &violation{promise, fmt.Sprintf(format, args...)}
	}
}

// checkEffect looks at an effect of generation n that is about to be executed.
func (m *model) checkEffect(w *world, n int, before, after *machine.State, effect machine.Effect) {
	c := before.Candidate.Number
	candidate := &w.gens[c]
	switch e := effect.(type) {
	case machine.OpenGate:
		m.must(!after.Stopping, StopIsStop, "generation %d was told to stop, and accepts again", n)
		m.must(before.Life != machine.Parked || !candidate.gate || after.Retiring == c, FenceFirst, "generation %d falls back while %d accepts", n, c)
		m.must(before.Life != machine.Draining || !w.gens[before.Lead].gate, FenceFirst, "generation %d takes back its drain while %d accepts", n, before.Lead)
		m.must(!w.gens[n].pending.has(holding) && !w.gens[n].pending.has(draining), DriverIsNotMisled, "generation %d accepts whom it says goodbye to", n)
	case machine.CloseGate:
		excused := after.Stopping || candidate.process == gone || candidate.hung || w.seen.termed.has(c) || after.Held && before.Candidate.Phase == machine.None
		// Its predecessor accepts, or would, when it wants it to go.
		excused = excused || before.Successor && !before.Main && after.Life == machine.Draining
		m.must(candidate.gate || excused, OldServesUntilNewIsReady, "generation %d parks, and %d does not accept", n, c)
	case machine.HoldDrain:
		m.must(!w.gens[n].gate && !w.gens[n].pending.has(holding), DriverIsNotMisled, "generation %d says goodbye too early, or twice", n)
	case machine.EndHold:
		m.must(w.gens[n].pending.has(holding), DriverIsNotMisled, "generation %d ends a hold that there is not", n)
	case machine.TakeBack:
		m.must(before.Life == machine.Draining && e.Number == before.Lead, DriverIsNotMisled, "generation %d, %v, takes over from %d", n, before.Life, e.Number)
		m.must(!w.alive(e.Number), FenceFirst, "generation %d takes over from %d, which lives", n, e.Number)
		m.must(!m.tooLate(), DriverIsNotMisled, "generation %d takes back what cannot be taken back", n)
	case machine.Share:
		m.must(!w.gens[n].share, DriverIsNotMisled, "generation %d begins to share twice", n)
	case machine.EndShare:
		m.must(w.gens[n].share, DriverIsNotMisled, "generation %d ends to share, and does not", n)
	case machine.TellHurry:
		m.must(!m.limits.Refuse || e.Number > n, DrainersLimited, "generation %d hurries %d, and should have refused", n, e.Number)
	case machine.NotifyMain:
		m.must(after.Main, SystemdViewRight, "generation %d names the main process, and is not main", n)
		m.must(e.Number == n || e.Number == c, SystemdViewRight, "generation %d says that %d is the main process", n, e.Number)
	case machine.NotifyStopping:
		m.must(after.Main && w.seen.termed.has(n), SystemdViewRight, "generation %d says STOPPING=1 for no reason", n)
	case machine.TellPromoted:
		m.must(e.Number == c, DriverIsNotMisled, "generation %d promotes %d", n, e.Number)
	case machine.Spawn:
		m.must(w.gens[e.Number].process == absent, NoNumberTwice, "the number %d is used twice", e.Number)
		child := w.child(n)
		hurries := child == 0 || w.gens[child].hastened || w.gens[child].inbox[n].contains(say(hurry, 0)) || m.state(w, child).Stopping
		m.must(hurries, NextUpgradeCanSucceed, "generation %d waits for the end of %d, which does not hurry", n, child)
	case machine.Check:
		m.must(!w.seen.used.has(after.Candidate.Number), NoNumberTwice, "the number %d is used twice", after.Candidate.Number)
	case machine.Cancel:
		m.must(w.gens[n].request != 0, DriverIsNotMisled, "there is nothing to cancel")
	case machine.Kill:
		k := &w.gens[e.Number]
		m.must(k.hung || !m.state(w, e.Number).Main, AnswerIsTruth, "generation %d kills %d, which succeeded it", n, e.Number)
		m.must(k.links == 0 || int(k.parent) == n, DriverIsNotMisled, "generation %d kills %d, which is not its child", n, e.Number)
		m.must(w.gens[n].links.has(e.Number), DriverIsNotMisled, "generation %d kills %d, which it does not know", n, e.Number)
		m.must(!k.pending.has(draining) || c == e.Number || before.Retiring == e.Number, OnlyACrashCuts, "generation %d kills %d, and knows that it drains", n, e.Number)
	case machine.Exit:
		crashed := e.Abandoned && !before.Stopping && !w.alive(before.Lead)
		done := before.Life < machine.Serving || before.Life == machine.Draining && !w.gens[n].pending.has(draining)
		m.must(crashed || done, OnlyACrashCuts, "generation %d exits with open connections", n)
		m.must(!e.Abandoned || !m.shouldTakeBack(w, n), FallBackStaysPossible, "generation %d exits, and should have taken over from %d", n, before.Lead)
		m.must(!e.Abandoned || !m.shouldFollow(w, n), FallBackStaysPossible, "generation %d exits, and another one will take over from %d", n, before.Lead)
	case machine.Report:
		m.checkReport(w, n, after, e)
	}
}

// shouldTakeBack tells whether generation n has just heard of the end of the one
// that it has started, and is the one to serve again. After three of them in a row it
// may have heard of those in any order, and the end of the service is good enough.
func (m *model) shouldTakeBack(w *world, n int) bool {
	gone, ok := m.event.(machine.PeerGone)
	main := &w.gens[gone.Number]
	return ok && w.ended() <= 2 && !gone.TooLate && int(main.parent) == n && main.led && !main.covers && !w.seen.cut
}

// shouldFollow tells whether generation n has just heard of the end of one that
// another has started, which drains, too, and takes over. It remembers one such
// generation, and that is good for one end.
func (m *model) shouldFollow(w *world, n int) bool {
	gone, ok := m.event.(machine.PeerGone)
	main := &w.gens[gone.Number]
	p := int(main.parent)
	s := m.state(w, p)
	return ok && w.ended() == 1 && p != n && main.led && w.acts(p) && w.gens[n].links.has(p) && s.Life == machine.Draining && !s.Stopping && s.Heir == gone.Number && !main.covers && !w.seen.cut
}

// tooLate tells whether the last event says that a drain cannot be taken back.
func (m *model) tooLate() bool {
	switch e := m.event.(type) {
	case machine.PeerGone:
		return e.TooLate
	case machine.Hung:
		return e.TooLate
	}
	return false
}

// checkReport looks at an answer.
func (m *model) checkReport(w *world, n int, s *machine.State, r machine.Report) {
	if r.Number == 0 {
		m.must(r.Outcome != machine.Held || s.Held, AnswerIsTruth, "generation %d refuses, and its door is not held", n)
		m.must(r.Outcome != machine.Crowded || m.crowded(s), AnswerIsTruth, "generation %d refuses, with the drainers %v", n, s.Drainers)
		refused := slices.Contains([]machine.Outcome{machine.InProgress, machine.NotServing, machine.NotMain, machine.Terminating, machine.Held, machine.Crowded}, r.Outcome)
		m.must(refused, AnswerIsTruth, "the answer %v is about no candidate", r.Outcome)
		return
	}
	m.must(int(w.gens[n].request) == r.Number, AnswerIsTruth, "an answer about %d, but the one request is about %d", r.Number, w.gens[n].request)
	systemd := int(w.systemd.main)
	switch r.Outcome {
	case machine.Confirmed:
		m.must(w.alive(r.Number), AnswerIsTruth, "confirmed, but generation %d is dead", r.Number)
		m.must(systemd == r.Number || w.systemd.stopping, AnswerIsTruth, "confirmed, but systemd was not told of %d", r.Number)
	case machine.Stopped:
		m.must(s.Stopping, AnswerIsTruth, "answered as stopped, but generation %d goes on", n)
	case machine.Failed, machine.TimedOut, machine.FellBack, machine.Unnotified, machine.RolledBack:
		m.must(s.Main && s.Life == machine.Serving && w.gens[n].gate, FailedChangesNothing, "%v, but generation %d does not serve", r.Outcome, n)
		m.must(systemd != r.Number || w.systemd.stopping || w.seen.unheard, FailedChangesNothing, "%v, but systemd believes in %d", r.Outcome, r.Number)
	default:
		m.must(false, AnswerIsTruth, "the answer %v about candidate %d", r.Outcome, r.Number)
	}
}

// crowded tells whether an upgrade would make for too many drainers, and has to be
// refused for that.
func (m *model) crowded(s *machine.State) bool {
	return m.limits.Refuse && len(s.Drainers)+1 > m.limits.MaxDraining
}

// checkStep looks at all the effects of an event, after which generation n has
// been killed or not. asked is the request that was open before.
func (m *model) checkStep(w *world, n int, e machine.Event, asked uint8, effects []machine.Effect) {
	answers, open := 0, w.gens[n].request
	for _, e := range effects {
		if _, ok := e.(machine.Report); ok {
			answers++
		}
	}
	requests := 0
	if asked != 0 {
		requests++
	}
	if is[machine.Upgrade](e) {
		requests++
	}
	if open != 0 {
		requests--
	}
	m.must(answers == requests, AnswerIsTruth, "%d answers to %d requests", answers, requests)
	m.must(open == 0 || m.state(w, n).Life != machine.Exited, AnswerIsTruth, "generation %d exits, and one who asked waits in vain", n)
}

// checkAlways looks at an instant between two steps.
func (m *model) checkAlways(w *world) {
	if w.systemd.over {
		return
	}
	mains, open, allowed, served := 0, 0, 1, w.gens[1].process == gone
	accepted := w.somebodyAccepts()
	for n := range w.gens {
		s := m.state(w, n)
		if w.gens[n].gate && !m.retires(w, n) {
			open++
		}
		if s.Main && w.gens[n].process == running {
			mains++
		}
		if s.Candidate.Phase == machine.Opening {
			allowed = 2
		}
		served = served || s.Life >= machine.Serving
	}
	m.must(mains <= 1, NoTwoMains, "%d generations are main", mains)
	m.must(open <= allowed, FenceFirst, "%d generations accept", open)
	m.must(accepted || w.seen.held != 0 || w.seen.stop || w.seen.lost || !served, AlwaysSomebodyAtTheDoor, "nobody accepts, and nobody was killed or stopped")
	for n := range w.gens {
		g, s := &w.gens[n], m.state(w, n)
		if g.process != running {
			continue
		}
		m.must(s.Life != machine.Parked || g.links.has(s.Candidate.Number), AlwaysSomebodyAtTheDoor,
			"generation %d is parked, and knows that %d is dead", n, s.Candidate.Number)
		m.must(g.control == s.Main, ControlIsAnswered, "generation %d is main: %v, answers: %v", n, s.Main, g.control)
		m.must(!w.seen.failed.has(n) || !s.Main || !g.gate, AnswerIsTruth, "generation %d failed, it was said, and serves as main", n)
		m.must(s.Held == (int(w.seen.held) == n), HeldAsAsked, "generation %d is held: %v, an operator wants that of %d", n, s.Held, w.seen.held)
		idle := s.Main && s.Life == machine.Serving && !s.Stopping && s.Candidate.Phase == machine.None
		m.must(!s.Held || idle, HeldAsAsked, "generation %d is held, and %v with candidate %v", n, s.Life, s.Candidate.Phase)
		m.must(g.pending.has(holding) == s.Held, DriverIsNotMisled, "generation %d is held: %v, says goodbye: %v", n, s.Held, !s.Held)
		m.must(g.gate == (s.Life == machine.Serving && !s.Held), DriverIsNotMisled, "generation %d is %v, its gate is open: %v", n, s.Life, g.gate)
		m.must(!g.share || s.Candidate.Phase == machine.OnStage && g.gate, SharedOnStage, "generation %d, %v, shares with a candidate in %v", n, s.Life, s.Candidate.Phase)
		m.must(g.share || s.Candidate.Phase != machine.OnStage, SharedOnStage, "generation %d keeps everything to itself", n)
		retiring := g.timers.has(int(machine.RetireTimer))
		m.must(retiring == (s.Retiring != 0), DriverIsNotMisled, "generation %d waits for the end of %d: %v", n, s.Retiring, retiring)
		timers := g.timers
		timers.remove(int(machine.RetireTimer))
		m.must(timers == 0 || s.Candidate.Phase != machine.None || s.Stopping, DriverIsNotMisled,
			"generation %d waits for timers %b of nothing", n, g.timers)
	}
}

// retires tells whether a generation is about to hear that it is not wanted any more.
func (m *model) retires(w *world, n int) bool {
	for _, q := range w.gens[n].inbox {
		if q.contains(say(retire, 0)) {
			return true
		}
	}
	return false
}

// checkSettled looks at a world in which nothing is bound to happen any more,
// but for the ends of drains, if there are any.
func (m *model) checkSettled(w *world, drains bool) {
	if w.systemd.over {
		return
	}
	main, acting := 0, 0
	for n := range w.gens {
		if w.acts(n) {
			acting++
			if m.state(w, n).Main {
				main = n
			}
		}
	}
	switch {
	case main != 0 && !w.seen.stop:
		m.checkServing(w, main)
		return
	case (acting == 0 || m.unwatched(w)) && !w.systemd.stopping:
		return // systemd's watchdog has to notice
	}
	// The end is near, of a service that was stopped or whose main generation
	// was killed: only those that were told to stop still say goodbye.
	promise := AlwaysSomebodyAtTheDoor
	if w.seen.stop {
		promise = StopIsStop
	}
	m.must(w.seen.stop || w.seen.lost, promise, "no generation is main")
	for n := range w.gens {
		s := m.state(w, n)
		m.must(!w.acts(n) || s.Stopping && s.Life == machine.Draining, promise, "the service ends, and generation %d is %v", n, s.Life)
	}
	m.must(drains, promise, "the service does not end")
}

// checkServing looks at a settled service that was not told to stop.
func (m *model) checkServing(w *world, main int) {
	g, s := &w.gens[main], m.state(w, main)
	m.must(g.gate || s.Held || s.Life == machine.Starting, AlwaysSomebodyAtTheDoor, "main generation %d does not accept", main)
	m.must(s.Candidate == (machine.Candidate{}) || w.seen.stalled, FailedChangesNothing, "there is still a candidate: %+v", s.Candidate)
	m.must(g.request == 0, AnswerIsTruth, "the request for %d is never answered", g.request)
	m.must(int(w.systemd.main) == main || w.seen.unheard, SystemdViewRight, "main is %d, and MAINPID that of %d", main, w.systemd.main)
	from := *s
	if s.Held {
		_, effects := m.step(from, machine.Upgrade{})
		m.must(slices.Equal(effects, does(machine.Report{Outcome: machine.Held})), HeldAsAsked, "asked to upgrade behind a closed door: %+v", effects)
		from, _ = m.step(from, machine.Release{})
	}
	_, effects := m.step(from, machine.Upgrade{})
	begun := slices.Contains(effects, machine.Effect(machine.Check{}))
	m.must(begun || s.Life == machine.Starting || w.seen.stalled || m.crowded(s), NextUpgradeCanSucceed, "%+v", effects)
	leisurely := 0
	for n := range w.gens {
		if n == main || !w.acts(n) {
			continue
		}
		o, other := &w.gens[n], m.state(w, n)
		if other.Stopping && !w.alive(other.Lead) {
			continue // it got a SIGTERM, and main was killed: it ends within the stop timeout
		}
		m.must(other.Life == machine.Draining && other.Lead == main && o.links.has(main), NoOrphans,
			"main is %d, and generation %d is %v and follows %d", main, n, other.Life, other.Lead)
		m.must(slices.Contains(s.Drainers, n) && g.links.has(n), DrainersKnown, "main generation %d knows %v, and %d drains", main, s.Drainers, n)
		if !o.hastened && !other.Stopping {
			leisurely++
		}
	}
	m.must(leisurely <= m.limits.MaxDraining || w.seen.cut, DrainersLimited, "%d drain at leisure", leisurely)
	for _, d := range s.Drainers {
		m.must(w.alive(d), DrainersKnown, "main generation %d lists %d, which is gone", main, d)
	}
}
