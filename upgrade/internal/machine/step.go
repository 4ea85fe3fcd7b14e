package machine

import "slices"

// Step returns the state after event and the effects to execute, in order. An
// event that means nothing in a state changes nothing.
func Step(s State, event Event) (State, []Effect) {
	t := transition{State: s}
	// The slices are shared with the caller's state until one is changed.
	t.Drainers = slices.Clone(s.Drainers)
	t.Hurried = slices.Clone(s.Hurried)
	if s.Life != Exited {
		t.step(event)
	}
	return t.State, t.effects
}

// transition is a state on its way to the next one.
type transition struct {
	State
	effects []Effect
}

func (t *transition) do(e ...Effect) { t.effects = append(t.effects, e...) }

func (t *transition) step(event Event) {
	switch e := event.(type) {
	case Ready:
		t.ready()
	case Stop:
		t.stop(true)
	case Upgrade:
		t.upgrade(e.Stage)
	case Promote:
		t.promote(e.Manual)
	case Confirm:
		t.endProbation()
	case Rollback:
		t.rollBack()
	case Hold:
		t.hold()
	case Release:
		t.release()
	case Drained:
		if t.Life == Draining {
			t.exit(Exit{})
		}
	case Fired:
		t.fired(e.Timer)
	case Checked, Spawned, Greeted, CandidateReady, CandidateStaged, CandidateServing, Notified:
		t.candidate(event)
	case PeerStopping:
		t.peerStopping(e.Number)
	case PeerGone:
		t.peerGone(e)
	case Hung:
		t.hung(e)
	case Retired:
		t.retired(e.Number)
	case Numbered:
		t.numbered(e)
	case StageNow:
		if t.Life == Waiting {
			t.Life = Staged
			t.do(TellStaged{})
		}
	case ServeNow:
		if t.Life == Waiting || t.Life == Staged {
			t.Life = Serving
			t.do(OpenGate{}, TellServing{})
		}
	case Retire:
		t.retire()
	case Promoted:
		t.promoted()
	case Met:
		t.met(e.Number)
	case Hurried:
		if t.Life == Draining {
			t.do(Hasten{})
		}
	}
}

func (t *transition) ready() {
	if t.Life != Starting {
		return
	}
	if t.Successor {
		t.Life = Waiting
		t.do(TellReady{})
		return
	}
	t.Life = Serving
	// The gate first: who is told that we are ready may connect at once.
	t.do(OpenGate{}, NotifyReady{})
}

// hold closes the door because an operator wants it. An upgrade that runs is not
// disturbed: in the middle of one it is not we who decide which door is open.
func (t *transition) hold() {
	if t.Life != Serving || !t.Main || t.Stopping || t.Held || t.Candidate.Phase != None {
		return
	}
	t.Held = true
	// The gate first: who comes in shall not be shown out.
	t.do(CloseGate{}, HoldDrain{})
}

// release opens the door that hold has closed.
func (t *transition) release() {
	if !t.Held {
		return
	}
	t.Held = false
	t.do(EndHold{}, OpenGate{})
}

// promoted is the end of our probation.
func (t *transition) promoted() {
	if !t.Successor || t.Main {
		return
	}
	switch t.Life {
	case Serving:
		t.lead()
	case Draining: // our SIGTERM crossed the promotion: the stop is main's now
		t.lead()
		t.do(NotifyStopping{})
	}
}

// lead makes us main; our predecessor becomes a drainer.
func (t *transition) lead() {
	t.Main = true
	t.Drainers = append(t.Drainers, t.Lead)
	t.Lead = 0
	t.do(Lead{})
}

// met is the introduction of a drainer to main, or of main to a drainer.
func (t *transition) met(number int) {
	switch {
	case t.Life == Draining && !t.Main && number > t.Number:
		// Who introduces it is who has handed over to it, and was our lead.
		t.Lead, t.Reserve, t.Covered = number, t.Lead, false
	case t.Life != Draining && number < t.Number && !slices.Contains(t.Drainers, number):
		t.Drainers = append(t.Drainers, number)
		slices.Sort(t.Drainers)
	}
	if t.Stopping { // it may not have heard
		t.do(TellStopping{})
	}
}

