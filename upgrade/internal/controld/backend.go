package controld

import (
	"context"

	"github.com/hdctl/handoff/upgrade/control"
)

// Backend does what clients ask for. Its methods are called by many goroutines
// at once. A panic in one of them costs the client its answer, not the service
// its life.
type Backend interface {
	// Version says what runs. Every answer has it in its headers: it must be
	// cheap, and must not block.
	Version() control.Version

	// Status returns a snapshot, without blocking. The result is only read.
	Status() *control.Status

	// Upgrade runs an upgrade, or joins one, and returns its result. It calls
	// emit for each event on the way, from the calling goroutine, and not
	// after it has returned. A refusal is a result with control.OutcomeRefused
	// and an error.
	//
	// ctx ends when the client is gone, or too slow, or when the server is
	// closed. The upgrade goes on all the same; Upgrade should then return
	// soon, with a result or without.
	Upgrade(ctx context.Context, req control.UpgradeRequest, p Peer, emit func(control.Event)) *control.Result

	// Promote gives the generation that is staged another share, or all, and
	// returns the result: staged again, or how the upgrade ended. For ctx, emit
	// and refusals see Upgrade.
	Promote(ctx context.Context, req control.PromoteRequest, p Peer, emit func(control.Event)) *control.Result

	// Rollback ends an upgrade in progress in favour of the old generation, or
	// runs the previous version again, and returns the result. For ctx, emit
	// and refusals see Upgrade.
	Rollback(ctx context.Context, req control.RollbackRequest, p Peer, emit func(control.Event)) *control.Result

	// Events calls emit for each event that is remembered, and with follow
	// for those that come, until ctx ends. When emit returns an error the
	// client is gone, and Events has to return.
	Events(ctx context.Context, follow bool, emit func(control.Event) error) error

	// History calls emit for each upgrade on record, the newest first, at most
	// limit of them if that is not 0. When emit returns an error the client is
	// gone, or the server is being closed, and History has to return. Its own
	// errors are those of Conns. limit is between 0 and 10,000.
	History(ctx context.Context, limit int, emit func(control.Entry) error) error

	// Conns lists the open connections that f selects, of all generations,
	// and returns the end of the list. It calls emit with whole lines, each
	// {"conn":{…}} and a newline as [AppendConn] makes them, as many at once
	// as it likes: some 64 KiB are good. emit takes as long as the client
	// does, does not keep the slice, and is not for several goroutines at
	// once. When it returns an error the client is gone, or the server is
	// being closed, and Conns has to return.
	//
	// f is valid: a Generation that is not 0 is positive, and State is one of
	// those of control.Conn. There may be no such generation or listener. An
	// error before the first call of emit is the whole answer, otherwise it
	// ends the list, which the client then knows to be incomplete.
	Conns(ctx context.Context, f control.ConnFilter, emit func(lines []byte) error) (*control.ConnsEnd, error)

	// Drain closes the door of the serving generation, or opens it again. It
	// returns when that is done: the client gets the Status of that moment.
	Drain(ctx context.Context, req control.DrainRequest, p Peer) error

	// End ends the drain of old generations. It returns when they have been
	// told, and does not wait for them. Grace is the default, 0, or none,
	// negative, or between a millisecond and a day.
	End(ctx context.Context, req control.EndRequest, p Peer) (*control.EndResult, error)

	// Pause has upgrades refused, or not any more. It returns when that is
	// done: the client gets the Status of that moment.
	Pause(ctx context.Context, req control.PauseRequest, p Peer) error

	// Reconfigure has the service read its configuration, and returns when it
	// is in force.
	//
	// The error of Drain, End, Pause and Reconfigure is a *control.Error, which
	// the client gets as it is. Any other is a failure of the service, and if ctx
	// has ended it means that the outcome is not known: the client gets no answer
	// then.
	Reconfigure(ctx context.Context, req control.ReconfigureRequest, p Peer) (*control.ReconfigureResult, error)
}
