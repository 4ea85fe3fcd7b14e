package upgrade

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

// HTTP returns a [Server] that serves with srv, over TLS if srv.TLSConfig has
// certificates. It wraps srv.Handler and srv.ConnState: set them before. One
// Server may serve several listeners.
//
// It drains as a lame duck. Every connection stays open, and the answer to its
// next request carries "Connection: close" (for HTTP/2, where net/http makes a
// GOAWAY of this header, the connection ends after its open streams), so that no
// client ever finds a connection closed under a request that it has sent. In a
// real stop of the service, where clients wait for the next start, connections
// that stay idle for a tenth of the StopTimeout are closed without that word.
//
// [http.Server.Shutdown] and SetKeepAlivesEnabled are not called, and should not
// be by the service: both close idle connections while requests are on their way
// to them, and lose these.
func HTTP(srv *http.Server) Server {
	s := &httpServer{srv: srv}
	s.wrap()
	return s
}

// ListenAndServe runs srv as an upgradable service on the socket called "http",
// or bound to srv.Addr (":http" if empty) where systemd did not start the
// program. It returns when this generation is over: nil after a hand-over or a
// stop.
func ListenAndServe(srv *http.Server, opts Options) error {
	u, err := New(opts)
	if err != nil {
		return err
	}
	address := srv.Addr
	if address == "" {
		address = ":http"
	}
	ln, err := u.Listen("http", "tcp", address)
	if errors.Is(err, ErrStopping) {
		return u.Run(context.Background())
	}
	if err != nil {
		return err
	}
	u.Serve(ln, HTTP(srv))
	return u.Run(context.Background())
}

type httpServer struct {
	srv      *http.Server
	draining atomic.Bool
}

func (s *httpServer) Serve(ln net.Listener) error {
	var err error
	if c := s.srv.TLSConfig; c != nil && (len(c.Certificates) > 0 || c.GetCertificate != nil || c.GetConfigForClient != nil) {
		err = s.srv.ServeTLS(ln, "", "")
	} else {
		err = s.srv.Serve(ln)
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *httpServer) wrap() {
	handler := s.srv.Handler
	if handler == nil {
		handler = http.DefaultServeMux
	}
	s.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
	connState := s.srv.ConnState
	s.srv.ConnState = func(c net.Conn, state http.ConnState) {
		if conn, ok := ConnOf(c); ok {
			conn.observe(state)
		}
		if connState != nil {
			connState(c, state)
		}
	}
}

// observe takes note of what net/http says of the connection.
func (c *Conn) observe(state http.ConnState) {
	switch state {
	case http.StateNew:
		c.idleSince.Store(time.Now().UnixNano())
		c.entry.SetPhase(track.New)
	case http.StateActive:
		c.entry.SetPhase(track.Active)
	case http.StateIdle:
		c.idleSince.Store(time.Now().UnixNano())
		c.entry.SetPhase(track.Idle)
	case http.StateHijacked:
		c.entry.SetPhase(track.Stream)
	}
}

func (s *httpServer) Drain(ctx context.Context) error {
	s.draining.Store(true)
	info := drainInfoOf(ctx)
	empty := make(chan error, 1)
	go func() { empty <- info.waitEmpty(ctx) }()
	select {
	case err := <-empty:
		return err
	case <-info.stop:
	}
	for tick := time.NewTicker(max(info.grace/4, time.Millisecond)); ; {
		select {
		case err := <-empty:
			tick.Stop()
			return err
		case now := <-tick.C:
			info.listener.closeIdle(now.Add(-info.grace))
		}
	}
}

// closeIdle ends the connections that have been without a request since before.
func (l *Listener) closeIdle(before time.Time) {
	for _, e := range l.conns.Entries() {
		if p := e.Phase(); p != track.New && p != track.Idle {
			continue
		}
		c := e.Owner().(*Conn)
		if c.idleSince.Load() < before.UnixNano() && c.interruptIdle() {
			l.cutIdle.Add(1)
		}
	}
}

// interruptIdle makes the server's pending Read fail, upon which net/http closes
// the connection. It does nothing if a request has arrived or this was done
// before.
func (c *Conn) interruptIdle() bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	pending := false
	var b [1]byte
	if err := raw.Control(func(fd uintptr) {
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		pending = n > 0 || err == nil // a request, or the client has left
	}); err != nil || pending {
		return false
	}
	return c.interrupted.CompareAndSwap(false, true) && c.conn.SetReadDeadline(time.Unix(1, 0)) == nil
}
