package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/internal/link"
)

// Session is what the next generation has to know about a connection to go on with
// it: [Conn.Handoff].
type Session struct {
	// Version is the format of Data, for the decoder of a later or an earlier
	// version of the service.
	Version int
	// Data is at most 16 MiB. Above 16 KiB it travels as a sealed memfd_create(2)
	// file.
	Data []byte
}

const (
	maxSession    = 16 << 20
	inlineSession = 16 << 10
)

// pack makes what is offered of s. The file, if there is one, is the caller's.
func (s *Session) pack() (*link.Session, *os.File, error) {
	switch {
	case len(s.Data) > maxSession:
		return nil, nil, fmt.Errorf("session of %d bytes: at most %d are possible", len(s.Data), maxSession)
	case s.Version < 0:
		return nil, nil, fmt.Errorf("session of version %d: versions are not negative", s.Version)
	case len(s.Data) <= inlineSession:
		return &link.Session{Version: s.Version, Data: s.Data}, nil, nil
	}
	fd, err := unix.MemfdCreate("session", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, nil, fmt.Errorf("pass a session: %w", os.NewSyscallError("memfd_create", err))
	}
	file := os.NewFile(uintptr(fd), "session")
	if _, err := file.Write(s.Data); err != nil {
		file.Close()
		return nil, nil, fmt.Errorf("pass a session: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		file.Close()
		return nil, nil, fmt.Errorf("pass a session: seal: %w", os.NewSyscallError("fcntl", err))
	}
	return &link.Session{Version: s.Version, File: true}, file, nil
}

// unpackSession reads what was offered.
func unpackSession(l *link.Session, files []*os.File) (Session, error) {
	s := Session{Version: l.Version, Data: l.Data}
	if !l.File {
		return s, nil
	}
	info, err := files[0].Stat()
	if err != nil {
		return s, fmt.Errorf("receive a session: %w", err)
	}
	if info.Size() > maxSession {
		return s, fmt.Errorf("receive a session: %d bytes, at most %d", info.Size(), maxSession)
	}
	s.Data = make([]byte, info.Size())
	if _, err := io.ReadFull(io.NewSectionReader(files[0], 0, info.Size()), s.Data); err != nil {
		return s, fmt.Errorf("receive a session: %w", err)
	}
	return s, nil
}

// Adopt declares which sessions this generation takes from the one before:
// connections that [Conn.Handoff] passes come out of Accept like any other, with
// what decode made of their session as [Conn.Session]. Call it before Run.
//
// decode has no connection to read from, and runs before the predecessor is told
// that the connection is ours: with an error (or a panic) it stays there. It may be
// called concurrently, and should be quick: the client waits.
func (l *Listener) Adopt(decode func(Session) (any, error)) { l.decode = decode }

// Session returns what the decoder of [Listener.Adopt] made of the session that
// came with the connection; nil for one that was accepted.
func (c *Conn) Session() (session any) {
	if c.entry.State()&extended != 0 {
		c.withExtra(func(x *extra) { session = x.session })
	}
	return session
}

// Await waits until there is something to read from the connection, the end of the
// client's stream included, and consumes nothing. It returns [ErrDraining] when
// the connection can and should be handed to the next generation: call
// [Conn.Handoff] then, at a point where nothing is read that is not answered, and
// nothing is buffered. Call it soon: only so many connections may be on their way.
//
// Other errors are the cause of ctx, [os.ErrDeadlineExceeded] for a read deadline,
// and those of a connection that is closed. Only one goroutine may read from the
// connection or wait for it.
func (c *Conn) Await(ctx context.Context) (err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("await: %w", err)
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	c.entry.SetFlags(awaiting)
	defer func() {
		c.entry.ClearFlags(awaiting) // first: from here on nobody pokes it
		if !errors.Is(err, ErrDraining) {
			c.givePlaceBack()
		}
	}()
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, c.interrupt)
		defer stop()
	}
	for {
		// Here, since restoreReadDeadline may have undone the interruption.
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if c.shouldMove() {
			return ErrDraining
		}
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			var b [1]byte
			_, _, failed = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			return failed != unix.EAGAIN
		})
		switch {
		case err == nil && failed != nil: // it is told only once: a Read would find the end
			return &net.OpError{
				Op: "read", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(),
				Err: os.NewSyscallError("recvfrom", failed),
			}
		case err == nil:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case context.Cause(ctx) != nil:
			c.restoreReadDeadline()
			return context.Cause(ctx)
		case c.expired():
			return err
		}
		c.restoreReadDeadline()
	}
}

// shouldMove tells whether the connection's next generation takes sessions. Its
// place in transit, if it has one, it keeps for Handoff then.
func (c *Conn) shouldMove() bool {
	l := c.listener()
	m := l.mover.Load()
	if m == nil || !m.listeners[l.name].Sessions || m.isOver() || m.stays(c) {
		c.givePlaceBack()
		return false
	}
	return true
}

// Handoff gives the connection to the serving generation, together with its
// session. After nil it is gone from here, and may not be used any more; the client
// has not noticed. With an error nothing has happened: serve on. (Await does not
// return [ErrDraining] for it again then, until there is a yet newer generation, or
// until the refusal was for want of room only and is over.)
//
// It is for connections without a user-space state below them: TCP, unix, and
// hijacked plaintext HTTP; not TLS. It needs a successor that has called
// [Listener.Adopt]; [ErrRefused] is wrapped where it says no, [ErrNotDraining] is
// returned where there is none.
func (c *Conn) Handoff(ctx context.Context, s Session) error {
	l := c.listener()
	place := c.takePoke()
	m := l.mover.Load()
	if m == nil {
		if e := l.expects.Load(); e != nil { // it is being opened
			select {
			case <-e.over:
			case <-ctx.Done():
				if place {
					l.places.Release()
				}
				return context.Cause(ctx)
			}
			m = l.mover.Load()
		}
	}
	if m == nil || m.isOver() || !m.listeners[l.name].Sessions {
		if place {
			l.places.Release()
		}
		return ErrNotDraining
	}
	if !place {
		select {
		case m.places <- struct{}{}:
		case <-m.over:
			return ErrNotDraining
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer m.places.Release()
	err := m.give(c, &s)
	if err != nil {
		return fmt.Errorf("hand off a connection of %q to generation %d: %w", l.name, m.to, err)
	}
	return nil
}
