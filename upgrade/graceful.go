package upgrade

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// GracefulServer is what [Graceful] needs of a server; *grpc.Server has it.
type GracefulServer interface {
	// Serve accepts from a listener until it is closed.
	Serve(net.Listener) error
	// GracefulStop closes the listeners, tells clients to go elsewhere, lets what
	// runs end, and returns then.
	GracefulStop()
	// Stop ends everything at once. It may be called while GracefulStop runs,
	// which then returns, too.
	Stop()
}

// Graceful returns a [Server] that serves with srv, such as a *grpc.Server. It
// drains by GracefulStop, and at the deadline by Stop. One Server may serve several
// listeners; make one of each srv, not more.
//
// What that means for gRPC: every client gets a GOAWAY, finishes the calls that
// run, and makes new ones on a new connection, which is accepted by the successor;
// no call fails. A stream lasts until it ends by itself, or until the deadline:
// whoever serves long ones ends them when [Upgrader.Draining] is closed. At the
// deadline handlers see the end of their context, and clients the code UNAVAILABLE.
//
// There is no way back from GracefulStop, so the server says goodbye only once its
// generation ends: not while it is parked, and not when an operator closes the door
// for a while (hdctl drain).
func Graceful(srv GracefulServer) Server {
	s := &gracefulServer{srv: srv, draining: make(chan struct{}), ended: make(chan struct{})}
	end := sync.OnceFunc(func() { close(s.ended) })
	s.begin = sync.OnceFunc(func() {
		close(s.draining)
		go func() { // ends with what runs, at the latest after Stop, if handlers respect their contexts
			srv.GracefulStop()
			end()
		}()
	})
	s.cut = sync.OnceFunc(func() {
		srv.Stop()
		end()
	})
	return s
}

// silenceTimeout is how long a connection on which nothing was ever sent may stay
// silent once the drain has begun.
const silenceTimeout = time.Second

type gracefulServer struct {
	srv      GracefulServer
	begin    func()        // GracefulStop, without waiting for it
	cut      func()        // Stop
	draining chan struct{} // closed by begin
	ended    chan struct{} // closed when GracefulStop, or Stop, has returned
}

var _ irreversible = (*gracefulServer)(nil)

// Irreversible marks a server whose Drain cannot be taken back.
func (s *gracefulServer) Irreversible() {}

// Serve gives ln itself to the server, whose GracefulStop closes it. That shuts
// the gate for good, and is meant to: this generation accepts nothing from its
// sockets any more when Drain is called, and never will, and GracefulStop waits
// for Accept to end before it says one goodbye. Other listeners are not touched. A
// second server of this one, which is drained at the same time, stops accepting
// what it could not get any more either, and keeps its connections.
func (s *gracefulServer) Serve(ln net.Listener) error {
	err := s.srv.Serve(ln)
	select {
	case <-s.draining:
		// Whatever it says of its end, this was ours. It lasts until the goodbyes
		// are said: some servers return when GracefulStop begins.
		<-s.ended
		return nil
	default:
	}
	if errors.Is(err, net.ErrClosed) { // the generation is over, without a drain
		return nil
	}
	return err
}

func (s *gracefulServer) Drain(ctx context.Context) error {
	s.begin()
	if l := drainInfoOf(ctx).listener; l != nil {
		l.limitSilence(time.Now().Add(silenceTimeout))
	}
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		s.cut()
		return context.Cause(ctx)
	}
}

// limitSilence gives connections on which nothing has come until deadline to begin.
// The GracefulStop of gRPC waits for their handshakes, by default for two minutes,
// before it says goodbye to anybody: the spare connection of a load balancer would
// keep all clients from going elsewhere. A handshake that succeeds takes the
// deadline back.
func (l *Listener) limitSilence(deadline time.Time) {
	for _, c := range l.conns.All() {
		if c.entry.State()&touched == 0 {
			_ = c.SetReadDeadline(deadline)
		}
	}
}
