package control

import (
	"fmt"
	"time"
)

// APIVersion is the version of the control API that this package speaks. Every
// answer of a service carries the version of its own library in
// [Status.APIVersion] and in the header [HeaderAPI].
const APIVersion = 1

// Headers of every answer.
const (
	HeaderAPI     = "Handoff-Api"     // the service's APIVersion, decimal
	HeaderVersion = "Handoff-Version" // version of the library in the service
)

// State is the state of a generation.
type State string

// The states of a generation. The path of a good one is starting, serving,
// parked, draining, exited.
const (
	StateStarting State = "starting" // started, not ready yet
	StateStaged   State = "staged"   // serves the share of new connections that its predecessor passes on to it
	StateServing  State = "serving"  // accepts connections
	StateParked   State = "parked"   // its successor is on probation; accepts nothing, can take over again
	StateDraining State = "draining" // finishes what is open, accepts nothing
	StateExited   State = "exited"   // gone, after a drain
	StateFailed   State = "failed"   // gone, by its own fault
)

// Status is a snapshot of a service: every generation whose process lives, and
// what became of the last upgrade.
type Status struct {
	APIVersion  int          `json:"api_version"`
	Library     string       `json:"library"` // version of the handoff library in the main generation
	Service     string       `json:"service"`
	Main        int          `json:"main"`  // number of the generation that systemd calls main, and that answers here
	State       State        `json:"state"` // of the main generation
	Stopping    bool         `json:"stopping,omitempty"`
	Held        *Hold        `json:"held,omitempty"`          // the door is closed by a drain request
	Paused      *Pause       `json:"paused,omitempty"`        // upgrades are refused
	Invocation  string       `json:"invocation_id,omitempty"` // systemd's id of this start of the service
	Time        time.Time    `json:"time"`                    // when the snapshot was taken, by the service's clock
	Upgrade     *Progress    `json:"upgrade,omitempty"`       // the upgrade in progress
	Previous    *Program     `json:"previous,omitempty"`      // what a rollback would run
	Last        *Record      `json:"last,omitempty"`          // the last upgrade that ended, good or bad, since systemd started the service
	Disk        *Disk        `json:"disk,omitempty"`
	Generations []Generation `json:"generations"` // newest first
	Sockets     []Socket     `json:"sockets"`
	Options     Settings     `json:"options"`
	Warnings    []string     `json:"warnings,omitempty"` // what an operator should know, one sentence each
	Totals      *Totals      `json:"totals,omitempty"`   // what has happened so far; nil of a generation that is not main, or of an older library
}

// Generation is one process of the service.
type Generation struct {
	Number     int       `json:"number"`
	PID        int       `json:"pid"`
	Version    string    `json:"version"`
	State      State     `json:"state"`
	Main       bool      `json:"main,omitempty"`
	Reason     string    `json:"reason,omitempty"`  // why it is in this state, where that needs saying
	Started    time.Time `json:"started"`           // start of the process
	Since      time.Time `json:"since"`             // start of the state
	Deadline   time.Time `json:"deadline,omitzero"` // of a drain: open connections are cut then
	Conns      Counts    `json:"conns"`
	Oldest     time.Time `json:"oldest,omitzero"`        // when the oldest open connection was accepted
	RSS        int64     `json:"rss_bytes,omitempty"`    // resident memory
	Cut        int       `json:"cut,omitempty"`          // connections that a deadline has ended so far, with a goodbye or without
	CutBy      Counts    `json:"cut_by,omitzero"`        // the same by state
	Migrated   int       `json:"migrated,omitempty"`     // connections that it has handed to a later generation
	Adopted    int       `json:"adopted,omitempty"`      // connections that it has got from earlier ones
	Note       string    `json:"note,omitempty"`         // of a drain: why connections stay, where that is not as usual
	ReportAge  float64   `json:"report_age_s,omitempty"` // seconds since a draining generation last reported; counts are as old
	Executable string    `json:"executable,omitempty"`   // what /proc/PID/exe says
	Goroutines int       `json:"goroutines,omitempty"`   // of the main generation
	Health     *Health   `json:"health,omitempty"`       // how it answers requests, while an upgrade is staged
}

