package upgrade

import (
	"context"
	"net"
	"time"
)

// A Server serves one listener from [Upgrader.Run] on, through parking and
// falling back, until its generation is over.
type Server interface {
	// Serve accepts from ln, a *[Listener], until Accept fails with
	// [net.ErrClosed], and then returns nil; it goes on accepting while the
	// generation drains. Anything else, returning nil before [Upgrader.Draining]
	// included, is a failure of the service: the generation is stopped and Run
	// returns an error.
	Serve(ln net.Listener) error
	// Drain is called when this generation shall finish: it says goodbye, lets
	// what runs end, and returns when nothing is left or ctx is done. When the
	// cause of that is [ErrDrainDeadline] it ends what it can, and the Upgrader
	// cuts a moment later what the listener still holds, and counts it. When the
	// cause is [ErrReopened] the drain was taken back: everything goes on as
	// before, and Drain may be called again one day. (This may come when Drain
	// has returned already: [context.AfterFunc] is for who has to know.) Drain
	// does not make Serve return.
	//
	// A Server that cannot take a drain back says so with a method
	// Irreversible(); its Drain is called only when there is no way back.
	Drain(ctx context.Context) error
}

// irreversible is a [Server] that cannot take a drain back.
type irreversible interface{ Irreversible() }

// drainInfo is what the context of a Drain carries.
type drainInfo struct {
	// listener is what the server serves.
	listener *Listener
	// stop is closed when the drain is, or has become, a real stop of the
	// service: nobody accepts any more, and clients wait.
	stop chan struct{}
	// grace is how long an idle connection may stay open in a real stop.
	grace time.Duration
	// final is closed when the generation ends with this drain, so that it
	// cannot be taken back.
	final chan struct{}
	// commit asks for leave to do what cannot be undone, when final is closed.
	commit func() bool
}

type drainInfoKey struct{}

// waitEmpty waits until the listener has no connection, or ctx is done.
func (i drainInfo) waitEmpty(ctx context.Context) error {
	if i.listener == nil {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return i.listener.conns.WaitEmpty(ctx)
}

// isFinal tells whether the generation ends with the drain, unless its successor
// dies first.
func (i drainInfo) isFinal() bool { return i.final == nil || isClosed(i.final) }

// mayEnd tells whether what cannot be undone may be done.
func (i drainInfo) mayEnd() bool { return i.isFinal() && (i.commit == nil || i.commit()) }

// drainInfoOf returns what ctx carries; a context that is not of the Upgrader's
// making has a drain that is no stop.
func drainInfoOf(ctx context.Context) drainInfo {
	info, _ := ctx.Value(drainInfoKey{}).(drainInfo)
	return info
}
