package machine

// Event is something that happened to a generation.
type Event interface{ event() }

// What the service and its operators do.
type (
	// Ready: the service says that it can serve.
	Ready struct{}
	// Stop: SIGTERM, or the equivalent.
	Stop struct{}
	// Upgrade: somebody asks for an upgrade. Stage: the new generation gets a share
	// of the connections first.
	Upgrade struct{ Stage bool }
	// Promote: who is on stage shall get everything. Manual: its probation ends with
	// Confirm, or with a Rollback.
	Promote struct{ Manual bool }
	// Confirm: the probation of the candidate shall end now.
	Confirm struct{}
	// Rollback: the upgrade in progress shall end, and we go on.
	Rollback struct{}
	// Hold: an operator wants the door closed, without an upgrade. Who asked sees
	// in State.Held whether it is.
	Hold struct{}
	// Release: the operator wants it open again.
	Release struct{}
	// Drained: a drain that was asked for by the effect Drain has ended. The end
	// of a HoldDrain is no event; as one it means nothing.
	Drained struct{}
	// Fired: a timer that was armed has run out.
	Fired struct{ Timer Timer }
)

// What becomes of the candidate.
type (
	// Checked: the preflight has ended.
	Checked struct{ OK bool }
	// Spawned: the candidate's process runs, or could not be started.
	Spawned struct{ OK bool }
	// Greeted: the candidate said hello, and it can be talked to or not.
	Greeted struct{ OK bool }
	// CandidateReady: the candidate can serve. Late: too late for the deadline
	// of the request, once probation is added.
	CandidateReady struct{ Late bool }
	// CandidateStaged: the candidate takes what we pass on to it.
	CandidateStaged struct{}
	// CandidateServing: the candidate accepts.
	CandidateServing struct{}
	// Notified: the answer to NotifyMain. OK: systemd has taken note, otherwise
	// it could not be told. Gone: the process of that generation had ended by
	// then, so that systemd may not have believed it; its PeerGone comes, too.
	Notified struct {
		Number   int
		OK, Gone bool
	}
)

// What other generations do. All that a generation sent comes before its Gone.
type (
	// PeerStopping: a generation was told to stop.
	PeerStopping struct{ Number int }
	// PeerGone: the process of a generation has ended. TooLate: our drain cannot be
	// taken back any more.
	PeerGone struct {
		Number  int
		TooLate bool
	}
	// Hung: the process of a generation lives, but does not work. It is told after all
	// that it said before. TooLate as in PeerGone.
	Hung struct {
		Number  int
		TooLate bool
	}
	// Retired: a candidate that was rolled back drains.
	Retired struct{ Number int }
	// Numbered: what a drainer has to know to take the place of main, which is the
	// generation Number. It has used the numbers below Next, or is about to. Covered:
	// if it dies, a candidate takes its place, and nobody else.
	Numbered struct {
		Number, Next int
		Covered      bool
	}
	// StageNow: the predecessor is going to pass connections on to us.
	StageNow struct{}
	// ServeNow: the predecessor says that we may accept.
	ServeNow struct{}
	// Retire: the predecessor goes on, and we are to drain.
	Retire struct{}
	// Promoted: the predecessor has told systemd that we are main.
	Promoted struct{}
	// Met: the predecessor introduces another generation: to the main one a
	// drainer, to a drainer the new main one.
	Met struct{ Number int }
	// Hurried: main wants us to end our drain soon.
	Hurried struct{}
)

func (Ready) event()            {}
func (Stop) event()             {}
func (Upgrade) event()          {}
func (Promote) event()          {}
func (Confirm) event()          {}
func (Rollback) event()         {}
func (Hold) event()             {}
func (Release) event()          {}
func (Drained) event()          {}
func (Fired) event()            {}
func (Checked) event()          {}
func (Spawned) event()          {}
func (Greeted) event()          {}
func (CandidateReady) event()   {}
func (CandidateStaged) event()  {}
func (CandidateServing) event() {}
func (Notified) event()         {}
func (PeerStopping) event()     {}
func (PeerGone) event()         {}
func (Hung) event()             {}
func (Retired) event()          {}
func (Numbered) event()         {}
func (StageNow) event()         {}
func (ServeNow) event()         {}
func (Retire) event()           {}
func (Promoted) event()         {}
func (Met) event()              {}
func (Hurried) event()          {}
