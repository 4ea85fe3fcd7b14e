package machine

// Timer names a timer.
type Timer uint8

// The timers. How long each runs is the driver's business.
const (
	ReadyTimer     Timer = iota // start to ready
	RequestTimer                // the deadline of the request
	OpenTimer                   // from the word to accept to the answer
	ProbationTimer              // the length of probation
	KillTimer                   // from a Kill or a Cancel to the end of what was killed or cancelled
	GoodbyeTimer                // the stop of a candidate that serves and got a SIGTERM
	StageTimer                  // how long a candidate may be on stage
	RetireTimer                 // from the word to drain to the answer, of a candidate that was rolled back
)

var timerNames = [...]string{"ready", "request", "open", "probation", "kill", "goodbye", "stage", "retire"}

func (t Timer) String() string { return timerNames[t] }

// Effect is something to do. Effects are executed in their order.
type Effect interface{ effect() }

// What we do to ourselves.
type (
	// OpenGate: accept connections.
	OpenGate struct{}
	// CloseGate: accept none, keep the sockets.
	CloseGate struct{}
	// Lead: become main: control socket, watchdog, status.
	Lead struct{}
	// Yield: stop being main.
	Yield struct{}
	// Drain: say goodbye on all connections and answer with Drained when none
	// is left, at the latest at the deadline: the drain timeout, or the stop
	// timeout. A drain that is under way is only ever shortened; a HoldDrain
	// becomes this one.
	Drain struct{ Stop bool }
	// HoldDrain: begin to say goodbye on all connections. There is no deadline
	// and no answer, and it does not end us.
	HoldDrain struct{}
	// EndHold: end the HoldDrain. What was said goodbye to stays so; nobody else
	// is said goodbye to.
	EndHold struct{}
	// Hasten: shorten our drain, because main wants it.
	Hasten struct{}
	// TakeBack: end our drain as EndHold does, because the generation that we have
	// handed over to is gone, and tell of it.
	TakeBack struct{ Number int }
	// Share: begin to pass connections on to the candidate. EndShare: pass no more.
	Share    struct{}
	EndShare struct{}
	// Exit: this generation is over. Abandoned: its successor died; what is
	// open is cut, so that systemd can start the service again. Orphaned: its
	// predecessor is gone, or gave up, before it could serve.
	Exit struct{ Abandoned, Orphaned bool }
	// Arm and Disarm: timers.
	Arm    struct{ Timer Timer }
	Disarm struct{ Timer Timer }
)

// What we tell systemd.
type (
	// NotifyReady: READY=1, of the first generation.
	NotifyReady struct{}
	// NotifyMain: MAINPID= of the generation and READY=1, then a barrier.
	// Answered with Notified; several are answered in their order.
	NotifyMain struct{ Number int }
	// NotifyStopping: STOPPING=1.
	NotifyStopping struct{}
)

// What we do with other generations.
type (
	// Check: see whether the candidate's file can be run. Answered with Checked.
	Check struct{}
	// Spawn: start the candidate. Answered with Spawned.
	Spawn struct{ Number int }
	// Cancel: give up a running Check or Spawn. It is answered all the same.
	Cancel struct{}
	// Kill: SIGKILL to a generation that we have started. Its end is told as
	// PeerGone.
	Kill struct{ Number int }
	// TellReady and TellServing: to the predecessor.
	TellReady   struct{}
	TellServing struct{}
	// TellStaged: to the predecessor.
	TellStaged struct{}
	// TellStage, TellServe, TellRetire and TellPromoted: to the candidate.
	TellStage    struct{ Number int }
	TellServe    struct{ Number int }
	TellRetire   struct{ Number int }
	TellPromoted struct{ Number int }
	// TellStopping: to every generation that we know.
	TellStopping struct{}
	// TellHurry: to a drainer.
	TellHurry struct{ Number int }
	// TellNumbers: to a drainer, who gets it as Numbered.
	TellNumbers struct {
		Number, Next int
		Covered      bool
	}
	// Introduce: give a drainer and the new main generation a link to each
	// other. The main one gets its end first: if we die in between, it knows a
	// drainer that ends because of our death. The other way round there would
	// be a drainer that nobody knows.
	Introduce struct{ Drainer, Main int }
	// Report the outcome of the upgrade request. Each gets one report; Number is
	// 0 if it was refused.
	Report struct {
		Outcome Outcome
		At      Phase
		Number  int
	}
)

func (OpenGate) effect()       {}
func (CloseGate) effect()      {}
func (Lead) effect()           {}
func (Yield) effect()          {}
func (Drain) effect()          {}
func (HoldDrain) effect()      {}
func (EndHold) effect()        {}
func (Hasten) effect()         {}
func (TakeBack) effect()       {}
func (Share) effect()          {}
func (EndShare) effect()       {}
func (Exit) effect()           {}
func (Arm) effect()            {}
func (Disarm) effect()         {}
func (NotifyReady) effect()    {}
func (NotifyMain) effect()     {}
func (NotifyStopping) effect() {}
func (Check) effect()          {}
func (Spawn) effect()          {}
func (Cancel) effect()         {}
func (Kill) effect()           {}
func (TellReady) effect()      {}
func (TellServing) effect()    {}
func (TellStaged) effect()     {}
func (TellStage) effect()      {}
func (TellServe) effect()      {}
func (TellRetire) effect()     {}
func (TellPromoted) effect()   {}
func (TellStopping) effect()   {}
func (TellHurry) effect()      {}
func (TellNumbers) effect()    {}
func (Introduce) effect()      {}
func (Report) effect()         {}