// stop ends the service. own: we got the SIGTERM ourselves, or what amounts to
// it; otherwise the main generation, or our predecessor, told us that it did.
func (t *transition) stop(own bool) {
	if t.Stopping {
		return
	}
	t.Stopping = true
	t.Held = false // the hold's drain becomes the stop's
	// Before anything else: a death that follows is a stop, not a failure. A drainer
	// passes it on to those whose reserve it is.
	if own || t.Life == Draining {
		t.do(TellStopping{})
	}
	switch t.Life {
	case Starting, Waiting: // we have accepted nothing
		t.exit(Exit{Orphaned: !own})
		return
	}
	if t.Main {
		t.do(NotifyStopping{})
		t.abandonCandidate()
	}
	if t.Life == Serving {
		t.do(CloseGate{})
	}
	t.Life = Draining
	t.do(Drain{Stop: true})
}

// abandonCandidate ends an upgrade because of a stop. A candidate that has not
// been told to accept is killed, any other one has been told that we stop.
func (t *transition) abandonCandidate() {
	c := &t.Candidate
	switch c.Phase {
	case None:
		return
	case Preflight, Spawning:
		if c.Doom == Undecided { // otherwise that was done
			t.do(Cancel{})
		}
	case Greeting, Preparing, Staging:
		t.do(Kill{c.Number})
	case OnStage:
		t.do(EndShare{})
	}
	t.disarm()
	t.doom(Stopped)
	c.Doom = Stopped // whatever it was doomed for: who asked shall not believe that we go on
	if !c.Told {
		t.do(Report{c.Doom, c.At, c.Number})
	}
	c.Told = true
	if c.Phase > Spawning {
		c.Phase = Dying
	}
}

func (t *transition) peerStopping(number int) {
	switch {
	case number == t.Candidate.Number && t.Candidate.Phase != None:
		t.candidateStopping()
	case number == t.Lead && t.Lead != 0: // the main one, or our predecessor
		t.stop(false)
	case number == t.Reserve: // it will not take over
		t.Reserve = 0
	}
}

func (t *transition) peerGone(e PeerGone) {
	number := e.Number
	if number == t.Retiring {
		t.retired(number)
	}
	switch {
	case number == t.Candidate.Number && t.Candidate.Phase != None:
		t.candidateGone()
	case number == t.Lead && t.Lead != 0:
		t.leadGone(e.TooLate)
	case number == t.Reserve && t.Reserve != 0:
		t.Reserve = 0
	case slices.Contains(t.Drainers, number):
		is := func(n int) bool { return n == number }
		t.Drainers = slices.DeleteFunc(t.Drainers, is)
		t.Hurried = slices.DeleteFunc(t.Hurried, is)
	}
}

// leadGone is the death of the generation that leads: our predecessor while we
// are young, our successor while we drain.
func (t *transition) leadGone(tooLate bool) {
	switch {
	case t.Stopping: // a death close to a stop is a stop
	case t.Life == Starting, t.Life == Waiting:
		t.exit(Exit{Orphaned: true})
	case t.Life == Serving, t.Life == Staged:
		// It died in our probation, or while we had a share of its work. If systemd
		// watched it, and does not hear of us before it hears of that death, it ends
		// us all and starts again; otherwise the service goes on.
		if t.Life == Staged {
			t.Life = Serving
			t.do(OpenGate{})
		}
		t.Lead = 0
		t.Main = true
		t.do(Lead{}, NotifyMain{t.Number})
	case t.Life == Draining:
		t.leadGoneInDrain(tooLate)
	}
}

func (t *transition) exit(e Exit) {
	t.Life = Exited
	t.do(e)
}
