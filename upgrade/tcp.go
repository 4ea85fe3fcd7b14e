package upgrade

import (
	"context"
	"errors"
	"net"
	"time"
)

// TCP returns a [Server] for a protocol of your own over TCP, unix or seqpacket
// connections: handle is called for each connection, in a goroutine of its own,
// and the connection is closed when it returns.
//
// ctx is cancelled, with the cause [ErrDrainDeadline], when the time of a drain is
// up; a moment later the connection is closed under the handler. To say goodbye
// before that, use [Conn.OnDrain]; to go on with the next generation, [Conn.Await]
// and [Conn.Handoff].
func TCP(handle func(ctx context.Context, c *Conn)) Server {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &tcpServer{handle: handle, ctx: ctx, cancel: cancel}
}

type tcpServer struct {
	handle func(context.Context, *Conn)
	ctx    context.Context // of the handlers: the server has no caller whose context they could have
	cancel context.CancelCauseFunc
}

func (s *tcpServer) Serve(ln net.Listener) error {
	var backoff backoff
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return nil
		case backoff.temporary(err):
			continue
		default:
			return err
		}
		backoff.reset()
		go func() { // waited for by Drain: it is over when the connection is
			defer c.Close()
			s.handle(s.ctx, c.(*Conn))
		}()
	}
}

func (s *tcpServer) Drain(ctx context.Context) error {
	err := drainInfoOf(ctx).waitEmpty(ctx)
	if err != nil && !errors.Is(err, ErrReopened) {
		s.cancel(err) // not when nobody is left here: it may serve other listeners, too
	}
	return err
}

// backoff is how package http deals with errors of accept(2) that pass, such as
// no free descriptors: wait a little, longer each time.
type backoff struct{ delay time.Duration }

func (b *backoff) reset() { b.delay = 0 }

func (b *backoff) temporary(err error) bool {
	var te interface{ Temporary() bool }
	if !errors.As(err, &te) || !te.Temporary() {
		return false
	}
	b.delay = min(max(2*b.delay, 5*time.Millisecond), time.Second)
	timer := time.NewTimer(b.delay)
	defer timer.Stop()
	<-timer.C
	return true
}
