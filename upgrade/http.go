package upgrade

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/track"
)

// HTTP returns a [Server] that serves with srv, over TLS if srv.TLSConfig has
// certificates. It wraps srv.Handler, ConnState, ConnContext and BaseContext: set
// them before, TLSConfig as well. One Server may serve several listeners.
//
// After an upgrade no client finds a connection closed under a request that it has
// sent:
//
//   - An HTTP/1.1 connection without TLS goes on with the next generation as soon as
//     it has no request. Nobody notices.
//   - Others stay with their generation, and the answer to their next request
//     carries "Connection: close". For HTTP/2, where net/http makes a GOAWAY of this
//     header, it is the answer to the last open stream; a stream that crosses the
//     GOAWAY is refused, and safe to try again (RFC 9113, section 6.8).
//   - A WebSocket or another hijacked connection, and an answer without end, is told
//     by what the service has registered with [Conn.OnDrain].
//   - At the deadline the contexts of all requests are cancelled with the cause
//     [ErrDrainDeadline], and a moment later their connections are closed.
//
// In a real stop of the service, where clients wait for the next start, connections
// that stay idle for a tenth of the StopTimeout are closed without a word.
//
// [http.Server.Shutdown] and SetKeepAlivesEnabled should not be called by the
// service: both close idle connections while requests are on their way to them, and
// lose these.
func HTTP(srv *http.Server, opts ...HTTPOption) Server {
	s := &httpServer{srv: srv}
	if c := srv.TLSConfig; c != nil { // net/http changes it later
		s.tls = len(c.Certificates) > 0 || c.GetCertificate != nil || c.GetConfigForClient != nil
	}
	s.h2c = srv.Protocols != nil && srv.Protocols.UnencryptedHTTP2()
	for _, o := range opts {
		o(s)
	}
	s.wrap()
	return s
}

// HTTPOption is an option of [HTTP].
type HTTPOption func(*httpServer)

// Sessions has handle called for each connection that an earlier generation has
// hijacked and then handed over ([Conn.Handoff]), as [TCP] does. The listener's
// [Listener.Adopt] decides which it takes.
func Sessions(handle func(ctx context.Context, c *Conn)) HTTPOption {
	return func(s *httpServer) { s.sessions = handle }
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
	tls      bool // connections are TLS
	h2c      bool // they may be HTTP/2 without TLS
	sessions func(context.Context, *Conn)

	page        atomic.Pointer[pulse.Page] // where requests are counted whose connection is not known; nil: nowhere
	statusKnown [httpVersions]atomic.Bool  // statuses of answers can be read, by statusField
	statusField [httpVersions]atomic.Pointer[statusField]

	draining atomic.Pointer[struct{ _ byte }] // nil: it does not drain
	ctx      context.Context                  // ends at the deadline: what all requests' contexts come from
	cancel   context.CancelCauseFunc

	mu        sync.Mutex
	listeners []*Listener
}

func (s *httpServer) Serve(ln net.Listener) error {
	for version, err := range verifiedStatus() {
		s.statusKnown[version].Store(err == nil)
	}
	if l, ok := ln.(*Listener); ok {
		s.page.Store(l.pulse)
		s.mu.Lock()
		s.listeners = append(s.listeners, l)
		s.mu.Unlock()
		ln = &httpListener{Listener: l, server: s}
	}
	var err error
	if s.tls {
		err = s.srv.ServeTLS(ln, "", "")
	} else {
		err = s.srv.Serve(ln)
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// httpListener keeps connections with a session from net/http, which would wait
// for a request on them.
type httpListener struct {
	*Listener
	server *httpServer
}

func (l *httpListener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := nc.(*Conn)
		if c.entry.State()&extended == 0 || c.Session() == nil {
			return c, nil
		}
		go func() { // waited for by Drain: it is over when the connection is
			defer c.Close()
			l.server.sessions(l.server.ctx, c)
		}()
	}
}

func (s *httpServer) wrap() {
	handler := s.srv.Handler
	if handler == nil {
		handler = http.DefaultServeMux
	}
	s.srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(handler, w, r) })

	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	baseContext := s.srv.BaseContext
	s.srv.BaseContext = func(ln net.Listener) context.Context {
		if h, ok := ln.(*httpListener); ok {
			ln = h.Listener
		}
		if baseContext == nil {
			return s.ctx
		}
		ctx, cancel := context.WithCancelCause(baseContext(ln))
		context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
		return ctx
	}

	connContext := s.srv.ConnContext
	s.srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		conn, ok := ConnOf(c)
		if connContext != nil {
			ctx = connContext(ctx, c)
			if ok {
				ctx = context.WithValue(ctx, connKey{}, conn)
			}
			return ctx
		}
		if ok {
			return conn.context(ctx)
		}
		return ctx
	}

	connState := s.srv.ConnState
	s.srv.ConnState = func(c net.Conn, state http.ConnState) {
		if conn, ok := ConnOf(c); ok {
			s.observe(conn, c, state)
		}
		if connState != nil {
			connState(c, state)
		}
	}
}

// connContext is the context of a connection: that of its Serve, and the
// connection, without an allocation.
type connContext Conn

// context returns parent with c in it. The parent is the same for all connections
// of one Serve, and kept by the listener.
func (c *Conn) context(parent context.Context) context.Context {
	l := c.listener()
	if l.httpParent.Load() == nil {
		l.httpParent.CompareAndSwap(nil, &parent)
	}
	if *l.httpParent.Load() != parent { // a second server on one listener
		return context.WithValue(parent, connKey{}, c)
	}
	return (*connContext)(c)
}