// Counts are open connections by state.
type Counts struct {
	Total    int `json:"total"`
	New      int `json:"new"`      // accepted, no request yet
	Active   int `json:"active"`   // in a request
	Idle     int `json:"idle"`     // between two requests
	Stream   int `json:"stream"`   // raw TCP, an endless answer: no end of a request to wait for
	Hijacked int `json:"hijacked"` // taken over from net/http (WebSocket)
}

// States of a connection: [Conn.State].
const (
	ConnNew      = "new"
	ConnActive   = "active"
	ConnIdle     = "idle"
	ConnStream   = "stream"
	ConnHijacked = "hijacked"
)

// Conn is an open connection.
type Conn struct {
	Generation int     `json:"generation"`
	PID        int     `json:"pid"`
	Listener   string  `json:"listener"`        // name of its socket
	Peer       string  `json:"peer"`            // address of the client; empty for most clients of unix sockets
	State      string  `json:"state"`           // new, active, idle, stream, hijacked
	Doing      string  `json:"doing,omitempty"` // method and path of the latest request, or what the service says
	Age        float64 `json:"age_s"`           // seconds since it was accepted, by whichever generation
	Quiet      float64 `json:"quiet_s"`         // seconds since bytes last went over it
	In         int64   `json:"in_bytes"`
	Out        int64   `json:"out_bytes"`
}

// ConnFilter selects connections; its zero value selects all.
type ConnFilter struct {
	Generation int    `json:"generation,omitempty"`
	State      string `json:"state,omitempty"`
	Listener   string `json:"listener,omitempty"`
}

// ConnsEnd is the end of a list of connections.
type ConnsEnd struct {
	Total int `json:"total"` // how many were listed
	// Missing are generations whose connections are not in the list, with the
	// reason.
	Missing []MissingConns `json:"missing,omitempty"`
}

// MissingConns is a generation that did not list its connections.
type MissingConns struct {
	Generation int    `json:"generation"`
	Reason     string `json:"reason"`
}

// Hold is a door that was closed by a [DrainRequest]: the generation finishes what
// is open and accepts nothing, but does not end; who connects waits.
type Hold struct {
	Since   time.Time `json:"since"`
	Trigger Trigger   `json:"trigger"`
}

// DrainRequest closes the door of the serving generation without an upgrade, or
// opens it again.
type DrainRequest struct {
	Undo   bool   `json:"undo,omitempty"`
	Reason string `json:"reason,omitempty"` // for the records; at most 256 bytes are kept
	Via    string `json:"via,omitempty"`    // as in [UpgradeRequest]
}

// EndRequest ends the drain of old generations before its deadline.
type EndRequest struct {
	Generation int     `json:"generation,omitempty"` // 0: all that drain
	Grace      float64 `json:"grace_s,omitempty"`    // seconds for their last words; 0 is 5 s, negative is none
	Kill       bool    `json:"kill,omitempty"`       // SIGKILL at once: for one that does not react
	Via        string  `json:"via,omitempty"`        // as in [UpgradeRequest]
}

// EndResult is the answer to an [EndRequest].
type EndResult struct {
	Generations []int `json:"generations"` // those that were told to end
}

// Socket is a listening or datagram socket of the service.
type Socket struct {
	Name    string `json:"name"`    // FileDescriptorName= of its socket unit
	Network string `json:"network"` // tcp, udp, unix, unixgram, unixpacket, or what the kernel calls it
	Address string `json:"address"`
	Claimed bool   `json:"claimed"` // false: the running version does not serve it, and clients wait in vain
	Conns   Counts `json:"conns"`   // of the main generation
}

// Settings are the options in force, after environment and defaults. Durations
// are in seconds; 0 means none.
type Settings struct {
	ReadyTimeout float64 `json:"ready_timeout_s"`
	Probation    float64 `json:"probation_s"`
	DrainTimeout float64 `json:"drain_timeout_s"`
	StopTimeout  float64 `json:"stop_timeout_s"`
	MaxDraining  int     `json:"max_draining"`
	Overflow     string  `json:"overflow,omitempty"` // hurry-oldest, refuse: what happens at MaxDraining
	DrainDelay   float64 `json:"drain_delay_s,omitempty"`
	DrainSpread  float64 `json:"drain_spread_s,omitempty"`
	Migrate      bool    `json:"migrate"`              // idle HTTP/1.1 connections move to the new generation
	Watchdog     float64 `json:"watchdog_s,omitempty"` // WatchdogSec=, if systemd expects pings
	HangTimeout  float64 `json:"hang_timeout_s"`       // on probation: how long it may accept nothing while clients wait, or be stopped
	StopLimit    float64 `json:"stopped_timeout_s"`    // after that: how long it may be stopped (SIGSTOP) while an old one could take over
	StageTimeout float64 `json:"stage_timeout_s"`      // how long a staged upgrade may stay so
	AllowBinary  bool    `json:"allow_binary,omitempty"`
	PIDFile      string  `json:"pid_file,omitempty"`
	StateDir     string  `json:"state_dir,omitempty"` // where history is kept; none: it is not kept
}

