package machine

import "slices"

// upgrade starts one, or says why not.
func (t *transition) upgrade(stage bool) {
	refuse := func(o Outcome) { t.do(Report{Outcome: o}) }
	switch {
	case t.Stopping:
		refuse(Terminating)
	case t.Life == Starting, t.Life == Waiting:
		refuse(NotServing)
	case !t.Main:
		refuse(NotMain)
	case t.Candidate.Phase != None:
		refuse(InProgress)
	case t.Held: // a new generation would open the door
		refuse(Held)
	case t.Refuse && len(t.Drainers)+1 > t.MaxDraining: // with us
		refuse(Crowded)
	default:
		t.Candidate = Candidate{Number: t.Next, Phase: Preflight, Stage: stage}
		t.Next++ // a candidate that fails keeps its number
		t.tellNumbers()
		for _, d := range t.Drainers {
			if d > t.Number && !slices.Contains(t.Hurried, d) {
				// It was rolled back, and is our child: we can have one only.
				t.Hurried = append(t.Hurried, d)
				t.do(TellHurry{d})
			}
		}
		t.do(Arm{ReadyTimer}, Arm{RequestTimer}, Check{})
	}
}

// candidate is the good path, and its forks.
func (t *transition) candidate(event Event) {
	c := &t.Candidate
	switch e := event.(type) {
	case Checked:
		switch {
		case c.Phase != Preflight:
		case c.Doom != Undecided:
			t.end()
		case !e.OK:
			t.doom(Failed)
			t.end()
		default:
			c.Phase = Spawning
			t.do(Spawn{c.Number})
		}
	case Spawned:
		switch {
		case c.Phase != Spawning:
		case !e.OK:
			t.doom(Failed)
			t.end()
		case c.Doom != Undecided: // it came to life after we had given up
			t.kill()
		default:
			c.Phase = Greeting
		}
	case Greeted:
		switch {
		case c.Phase != Greeting:
		case !e.OK:
			t.doom(Failed)
			t.kill()
		default:
			c.Phase = Preparing
		}
	case CandidateReady:
		switch {
		case c.Phase != Preparing:
		case e.Late: // now it can be killed and nobody is hurt; later not
			t.doom(TimedOut)
			t.kill()
		case c.Stage:
			c.Phase = Staging
			t.cover(true)
			t.do(Disarm{ReadyTimer}, Disarm{RequestTimer}, Arm{OpenTimer}, TellStage{c.Number})
		default:
			c.Phase, c.Served = Opening, true
			t.cover(true)
			t.do(Disarm{ReadyTimer}, Disarm{RequestTimer}, Arm{OpenTimer}, TellServe{c.Number})
		}
	case CandidateStaged:
		if c.Phase == Staging {
			c.Phase = OnStage
			t.do(Disarm{OpenTimer}, Arm{StageTimer}, Share{})
		}
	case CandidateServing:
		if c.Phase == Opening && t.Life == Serving {
			c.Phase = Probation
			t.Life = Parked
			t.do(Disarm{OpenTimer}, CloseGate{})
			if !c.Manual {
				t.do(Arm{ProbationTimer})
			}
		}
	case Notified:
		t.notified(e)
	}
}

// notified is systemd's word on who is main.
func (t *transition) notified(e Notified) {
	c := &t.Candidate
	switch {
	case c.Phase == Restoring && e.Number == t.Number:
		t.end()
	case e.Number != c.Number: // late, from when our predecessor died
	case c.Phase == Notifying && e.Gone:
		t.candidateGone()
		t.restore()
	case c.Phase == Notifying && !e.OK:
		t.doom(Unnotified)
		t.kill() // first: two shall not serve by accident
		t.fallBack()
	case c.Phase == Notifying:
		t.confirm()
	case c.Phase == Reclaiming:
		t.restore()
	}
}

// restore has systemd understand that we are main, whatever it understood
// before.
func (t *transition) restore() {
	t.Candidate.Phase = Restoring
	t.do(NotifyMain{t.Number})
}

// confirm is the moment in which the main generation changes.
func (t *transition) confirm() {
	next, stopped, outcome := t.Candidate.Number, t.Candidate.Stopped, Confirmed
	t.do(Yield{})
	for _, d := range t.Drainers {
		t.do(Introduce{Drainer: d, Main: next})
	}
	t.do(TellPromoted{next})
	if stopped { // a SIGTERM to what is now main: the service stops
		outcome = Stopped
		t.do(TellStopping{})
	} else {
		t.hurryOldest(1) // with us
	}
	t.do(Report{outcome, Notifying, next})
	t.Main, t.Life, t.Lead, t.Heir, t.Candidate = false, Draining, next, next, Candidate{}
	t.Stopping = stopped
	t.do(Drain{Stop: stopped})
}