func (c *connContext) parent() context.Context { return *(*Conn)(c).listener().httpParent.Load() }

func (c *connContext) Deadline() (time.Time, bool) { return c.parent().Deadline() }
func (c *connContext) Done() <-chan struct{}       { return c.parent().Done() }
func (c *connContext) Err() error                  { return c.parent().Err() }

func (c *connContext) Value(key any) any {
	if key == (connKey{}) {
		return (*Conn)(c)
	}
	return c.parent().Value(key)
}

// observe takes note of what net/http says of the connection.
func (s *httpServer) observe(c *Conn, by net.Conn, state http.ConnState) {
	phase := track.Active
	var flags track.State
	switch state {
	case http.StateNew:
		phase = track.New
		if by == net.Conn(c) {
			flags = plain
		} else {
			flags = pinned
		}
	case http.StateActive:
		if t, ok := by.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol == "h2" {
			flags = multiplexed | pinned
		}
		if in, _ := c.entry.Bytes(); s.h2c && by == net.Conn(c) && in == http2Preface && c.entry.Label() == "" {
			flags = multiplexed | pinned // net/http has read the preface, and no more
		}
	case http.StateIdle:
		phase = track.Idle
	case http.StateHijacked:
		phase, flags = track.Hijacked, pinned
	default:
		return
	}
	before, _ := c.entry.Update(func(s track.State) (track.State, bool) {
		s = phaseFlags(s, phase) | flags
		if phase == track.Hijacked {
			s &^= plain
		}
		return s, true
	})
	if phase == track.Hijacked {
		c.listener().pulse.Observe(untimed, false)
	}
	switch {
	case state == http.StateNew && before&inherited != 0:
		d := s.srv.IdleTimeout
		if d == 0 {
			d = s.srv.ReadTimeout
		}
		c.limitIdle(d)
	case phase == track.Idle && before&extended != 0:
		c.forgetFarewells()
	case phase != track.New && phase != track.Idle:
		c.givePlaceBack()
		if before&inherited != 0 {
			c.trimExtra() // its first request has come
		}
	}
}

// answer has the service's handler answer a request. c is nil if it is not known:
// behind a wrapper of the service that hides it.
func (s *httpServer) answer(c *Conn, next http.Handler, w http.ResponseWriter, r *http.Request) {
	if c == nil {
		if s.draining.Load() != nil {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
		return
	}
	c.entry.SetRequest(r.Method, r.RequestURI)
	if r.ProtoMajor >= 2 {
		s.serveStream(c, next, w, r)
		return
	}
	if s.draining.Load() != nil && !c.moves() {
		w.Header().Set("Connection", "close")
	}
	next.ServeHTTP(w, r)
}

// moves tells whether the connection, which is in a request of HTTP/1, is going to
// move when it is idle, so that there is nothing to announce.
func (c *Conn) moves() bool {
	if s := c.entry.State(); s&plain == 0 || s&pinned != 0 {
		return false
	}
	l := c.listener()
	if m := l.mover.Load(); m != nil && !m.isOver() {
		return m.takesHTTP(l) && !m.staysForGood(c)
	}
	e := l.expects.Load()
	return e != nil && !isClosed(e.over)
}

// idlePoll is how often a drain looks for what only time can end.
const idlePoll = 100 * time.Millisecond

func (s *httpServer) Drain(ctx context.Context) error {
	token := new(struct{ _ byte }) // of this drain: there may be another one when it is taken back
	s.draining.Store(token)
	context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), ErrReopened) {
			s.draining.CompareAndSwap(token, nil)
		}
	})
	info := drainInfoOf(ctx)
	empty := make(chan error, 1)
	go func() { empty <- info.waitEmpty(ctx) }()
	tick := time.NewTicker(idlePoll)
	defer tick.Stop()
	stop, stopping := info.stop, false
	var shutdown sync.Once
	for {
		select {
		case err := <-empty:
			if err != nil && !errors.Is(err, ErrReopened) {
				s.cancel(err)
			}
			return err
		case <-stop:
			stop, stopping = nil, true
		case now := <-tick.C:
			if stopping {
				info.listener.evict(now.Add(-info.grace))
			}
			if info.isFinal() && s.onlyIdleHTTP2() && info.mayEnd() {
				// Nobody has a request or could send one that net/http loses: for
				// HTTP/2 Shutdown is a GOAWAY.
				shutdown.Do(func() { go func() { _ = s.srv.Shutdown(context.WithoutCancel(ctx)) }() })
			}
		}
	}
}

// onlyIdleHTTP2 tells whether nothing is left but HTTP/2 connections without a
// stream.
func (s *httpServer) onlyIdleHTTP2() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, l := range s.listeners {
		for c := range l.conns.Each {
			if s := c.entry.State(); s&multiplexed == 0 || s.Phase() != track.Idle {
				return false
			}
			n++
		}
	}
	return n > 0
}

// evict ends the connections on which nothing has happened since before.
func (l *Listener) evict(before time.Time) {
	for _, c := range l.conns.All() {
		if p := c.entry.Phase(); p != track.New && p != track.Idle {
			continue
		}
		if c.entry.Moved().Before(before) {
			c.evict()
		}
	}
}
