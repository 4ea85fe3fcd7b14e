// Package machine is the state machine of one generation: what it does next
// when its successor gets ready, dies or hangs, when it is told to stop, when
// its predecessor hands over.
//
// It is pure. [Step] takes a state and an event and returns the next state and
// the effects to execute, in order; it has no clock, no goroutine, no process
// and no import. Timers are effects ([Arm]) and events ([Fired]). The driver in
// package upgrade executes the effects and turns what happens into events. That
// is why every interleaving of events for three generations can be, and is,
// checked against the promises of the project in this package's tests.
//
// # The life of a generation
//
//	          Ready                Serve               candidate Serving
//	Starting ───────► Waiting ───────────► Serving ◄──────────────────► Parked
//	    │   (the first generation of a        │    candidate gone           │
//	    └── service skips Waiting) ───────────┘                             │
//	                                          │ stop                 told systemd,
//	                                          ▼                             │
//	                      Exited ◄──────── Draining ◄───────────────────────┘
//
// A generation is main when it talks to systemd, starts upgrades and answers on
// the control socket. The first generation is main from its start, a successor
// from the moment in which its predecessor has told systemd.
//
// While the main generation serves, an operator may close its door (Hold) and open
// it again (Release). It stays Serving, and says goodbye to its clients. It is
// upgraded only after the release; a stop ends both.
//
// # The life of a candidate, as its predecessor sees it
//
//	Preflight ─► Spawning ─► Greeting ─► Preparing ─► Opening ─► Probation ─► Notifying ─► (successor)
//	     │           │           │            │           │           │            │
//	     └───────────┴───────────┴────────────┴─ failed ──┴───────────┴────────────┘
//
// Until Opening the candidate has accepted nothing, and killing it costs
// nothing. At Opening it is told to accept, and from then on only its own death,
// or its own silence, can fail the upgrade: a deadline cannot. If it dies at
// Notifying, systemd may have been told of it; it is told better before the
// failure is reported (Reclaiming, Restoring).
package machine
