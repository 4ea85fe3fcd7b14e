package machine

// Life is where a generation is in its life.
type Life uint8

// The life of a generation.
const (
	Starting Life = iota // not ready
	Waiting              // ready, waits for the predecessor's word to accept
	Staged               // serves what its predecessor passes on to it, accepts nothing by itself
	Serving              // accepts
	Parked               // a successor is on probation; accepts nothing
	Draining             // finishes what is open
	Exited               // over
)

var lifeNames = [...]string{"starting", "waiting", "staged", "serving", "parked", "draining", "exited"}

func (l Life) String() string { return lifeNames[l] }

// Phase is how far a candidate has come.
type Phase uint8

// The phases of a candidate.
const (
	None       Phase = iota
	Preflight        // its file is being checked
	Spawning         // its process is being started
	Greeting         // it runs; its hello is awaited
	Preparing        // it said hello; its ready is awaited
	Staging          // it was told to take its share; its word that it does is awaited
	OnStage          // we pass a share of the new connections on to it
	Opening          // it was told to accept; its word that it does is awaited
	Probation        // it accepts, we are parked
	Notifying        // systemd is being told that it is the main process
	Reclaiming       // it died while systemd was being told; systemd's word is awaited
	Restoring        // systemd is being told that we are, after all
	Dying            // it was killed, or is stopping; its end is awaited
)

var phaseNames = [...]string{"none", "preflight", "spawning", "greeting", "preparing", "staging", "on stage", "opening", "probation", "notifying", "reclaiming", "restoring", "dying"}

func (p Phase) String() string { return phaseNames[p] }

// Outcome is how an upgrade ended.
type Outcome uint8

// The outcomes of an upgrade.
const (
	Undecided   Outcome = iota
	Confirmed           // the candidate is main now
	Failed              // it exited, could not be started, or refused
	TimedOut            // a deadline passed; it was killed
	FellBack            // it had taken over and is gone; we serve again
	Stopped             // the service was told to stop meanwhile
	InProgress          // refused: another upgrade runs
	NotServing          // refused: we are not ready
	NotMain             // refused: another generation is main
	Terminating         // refused: we are stopping
	Unnotified          // systemd could not be told; we serve on
	Crowded             // refused: too many generations drain
	Held                // refused: an operator has closed the door
	RolledBack          // an operator, a time limit or a verdict was against it; it drains
)

var outcomeNames = [...]string{"undecided", "confirmed", "failed", "timed-out", "fell-back", "stopped", "in-progress", "not-serving", "not-main", "terminating", "unnotified", "crowded", "held", "rolled-back"}

func (o Outcome) String() string { return outcomeNames[o] }

// Candidate is the generation that is to succeed us.
type Candidate struct {
	Number  int
	Phase   Phase
	Doom    Outcome // why it will not succeed, once that is known
	At      Phase   // the phase in which it was doomed
	Stage   bool    // it gets a share before it gets all
	Manual  bool    // its probation has no end by itself
	Served  bool    // it was told to accept
	Covers  bool    // it takes our place if we die, and the drainers know
	Stopped bool    // it said that it is stopping
	Told    bool    // the result of the upgrade has been told already
}

// Limits bound the number of generations.
type Limits struct {
	// MaxDraining is how many generations may drain at leisure.
	MaxDraining int
	// Refuse: an upgrade after which more would drain is refused as Crowded.
	// Otherwise the oldest is hurried once the upgrade is confirmed.
	Refuse bool
}

// State is one generation's view of the service. Treat it as a value: Step
// never changes the one it is given.
type State struct {
	Number    int
	Life      Life
	Successor bool // it was started by a predecessor
	Main      bool
	Stopping  bool // told to stop; nothing turns this back
	Held      bool // we are main and Serving, and an operator has closed the door
	Next      int  // the number for the next candidate
	Candidate Candidate
	// Lead is the number of the main generation while we drain, and of our
	// predecessor while we are young.
	Lead int
	// Heir is the generation that we have handed over to: if it is Lead, its death
	// makes us serve again. Reserve is the generation that would do so if it is not
	// us: the one that has handed over to Lead.
	Heir, Reserve int
	// Covered: while we drain, it is not for us to take the place of Lead if it dies: it
	// has a candidate that does, or was to take over itself and has not said that it has.
	Covered bool
	// Retiring is a candidate that was rolled back and has not said yet that it
	// drains.
	Retiring int
	// Drainers are the generations that drain, oldest first, as main knows them;
	// Hurried are those of them that were told to hurry.
	Drainers, Hurried []int
	Limits
}

// First is the state of the first generation of a service. It is main from its
// start, so that it can be asked how it is doing.
func First(limits Limits) State {
	return State{Number: 1, Main: true, Next: 2, Limits: limits}
}

// Succeeding is the state of generation number, started by the generation pred.
func Succeeding(number, pred int, limits Limits) State {
	return State{Number: number, Successor: true, Next: number + 1, Lead: pred, Limits: limits}
}
