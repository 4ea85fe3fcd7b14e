package upgrade

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// Errors that a caller may want to tell apart. [Upgrader.Upgrade] wraps them.
var (
	// ErrExists is the answer to a second [New]: a process is one generation.
	ErrExists = errors.New("upgrade: this process already has an Upgrader")
	// ErrInProgress is the answer to an upgrade while another one runs.
	ErrInProgress = errors.New("upgrade: already in progress")
	// ErrNotServing is the answer to an upgrade of a generation that is not
	// ready, or not the main one any more.
	ErrNotServing = errors.New("upgrade: not the serving generation")
	// ErrStopping is the answer to an upgrade of a service that is being
	// stopped, and to Ready when a stop came first.
	ErrStopping = errors.New("upgrade: stopping")
	// ErrTimedOut is wrapped by the [StartError] of a new generation that was
	// killed because a deadline passed.
	ErrTimedOut = errors.New("upgrade: timed out")
	// ErrAbandoned is returned by [Upgrader.Run] when the successor died after
	// it had been confirmed: this generation has cut what it still held and
	// ends at once, so that systemd starts the service again.
	ErrAbandoned = errors.New("upgrade: the successor died; this generation ends so that the service can be started again")
	// ErrOrphaned is returned by [Upgrader.Ready] and [Upgrader.Run] of a new
	// generation whose predecessor went away, or gave it up, before it served.
	ErrOrphaned = errors.New("upgrade: the predecessor went away before this generation served")
	// ErrDraining is returned by [Conn.Await] when the connection can be handed
	// to the next generation.
	ErrDraining = errors.New("upgrade: draining")
	// ErrNotDraining is returned by [Conn.Handoff] where there is no generation
	// to hand a connection to.
	ErrNotDraining = errors.New("upgrade: there is no successor that takes this connection")
	// ErrRefused is wrapped by the errors of [Conn.Handoff] when the successor
	// has said no.
	ErrRefused = errors.New("upgrade: refused by the successor")
	// ErrReopened is the cause of the context of a [Server]'s Drain when the
	// drain is taken back and the door is open again.
	ErrReopened = errors.New("upgrade: the door is open again")
	// ErrDrainDeadline is the cause of the context of a [Server]'s Drain when
	// its time is up.
	ErrDrainDeadline = errors.New("upgrade: drain deadline")
)

// StartError says why a new generation did not take over. The old one serves.
type StartError struct {
	Generation int      // the number that the new one had
	PID        int      // 0 if it never had a process
	Phase      string   // preflight, start, ready, probation, confirm: what it was doing
	Output     []string // its last lines until it was ready, as printed
	Err        error
}

// Error says it in one line.
func (e *StartError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "upgrade: generation %d", e.Generation)
	if e.PID != 0 {
		fmt.Fprintf(&b, " (pid %d)", e.PID)
	}
	fmt.Fprintf(&b, " failed in %s: %v", e.Phase, e.Err)
	return b.String()
}

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// resultError turns the result of an upgrade into the error of the method that
// asked for it; nil if it was confirmed.
func resultError(r *control.Result) error {
	if r.Error == nil {
		return nil
	}
	switch r.Error.Code {
	case control.CodeInProgress:
		return fmt.Errorf("%w: %s", ErrInProgress, r.Error.Message)
	case control.CodeNotMain, control.CodeNotServing:
		return fmt.Errorf("%w: %s", ErrNotServing, r.Error.Message)
	case control.CodeStopping:
		return fmt.Errorf("%w: %s", ErrStopping, r.Error.Message)
	}
	var err error = r.Error
	if r.Outcome == control.OutcomeTimedOut {
		err = fmt.Errorf("%w: %w", ErrTimedOut, r.Error)
	}
	if r.To == 0 {
		return err
	}
	return &StartError{Generation: r.To, PID: r.ToPID, Phase: r.Phase, Output: r.Output, Err: err}
}