// hurryOldest makes room: with so many more there may be too many drainers. There
// are not, where such an upgrade is refused: nobody else becomes a drainer during
// an upgrade.
func (t *transition) hurryOldest(more int) {
	for _, d := range t.Drainers {
		if len(t.Drainers)+more-len(t.Hurried) <= t.MaxDraining {
			return
		}
		if !slices.Contains(t.Hurried, d) {
			t.Hurried = append(t.Hurried, d)
			t.do(TellHurry{d})
		}
	}
}

func (t *transition) fired(timer Timer) {
	c := &t.Candidate
	switch {
	case (timer == ReadyTimer || timer == RequestTimer) && c.Phase >= Preflight && c.Phase <= Preparing,
		timer == OpenTimer && (c.Phase == Staging || c.Phase == Opening):
		if c.Doom != Undecided {
			return
		}
		t.doom(TimedOut)
		if c.Phase <= Spawning {
			t.do(Cancel{}, Arm{KillTimer}) // Checked or Spawned follows
			return
		}
		t.kill()
	case timer == ProbationTimer:
		t.endProbation()
	case timer == StageTimer && c.Phase == OnStage:
		t.rollBack()
	case timer == RetireTimer && t.Retiring != 0: // it does not hear
		t.do(Kill{t.Retiring})
		t.Retiring = 0
	case timer == GoodbyeTimer && c.Phase == Dying:
		t.kill()
	case timer == KillTimer && c.Doom != Undecided && !c.Told:
		// It does not end, in an uninterruptible system call perhaps. Who asked
		// is told now; the next upgrade has to wait for its end.
		c.Told = true
		t.do(Report{c.Doom, c.At, c.Number})
	}
}

// candidateStopping: it got a SIGTERM. If the whole service is being stopped,
// ours is on its way; if not, it did not succeed us.
func (t *transition) candidateStopping() {
	c := &t.Candidate
	if c.Stopped {
		return
	}
	c.Stopped = true
	switch c.Phase {
	case Greeting, Preparing, Staging: // it has accepted nothing
		t.doom(Failed)
		t.kill()
	case OnStage, Opening, Probation: // it says goodbye to its clients
		t.doom(Failed)
		if c.Phase == OnStage {
			t.do(EndShare{})
		}
		c.Phase = Dying
		t.cover(false)
		t.disarm()
		t.do(Arm{GoodbyeTimer})
		t.fallBack()
	}
}

func (t *transition) candidateGone() {
	c := &t.Candidate
	switch c.Phase {
	case OnStage:
		t.do(EndShare{})
		fallthrough
	case Greeting, Preparing, Staging, Opening:
		t.doom(Failed)
		t.end()
	case Probation:
		t.doom(FellBack)
		t.fallBack()
		t.end()
	case Notifying:
		t.doom(FellBack)
		t.fallBack()
		t.cover(false)
		c.Phase = Reclaiming // systemd may have been told; wait for its word
	case Dying:
		t.end()
	}
}

// fallBack makes a parked generation accept again.
func (t *transition) fallBack() {
	if t.Life == Parked {
		t.Life = Serving
		t.do(OpenGate{})
	}
}

// doom decides that the candidate will not succeed; the first reason counts.
func (t *transition) doom(o Outcome) {
	c := &t.Candidate
	if c.Doom == Undecided {
		c.Doom, c.At = o, c.Phase
	}
}

// kill fences the candidate off and awaits its end.
func (t *transition) kill() {
	c := &t.Candidate
	c.Phase = Dying
	t.disarm()
	t.do(Kill{c.Number}, Arm{KillTimer})
	t.cover(false)
}

// end is the end of an upgrade that did not succeed.
func (t *transition) end() {
	t.cover(false)
	c := t.Candidate
	t.Candidate = Candidate{}
	t.disarm()
	t.do(Disarm{GoodbyeTimer}, Disarm{KillTimer})
	if !c.Told {
		t.do(Report{c.Doom, c.At, c.Number})
	}
}

// disarm stops the timers that could end an upgrade.
func (t *transition) disarm() {
	t.do(Disarm{ReadyTimer}, Disarm{RequestTimer}, Disarm{OpenTimer}, Disarm{StageTimer}, Disarm{ProbationTimer})
}
