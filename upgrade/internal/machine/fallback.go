package machine

// How the service comes back from a successor that has failed after its confirm,
// and from one that an operator does not want.

// leadGoneInDrain is the death of the main generation while we drain. Who has
// handed over to it takes over again, and nobody else: only that one is its parent,
// so only where that one lives does systemd not notice the death, and end us all.
// Where main has a candidate that serves, that one goes on: it does not know us. And
// who is to take over, and dies before it has, was not main: systemd may know by now
// that main is dead, which one cannot tell from a stop.
func (t *transition) leadGoneInDrain(tooLate bool) {
	switch {
	case t.Covered:
		t.exit(Exit{Abandoned: true})
	case t.Reserve != 0:
		t.Lead, t.Reserve, t.Covered = t.Reserve, 0, true
	case t.Lead == t.Heir && !tooLate:
		t.takeBack()
	default:
		t.exit(Exit{Abandoned: true})
	}
}

// cover tells the drainers that the candidate takes our place if we die, or that it
// does not: before it can, and once it cannot any more.
func (t *transition) cover(yes bool) {
	if t.Candidate.Covers != yes {
		t.Candidate.Covers = yes
		t.tellNumbers()
	}
}

// tellNumbers tells the drainers, each of which may be the one that goes on if we
// die.
func (t *transition) tellNumbers() {
	for _, d := range t.Drainers {
		t.do(TellNumbers{Number: d, Next: t.Next, Covered: t.Candidate.Covers})
	}
}

// numbered is the word of the main generation to a drainer. It is the first one of a
// generation that has taken over again.
func (t *transition) numbered(e Numbered) {
	t.Next = max(t.Next, e.Next)
	if e.Number == t.Reserve && t.Reserve != 0 {
		t.Lead, t.Reserve = t.Reserve, 0
	}
	if e.Number == t.Lead && t.Life == Draining {
		t.Covered = e.Covered
	}
}

// takeBack makes us serve again in the middle of our drain.
func (t *transition) takeBack() {
	gone := t.Lead
	t.Life, t.Main, t.Lead, t.Heir = Serving, true, 0, 0
	t.do(TakeBack{gone}, OpenGate{}, Lead{}, NotifyMain{t.Number})
	t.tellNumbers()
}

// hung is a process that lives, but does not work. It is fenced off before
// anybody takes its place: two shall not serve by accident.
func (t *transition) hung(e Hung) {
	c := &t.Candidate
	switch {
	case t.Stopping: // an end has been decided on already
	case e.Number == c.Number && c.Phase == OnStage:
		t.do(EndShare{})
		t.doom(Failed)
		t.kill()
	case e.Number == c.Number && c.Phase == Probation:
		t.doom(FellBack)
		t.kill()
		t.fallBack()
	case e.Number == c.Number && c.Phase == Notifying:
		t.do(Kill{c.Number})
		t.candidateGone()
	case t.Life == Draining && e.Number == t.Lead && e.Number == t.Heir && t.Covered:
		t.do(Kill{e.Number}) // its candidate takes over
	case t.Life == Draining && e.Number == t.Lead && e.Number == t.Heir && !e.TooLate:
		t.do(Kill{e.Number})
		t.takeBack()
	}
}

// promote gives everything to the candidate that is on stage.
func (t *transition) promote(manual bool) {
	c := &t.Candidate
	if c.Phase != OnStage || t.Stopping {
		return
	}
	c.Phase, c.Served, c.Manual = Opening, true, manual
	t.do(EndShare{}, Disarm{StageTimer}, Arm{OpenTimer}, TellServe{c.Number})
}

// endProbation has systemd told that the candidate is main.
func (t *transition) endProbation() {
	if c := &t.Candidate; c.Phase == Probation && !c.Stopped {
		c.Phase = Notifying
		t.do(NotifyMain{c.Number})
	}
}

// rollBack ends the upgrade in progress, while it is ours to end. A candidate that
// may have clients finishes with them, as a drainer.
func (t *transition) rollBack() {
	c := &t.Candidate
	if t.Stopping || c.Doom != Undecided {
		return
	}
	switch c.Phase {
	case Preflight, Spawning:
		t.doom(RolledBack)
		t.do(Cancel{}, Arm{KillTimer}) // Checked or Spawned follows
	case Greeting, Preparing, Staging:
		t.doom(RolledBack)
		t.kill()
	case OnStage, Opening, Probation:
		t.doom(RolledBack)
		if c.Phase == OnStage {
			t.do(EndShare{})
		}
		t.fallBack() // for a moment both accept, and both are well
		t.do(TellRetire{c.Number}, Arm{RetireTimer})
		t.cover(false)
		t.Drainers = append(t.Drainers, c.Number)
		t.Retiring = c.Number
		t.hurryOldest(0)
		t.end()
	}
}

// retire is what rollBack is for the candidate.
func (t *transition) retire() {
	if t.Main || t.Stopping {
		return
	}
	switch t.Life {
	case Starting, Waiting:
		t.exit(Exit{Orphaned: true})
	case Serving:
		t.do(CloseGate{})
		fallthrough
	case Staged:
		t.Life = Draining
		t.do(Drain{})
	}
}

// retired is the word of a candidate that was rolled back, or its end.
func (t *transition) retired(number int) {
	if t.Retiring == number {
		t.Retiring = 0
		t.do(Disarm{RetireTimer})
	}
}