// Disk compares the file that the next upgrade or restart would run with the
// one that runs.
type Disk struct {
	Path  string `json:"path"`
	State string `json:"state"` // same, differs, missing, not-executable, unknown
	// Failed is set when the last upgrade tried this very file and failed.
	Failed bool   `json:"failed,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Values of [Disk.State].
const (
	DiskSame          = "same"
	DiskDiffers       = "differs"
	DiskMissing       = "missing"
	DiskNotExecutable = "not-executable"
	DiskUnknown       = "unknown"
)

// Progress is an upgrade in progress.
type Progress struct {
	Phase   string    `json:"phase"` // see [Event.Phase]
	Trigger Trigger   `json:"trigger"`
	Since   time.Time `json:"since"`
	From    int       `json:"from"`
	To      int       `json:"to"`
	PID     int       `json:"pid,omitempty"`    // of the new process, when it has one
	Queued  int       `json:"queued,omitempty"` // requests that wait for their turn
	Stage   *Stage    `json:"stage,omitempty"`  // of a staged one
}

// Trigger says where an upgrade came from.
type Trigger struct {
	Via    string `json:"via"`              // systemctl, hdctl, api, signal, method
	PID    int    `json:"pid,omitempty"`    // of the client on the control socket
	UID    int    `json:"uid,omitempty"`    // of the client on the control socket; meaningful if PID is not 0
	Reason string `json:"reason,omitempty"` // what the client gave
}

// Values of [Trigger.Via].
const (
	ViaSystemctl = "systemctl"
	ViaHdctl     = "hdctl"
	ViaAPI       = "api"
	ViaSignal    = "signal"
	ViaMethod    = "method"
)

// Wait values of [UpgradeRequest.Wait].
const (
	WaitConfirmed = "confirmed" // the new generation serves and systemd knows
	WaitDrained   = "drained"   // and the old one is gone
)

// UpgradeRequest asks for an upgrade.
type UpgradeRequest struct {
	// Wait is WaitConfirmed (default) or WaitDrained.
	Wait string `json:"wait,omitempty"`
	// Queue waits for an upgrade that is in progress, and runs one after it.
	// Requests that wait share one upgrade. Without Queue a request during an
	// upgrade is refused with CodeInProgress.
	Queue bool `json:"queue,omitempty"`
	// Timeout, in seconds, is until confirmed, the wait in the queue included.
	// The service enforces it: the new process is killed and the old one goes
	// on. 0 is the service's own limit (ReadyTimeout + Probation + 10 s).
	Timeout float64 `json:"timeout_s,omitempty"`
	// Reason is free text for the records; at most 256 bytes are kept.
	Reason string `json:"reason,omitempty"`
	// Via is ViaSystemctl, ViaHdctl or ViaAPI (default): what the client is.
	Via string `json:"via,omitempty"`
	// Stage is the share of new connections that the new generation gets at
	// first, in percent: more than 0, at most 100. The result is OutcomeStaged
	// then, and a [PromoteRequest] or [RollbackRequest] ends it. 0: no stage.
	Stage float64 `json:"stage_pct,omitempty"`
	// StageTimeout, in seconds, is how long it may stay so; then it is rolled
	// back. 0 is the service's own limit.
	StageTimeout float64 `json:"stage_timeout_s,omitempty"`
	// Auto has the service decide, step by step, by how the new generation
	// answers compared with the old one. It excludes Stage.
	Auto *Auto `json:"auto,omitempty"`
	// Binary is the absolute path of another program to run instead of the one
	// that the service was started with, if it allows that (AllowBinary).
	Binary string `json:"binary,omitempty"`
	// IfChanged does nothing, with OutcomeUnchanged, when the file is the one
	// that runs.
	IfChanged bool `json:"if_changed,omitempty"`
	// DryRun only checks: OutcomeChecked, or OutcomeFailed in the phase
	// preflight.
	DryRun bool `json:"dry_run,omitempty"`
}

// Outcomes of an upgrade.
const (
	OutcomeConfirmed = "confirmed" // the new generation serves, systemd knows
	OutcomeFailed    = "failed"    // the new one did not take over; the old one serves
	OutcomeFellBack  = "fell-back" // the new one had taken over and died in probation; the old one serves again
	OutcomeTimedOut  = "timed-out" // the request's or the ready timeout passed; the old one serves
	OutcomeStopped   = "stopped"   // the service was stopped meanwhile
	OutcomeRefused   = "refused"   // nothing was tried
	OutcomeStaged    = "staged"    // the new generation serves its share; not ended
	// OutcomeRolledBack: the old one serves all again, and the new one finishes
	// what it had.
	OutcomeRolledBack = "rolled-back"
	// OutcomeInconclusive: rolled back, because there was too little to judge by.
	OutcomeInconclusive = "inconclusive"
	OutcomeChecked      = "checked"   // of a dry run: nothing speaks against it
	OutcomeUnchanged    = "unchanged" // the file is the one that runs
	OutcomeUnknown      = "unknown"   // made by clients: the service went away without an answer
)

// Result is the end of an upgrade request.
type Result struct {
	Outcome   string  `json:"outcome"`
	From      int     `json:"from"`
	To        int     `json:"to,omitempty"`
	FromPID   int     `json:"from_pid,omitempty"`
	ToPID     int     `json:"to_pid,omitempty"`
	Version   string  `json:"version,omitempty"`     // of the new generation, if it came to say so
	Serving   float64 `json:"serving_s,omitempty"`   // seconds from the trigger until the new generation served
	Confirmed float64 `json:"confirmed_s,omitempty"` // seconds from the trigger until it was confirmed
	Total     float64 `json:"total_s,omitempty"`     // seconds from the trigger until this result
	Trigger   Trigger `json:"trigger"`

	// Of a failed one: what the new process was doing (preflight, start,
	// restore, ready, probation), how it ended, and its last lines.
	Phase    string   `json:"phase,omitempty"`
	ExitCode *int     `json:"exit_code,omitempty"`
	Signal   string   `json:"signal,omitempty"` // SIGKILL, ...
	Output   []string `json:"output,omitempty"`

	// With WaitDrained: what the drain of the old generation cut, and how many
	// connections it handed to the new one. In [Status.Last] they grow as the
	// drain goes on.
	Drained  bool   `json:"drained,omitempty"`
	Cut      Counts `json:"cut,omitzero"`
	Migrated int    `json:"migrated,omitempty"`

	// Checks are what the preflight found, of a dry run or where it failed.
	Checks []Check `json:"checks,omitempty"`
	// Verdict is what decided a staged upgrade, if it was no operator.
	Verdict *Verdict `json:"verdict,omitempty"`
	// Rollback: the previous version was run again. Binary is what was run, if
	// it was not the file that the service was started with.
	Rollback bool   `json:"rollback,omitempty"`
	Binary   string `json:"binary,omitempty"`
	// What ran and what was tried: SHA-256 of the files, in hexadecimal.
	FromVersion string `json:"from_version,omitempty"`
	FromDigest  string `json:"from_sha256,omitempty"`
	ToDigest    string `json:"to_sha256,omitempty"`

	Error *Error `json:"error,omitempty"` // set where the outcome is no success
}

// Record is a finished upgrade, as status shows it.
type Record struct {
	Time time.Time `json:"time"` // of its end
	Result
}

// Codes of [Error.Code]. They are stable.
const (
	CodeInProgress   = "in_progress" // another upgrade runs
	CodeNotMain      = "not_main"    // this generation is not the main one
	CodeNotServing   = "not_serving" // not ready yet
	CodeStopping     = "stopping"    // the service is being stopped
	CodePermission   = "permission_denied"
	CodeBadRequest   = "bad_request"
	CodeNotFound     = "not_found"
	CodeMethod       = "method_not_allowed"
	CodeTooLarge     = "too_large"
	CodeBusy         = "too_many_connections"
	CodeTimedOut     = "timed_out"
	CodeStartFailed  = "start_failed" // the new process could not start, exited, or refused
	CodeIncompatible = "incompatible" // the new version speaks no common protocol
	CodeCrowded      = "too_many_draining"
	CodeHeld         = "held"          // the door was closed by a drain request
	CodeGeneration   = "no_generation" // there is no such generation, or it does not drain
	CodeFellBack     = "fell_back"
	CodeContainer    = "pid_1"              // an upgrade of PID 1 of a container is impossible
	CodeNotify       = "notify_failed"      // systemd could not be told
	CodePaused       = "paused"             // an operator wants no upgrades
	CodeNotStaged    = "not_staged"         // there is nothing to promote
	CodeRolledBack   = "rolled_back"        // an operator, a time limit or the verdict was against it
	CodeInconclusive = "inconclusive"       // too few requests for a verdict
	CodeNoPrevious   = "no_previous"        // there is nothing to roll back to
	CodeBinary       = "binary_not_allowed" // the service runs no other file
	CodeCheckFailed  = "check_failed"       // a preflight check
	CodeHung         = "hung"               // it lives, but accepts nothing
	CodeReconfigure  = "reconfigure_failed" // the old configuration is in force
	CodeUnsupported  = "unsupported"        // the service does not offer this
	CodeInternal     = "internal"
	CodeUnknown      = "unknown"     // made by clients: no answer
	CodeNotRunning   = "not_running" // made by clients: nobody listens on the socket
)

// Error is every refusal and failure: Code is stable, Message is for people,
// Hint says what to do.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Error returns the message; the hint is left to who prints it.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithHint returns e with a hint.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Phases of an upgrade, in their order, and its ends: [Event.Phase].
const (
	PhaseQueued    = "queued"
	PhasePreflight = "preflight"
	PhaseStart     = "start"     // the process is being started, and says hello
	PhaseReady     = "ready"     // said hello; until it says ready
	PhaseProbation = "probation" // it serves, the old one is parked
	PhaseConfirm   = "confirm"   // systemd is being told
	PhaseConfirmed = "confirmed"
	PhaseFailed    = "failed"
	PhaseDraining  = "draining" // a report of an old generation
	PhaseExited    = "exited"   // an old generation is gone
	PhaseStopping  = "stopping"
	PhaseServing   = "serving" // the first generation of a service serves, or the door is open again
	PhaseHeld      = "held"    // the door was closed by a drain request
	PhaseOutput    = "output"  // a line that the new process printed
	PhaseStaged    = "staged"  // the new generation serves its share, or another share, or is being judged
	PhaseRollback  = "rollback"
	PhaseFellBack  = "fell-back" // the old generation serves again after the confirm
	PhaseHung      = "hung"      // a generation does not accept, or does again
	PhasePaused    = "paused"    // upgrades are refused, or not any more
	PhaseConfig    = "configuration"
)

// Event is a step in the life of the service.
type Event struct {
	Time       time.Time `json:"time"`
	Seq        uint64    `json:"seq"` // increases by 1, or by more than FallBackSeqs; starts at 1 with the service
	Phase      string    `json:"phase"`
	Generation int       `json:"generation,omitempty"` // whom it is about
	PID        int       `json:"pid,omitempty"`
	Message    string    `json:"message"`
}

// FallBackSeqs is by how much [Event.Seq] jumps, at least, where an old generation
// serves again: its successor has counted on in the meantime, and these numbers are
// not used twice.
const FallBackSeqs = 100_000

// Line is one line of the answer to an upgrade, events or conns request. Exactly
// one field is set.
type Line struct {
	Entry  *Entry    `json:"entry,omitempty"` // of a history
	Event  *Event    `json:"event,omitempty"`
	Conn   *Conn     `json:"conn,omitempty"`
	End    *ConnsEnd `json:"end,omitempty"` // the last line of a list of connections
	Result *Result   `json:"result,omitempty"`
	Error  *Error    `json:"error,omitempty"` // a refusal after the answer had begun
}

// Version is what runs.
type Version struct {
	APIVersion int    `json:"api_version"`
	Library    string `json:"library"`
	Service    string `json:"service"`
	Generation int    `json:"generation"`
	Version    string `json:"version"`
}
