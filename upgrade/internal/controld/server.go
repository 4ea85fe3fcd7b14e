package controld

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Config is what a server is made of. Backend is required.
type Config struct {
	Backend Backend

	// ServiceUID is the user of the service, who may command. The zero value
	// is root, who may anyway.
	ServiceUID int

	// OperatorGroup is the name or the number of a group whose members may
	// command. "" is none. It is looked up once, by New; a group that does
	// not exist is logged, and is none.
	OperatorGroup string

	// Logger gets what an operator should know: at Warn who was denied, at
	// Error panics, at Debug each request. nil is no log.
	Logger *slog.Logger

	Limits Limits
}

// Server answers on the control socket. Its methods may be called at any time,
// by any goroutine.
type Server struct {
	backend   Backend
	authority authority
	group     string // operator group as configured; "" if it is not in force
	limits    Limits
	log       *slog.Logger
	routes    []route
	http      *http.Server
	cancel    context.CancelFunc // ends the context of every request

	served   *tally // connections
	surplus  *tally // connections that are only told that there are too many
	requests *tally
}

// New makes a server. It opens nothing and starts no goroutine.
func New(cfg Config) *Server {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		backend:  cfg.Backend,
		group:    cfg.OperatorGroup,
		limits:   cfg.Limits.withDefaults(),
		log:      log,
		cancel:   cancel,
		served:   newTally(),
		surplus:  newTally(),
		requests: newTally(),
	}
	gid, err := lookupGroup(cfg.OperatorGroup)
	if err != nil {
		s.group = ""
		log.LogAttrs(ctx, slog.LevelWarn, "operator group is not in force", slog.Any("err", err))
	}
	s.authority = authority{service: cfg.ServiceUID, operator: gid}
	s.routes = s.table()

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	s.http = &http.Server{
		Handler:                      http.HandlerFunc(s.handle),
		Protocols:                    protocols,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is as wrong here as any other
		ReadHeaderTimeout:            s.limits.Header,
		// It ends with the body, and a client may then be silent for as long as
		// its answer takes. It also ends the patience of net/http with the body
		// of a request that was refused, of which it reads the rest.
		ReadTimeout:    s.limits.Header + s.limits.Body,
		WriteTimeout:   s.limits.Write, // of answers that net/http gives by itself; ours have their own
		MaxHeaderBytes: s.limits.HeaderBytes,
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: s.connState,
		ErrorLog:  slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers on ln until ln or the server is closed; then it returns nil. It
// owns ln, and has closed it when it returns.
//
// Closing ln ends no request that is being answered, and no connection that was
// accepted. Serve may be called again, with another listener: main has moved
// back here.
func (s *Server) Serve(ln net.Listener) error {
	err := s.http.Serve(&listener{Listener: ln, server: s})
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("accept on the control socket: %w", err)
}

// Close ends everything: it ends the contexts of open requests, gives them a
// moment ([Limits].Close) to send what their end is, closes all listeners and
// connections, and returns when nothing is left. A request that does not end
// with its context is given up after another such moment, and is an error.
//
// Close waits for calls of the Backend: it must not be called from where the
// Backend needs somebody to get on.
func (s *Server) Close() error {
	s.cancel()
	await(s.requests.close(), s.limits.Close)
	err := s.http.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // the caller's listener, closed by the caller
	}
	inTime := await(s.served.close(), s.limits.Close) && await(s.surplus.close(), s.limits.Close)
	if !inTime {
		err = errors.Join(err, fmt.Errorf("%d requests do not end", s.requests.count()))
	}
	if err != nil {
		return fmt.Errorf("close the control server: %w", err)
	}
	return nil
}

// await waits for ch to be closed, for at most d.
func await(ch <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ch:
		return true
	case <-timer.C:
		return false
	}
}
