package machine_test

import (
	"fmt"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// model runs machines in a world. It is to the world what the driver is to a
// process.
type model struct {
	memory
	limits machine.Limits
	event  machine.Event // the last one
	gave   answer        // to it
	broken *violation    // the first one
	log    func(format string, args ...any)
}

func newModel(step stepFunc, limits machine.Limits) *model {
	return &model{memory: newMemory(step), limits: limits}
}

// begin is a service whose first generation was just started by systemd.
func (m *model) begin(b budget) world {
	w := world{left: b, systemd: systemd{main: 1}}
	w.gens[1] = generation{process: running, state: m.id(machine.First(m.limits)), control: true}
	w.gens[1].pending.add(unready)
	return w
}

// give gives an event to the machine of generation n and executes the effects.
// With cut not 0 the generation is killed after so many of them.
func (m *model) give(w *world, n int, e machine.Event, cut uint8) {
	g := &w.gens[n]
	before, a := m.states[g.state], m.ask(g.state, e)
	after := m.states[a.next]
	m.event, m.gave = e, a
	m.note("generation %d: %T%+v", n, e, e)
	asked := g.request
	if after.Candidate.Phase != machine.None && before.Candidate.Phase == machine.None {
		g.request = uint8(after.Candidate.Number)
	}
	if after.Stopping {
		w.release(n)
	}
	g.state, g.covers, g.led = a.next, after.Candidate.Covers, after.Main
	for i, effect := range a.effects {
		m.note("    %T%+v", effect, effect)
		m.checkEffect(w, n, &before, &after, effect)
		m.execute(w, n, &after, effect)
		if cut == uint8(i+1) {
			w.seen.cut = true
			w.sigkill(n)
			return
		}
	}
	m.checkStep(w, n, e, asked, a.effects)
	if after.Life == machine.Exited {
		g.process, g.gate, g.control, g.timers = ending, false, false, 0
		w.end(n)
	}
}

// state is that of the machine of generation n.
func (m *model) state(w *world, n int) *machine.State { return &m.states[w.gens[n].state] }

func (m *model) note(format string, args ...any) {
	if m.log != nil {
		m.log(format, args...)
	}
}

// cuts are the numbers of effects after which it matters to others that a
// generation is killed in the middle of a step: between two that they see.
func (a answer) cuts() (cuts []uint8) {
	var last uint8
	for i, e := range a.effects {
		switch e.(type) {
		case machine.Kill, machine.TellReady, machine.TellStaged, machine.TellServing, machine.TellStage, machine.TellServe,
			machine.TellPromoted, machine.TellRetire, machine.TellStopping, machine.TellHurry, machine.TellNumbers, acquaint:
			if last != 0 {
				cuts = append(cuts, last)
			}
			last = uint8(i + 1)
		}
	}
	return cuts
}

// execute does what the driver does. s is the state after the step.
func (m *model) execute(w *world, n int, s *machine.State, effect machine.Effect) {
	g := &w.gens[n]
	switch e := effect.(type) {
	case machine.OpenGate:
		g.gate, w.seen.lost = true, false
	case machine.CloseGate:
		g.gate = false
		// Who was to stand there instead got a signal meanwhile: the candidate, or the
		// predecessor of one that was rolled back.
		for _, other := range [...]int{n, s.Candidate.Number, s.Lead} {
			if w.seen.termed.has(other) || w.gens[other].process == gone || w.gens[other].hung {
				w.seen.lost = w.seen.lost || !w.somebodyAccepts()
			}
		}
	case machine.Lead:
		g.control = true
	case machine.Yield:
		g.control = false
	case machine.Drain:
		g.pending.remove(holding)
		g.pending.remove(leaving)
		g.pending.add(draining)
	case machine.HoldDrain:
		g.pending.add(holding)
		g.pending.add(leaving)
	case machine.EndHold:
		g.pending.remove(holding)
		g.pending.remove(leaving)
	case machine.Hasten:
		g.hastened = true
	case machine.TakeBack:
		g.pending.remove(draining)
		g.hastened = false
	case machine.Share:
		g.share = true
	case machine.EndShare:
		g.share = false
	case machine.Arm:
		g.timers.add(int(e.Timer))
	case machine.Disarm:
		g.timers.remove(int(e.Timer))

	case machine.NotifyReady: // nothing in the model depends on when it comes
	case machine.NotifyMain:
		g.notes.push(say(mainNote, e.Number))
	case machine.NotifyStopping:
		w.seen.stop = true
		g.notes.push(say(stopNote, n))

	case machine.Check:
		w.seen.used.add(s.Candidate.Number)
		g.pending.add(checking)
	case machine.Spawn:
		g.pending.add(spawning)
	case machine.Cancel:
		if g.pending.has(spawning) {
			g.pending.add(cancelled)
		}
	case machine.Kill:
		hung := w.gens[e.Number].hung
		if w.alive(e.Number) {
			w.die(e.Number)
		}
		if hung {
			w.miss()
		}
	case machine.TellReady:
		w.send(n, s.Lead, say(ready, 0))
	case machine.TellServing:
		w.send(n, s.Lead, say(serving, 0))
	case machine.TellStaged:
		w.send(n, s.Lead, say(staged, 0))
	case machine.TellStage:
		w.send(n, e.Number, say(stage, 0))
	case machine.TellServe:
		w.send(n, e.Number, say(serve, 0))
	case machine.TellRetire:
		w.send(n, e.Number, say(retire, 0))
	case machine.TellPromoted:
		w.send(n, e.Number, say(promoted, 0))
	case machine.TellHurry:
		w.send(n, e.Number, say(hurry, 0))
	case machine.TellNumbers:
		kind := numbers
		if e.Covered {
			kind = covered
		}
		if !m.state(w, e.Number).Stopping { // it will use none
			w.send(n, e.Number, say(kind, e.Next))
		}
	case machine.TellStopping:
		for other := range w.gens {
			if !m.state(w, other).Stopping { // it knows
				w.send(n, other, say(stopping, 0))
			}
		}
	case acquaint:
		if g.links.has(e.with) { // else it is gone
			w.send(n, e.to, say(meet, e.with))
		}
	case machine.Report:
		w.seen.stop = w.seen.stop || e.Outcome == machine.Stopped
		if e.Number != 0 {
			g.request = 0
			if e.Outcome != machine.Confirmed {
				w.seen.failed.add(e.Number)
			}
		}
	}
}

// acquaint is one half of Introduce, a message to one of the two. The main
// generation gets its half first: if we are killed before the second one, it
// knows a drainer that does not know it, and that ends because we are gone. The
// other way round there would be a drainer that nobody knows.
type acquaint struct {
	machine.Effect
	to, with int
}

// stepFunc is machine.Step, or a mutant of it.
type stepFunc func(machine.State, machine.Event) (machine.State, []machine.Effect)

// memory calls a stepFunc once for each pair of a state and an event, and gives
// the states numbers: they have slices and could not be compared.
type memory struct {
	step    stepFunc
	states  []machine.State
	ids     map[string]stateID
	answers map[question]answer
}

type (
	stateID  int32
	question struct {
		state stateID
		event machine.Event
	}
	answer struct {
		next    stateID
		effects []machine.Effect
	}
)

func newMemory(step stepFunc) memory {
	m := memory{step: step, ids: make(map[string]stateID), answers: make(map[question]answer)}
	m.id(machine.State{}) // 0, of a generation that has no machine
	return m
}

func (m *memory) id(s machine.State) stateID {
	key := fmt.Sprint(s)
	id, ok := m.ids[key]
	if !ok {
		id = stateID(len(m.states))
		m.ids[key] = id
		m.states = append(m.states, s)
	}
	return id
}

func (m *memory) ask(s stateID, e machine.Event) answer {
	q := question{s, e}
	a, ok := m.answers[q]
	if !ok {
		next, effects := m.step(m.states[s], e)
		a.next = m.id(next)
		for _, e := range effects {
			if i, ok := e.(machine.Introduce); ok {
				a.effects = append(a.effects, acquaint{to: i.Main, with: i.Drainer}, acquaint{to: i.Drainer, with: i.Main})
				continue
			}
			a.effects = append(a.effects, e)
		}
		m.answers[q] = a
	}
	return a
}
