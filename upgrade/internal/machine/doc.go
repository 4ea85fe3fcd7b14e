// Package machine is the state machine of one generation: what it does next
// when its successor gets ready, dies or hangs, when it is told to stop, when
// its predecessor hands over.
//
// It is pure. [Step] takes a state and an event and returns the next state and
// the effects to execute, in order; it has no clock, no goroutine, no process
// and no import. Timers are effects ([Arm]) and events ([Fired]). The driver in
// package upgrade executes the effects and turns what happens into events. That
// is why every interleaving of events for a few generations can be, and is,
// checked against the promises of the project in this package's tests.
//
// # The life of a generation
//
//	          Ready                Serve               candidate Serving
//	Starting ───────► Waiting ───────────► Serving ◄──────────────────► Parked
//	    │                │                  ▲ │ ▲  candidate gone, hung,    │
//	    │                │ Stage      Serve │ │ │  or rolled back           │
//	    │                └──────► Staged ───┘ │ │ successor gone, or hung   │
//	    │                           │         │ └─────────────┐             │
//	    │   (the first generation   │         │ stop, Retire  │      told systemd,
//	    └── of a service skips      │ stop,   ▼               │             │
//	        Waiting) ──► Serving    └────► Draining ──────────┘ ◄───────────┘
//	                         Retire           │
//	                                          ▼ drained, or abandoned
//	                                        Exited
//
// A generation is main when it talks to systemd, starts upgrades and answers on
// the control socket. The first generation is main from its start, a successor
// from the moment in which its predecessor has told systemd, and a generation that
// drains from the moment in which it takes over from its successor again.
//
// While the main generation serves, an operator may close its door (Hold) and open
// it again (Release). It stays Serving, and says goodbye to its clients. It is
// upgraded only after the release; a stop ends both.
//
// # The life of a candidate, as its predecessor sees it
//
//	Preflight ─► Spawning ─► Greeting ─► Preparing ─────────────► Opening ─► Probation ─► Notifying ─► (successor)
//	     │           │           │           │                     ▲ │           │            │
//	     │           │           │           └► Staging ─► OnStage ┘ │           │            │
//	     │           │           │                 │          │      │           │            │
//	     └───────────┴───────────┴── failed ───────┴──────────┴──────┴───────────┴────────────┘
//	     └───────────┴───────────┴── rolled back ──┘          └──────┴───────────┴─► (drainer)
//
// Until Opening, or OnStage, the candidate has no clients, and killing it costs
// nothing. At Opening it is told to accept, and from then on only its own death,
// or its own silence, can fail the upgrade: a deadline cannot. If it dies at
// Notifying, systemd may have been told of it; it is told better before the
// failure is reported (Reclaiming, Restoring).
//
// A staged upgrade stays OnStage, where the candidate gets a share of the new
// connections from us and accepts none itself, until it is promoted, rolled back, or
// the StageTimer has fired. Until Notifying an operator may roll any upgrade back. Who
// may have clients by then is told to retire: it drains as a drainer of ours, with a
// number higher than our own, and the next upgrade, which has to wait for its end,
// hurries it.
//
// # The fall back after the confirm
//
// While a generation drains it is the reserve of its successor. If that dies, or is
// found to hang and is killed, it ends its drain, serves again, and is main. Only the
// parent of main does so; older ones that drain follow it. Where it has ended, or
// cannot take its drain back, the others end, and systemd starts the service again. A
// SIGTERM is never answered by a fall back: whoever hears of one tells the others before
// anything else.
//
//	1 drains ── 2 drains ── 3 is main        3 dies: 2 serves again, 1 drains on and follows 2
//	1 drains ── 2 has ended, 3 is main       3 dies: 1 ends, and systemd starts the service again
//	1 drains ── 2 is main, 3 is on stage     2 dies: 3 serves and is main, 1 ends
//
// For that main tells the drainers (TellNumbers) which numbers it has used, since no
// two generations have the same one, and whether its candidate takes its place if it
// dies: the two do not know each other, and must not both do so.
package machine
