package controld

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"runtime/debug"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// route is one thing that can be asked for.
type route struct {
	method  string
	path    string
	command bool // only for those who may command
	serve   func(a *answer, r *http.Request, body []byte)
}

// table returns all routes. It is the whole API.
func (s *Server) table() []route {
	return []route{
		{http.MethodGet, "/v1/status", false, s.status},
		{http.MethodGet, "/v1/version", false, s.version},
		{http.MethodGet, "/v1/events", false, s.events},
		{http.MethodGet, "/v1/history", false, s.history},
		{http.MethodGet, "/v1/conns", true, s.conns}, // it shows who talks to whom
		{http.MethodPost, "/v1/upgrade", true, s.upgrade},
		{http.MethodPost, "/v1/promote", true, s.promote},
		{http.MethodPost, "/v1/rollback", true, s.rollback},
		{http.MethodPost, "/v1/drain", true, s.drain},
		{http.MethodPost, "/v1/end", true, s.end},
		{http.MethodPost, "/v1/pause", true, s.pause},
		{http.MethodPost, "/v1/reconfigure", true, s.reconfigure},
	}
}

// handle answers every request: it finds the route, checks the rights, reads the
// body, and calls.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	c := connOf(r.Context())
	c.handled.Store(true)
	a := newAnswer(w, c, s.limits.Write)
	defer s.finish(a, r)
	setHeader(a.Header(), s.versionInfo(), typeJSON)

	if c.busy {
		a.refuse(errBusy(), nil)
		return
	}
	if !s.requests.add(math.MaxInt) {
		a.refuse(errClosed(), nil)
		return
	}
	c.request = true

	route, e := s.find(a, r)
	if e == nil && route.command && !c.peer.Command {
		e = s.deny(c.peer, r)
	}
	var body []byte
	if e == nil {
		body, e = s.readBody(a, r)
	}
	if e != nil {
		a.refuse(e, nil)
		return
	}
	route.serve(a, r, body)
}

// finish is the end of every request. It contains a panic: whatever is wrong
// with the control API, the service goes on.
func (s *Server) finish(a *answer, r *http.Request) {
	v := recover()
	if v == http.ErrAbortHandler { //nolint:errorlint // a value that was panicked with, as net/http compares it
		panic(v)
	}
	if v != nil {
		s.log.LogAttrs(r.Context(), slog.LevelError, "panic in a control request", slog.String("path", printable(r.URL.Path, maxReason)),
			slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		e := control.Errorf(control.CodeInternal, "the service made a mistake while it answered").
			WithHint("its log has the details")
		switch {
		case !a.begun():
			a.refuse(e, nil)
		case a.stream:
			_ = a.line(control.Line{Error: e})
		default:
			panic(http.ErrAbortHandler) // what was sent must not look complete
		}
	}
	a.extend() // for what net/http has still in its buffer
	s.log.LogAttrs(r.Context(), slog.LevelDebug, "control request", slog.String("method", printable(r.Method, 16)),
		slog.String("path", printable(r.URL.Path, maxReason)), slog.Int("status", a.status),
		slog.Int("pid", a.conn.peer.PID), slog.Int("uid", a.conn.peer.UID))
}

// find returns the route of a request.
func (s *Server) find(a *answer, r *http.Request) (route, *control.Error) {
	var allow, all []string
	for _, rt := range s.routes {
		all = append(all, rt.method+" "+rt.path)
		if rt.path != r.URL.Path {
			continue
		}
		if rt.method == r.Method {
			return rt, nil
		}
		allow = append(allow, rt.method)
	}
	path := printable(r.URL.Path, 80)
	if allow == nil {
		return route{}, control.Errorf(control.CodeNotFound, "there is no %q", path).
			WithHint("there is: %s", strings.Join(all, ", "))
	}
	a.Header().Set("Allow", strings.Join(allow, ", "))
	return route{}, control.Errorf(control.CodeMethod, "%s does not go with %q", printable(r.Method, 16), path).
		WithHint("use %s", strings.Join(allow, " or "))
}

// deny is the error for a client that may not command.
func (s *Server) deny(p Peer, r *http.Request) *control.Error {
	s.log.LogAttrs(r.Context(), slog.LevelWarn, "control client may not command", slog.String("path", r.URL.Path),
		slog.Int("pid", p.PID), slog.Int("uid", p.UID), slog.Int("gid", p.GID))
	who := "this user"
	if p.UID < 0 {
		who = "a client that the kernel does not know"
	}
	what := "may only look, not command"
	if r.Method == http.MethodGet {
		what = "may see the status, but not who is connected"
	}
	e := control.Errorf(control.CodePermission, "%s (uid %d) %s", who, p.UID, what)
	if s.group == "" {
		return e.WithHint("be root (sudo) or the user of the service; HANDOFF_OPERATOR_GROUP= of the service can allow a group, too")
	}
	return e.WithHint("be root (sudo), the user of the service, or a member of the group %s; a new member has to log in again", s.group)
}

// versionInfo is Backend.Version for the headers of an answer. It is needed
// where no other net is: in the loop that accepts.
func (s *Server) versionInfo() (v control.Version) {
	defer func() {
		if p := recover(); p != nil {
			s.log.LogAttrs(context.Background(), slog.LevelError, "panic in a control request",
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			v = control.Version{APIVersion: control.APIVersion, Library: "unknown"}
		}
	}()
	return s.backend.Version()
}

// readBody reads the body to its end, for two reasons: no handler waits for
// a client, and net/http notices that a client is gone only after that.
func (s *Server) readBody(a *answer, r *http.Request) ([]byte, *control.Error) {
	tooLarge := func() *control.Error {
		return control.Errorf(control.CodeTooLarge, "the body of a request may have at most %d bytes", s.limits.BodyBytes)
	}
	from, limit := r.Body, s.limits.BodyBytes
	if r.ContentLength > limit {
		// Known before a byte of it is read. net/http must be told as with any
		// body that is too large: it then closes half of the connection, and
		// the client that is still sending can read its answer. A close would
		// answer its next write with a broken pipe.
		from, limit = io.NopCloser(strings.NewReader(" ")), 0
	}
	body, err := io.ReadAll(http.MaxBytesReader(a.ResponseWriter, from, limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLarge()
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, badRequest("the body did not arrive in time")
	case err != nil:
		return nil, badRequest("the body cannot be read: %v", err)
	}
	return body, nil
}

func (s *Server) status(a *answer, _ *http.Request, _ []byte) {
	status := s.backend.Status()
	if status == nil {
		a.refuse(control.Errorf(control.CodeInternal, "the service has no status"), nil)
		return
	}
	s.sendValue(a, status)
}

func (s *Server) version(a *answer, _ *http.Request, _ []byte) {
	s.sendValue(a, s.backend.Version())
}

// sendValue sends what was asked for.
func (s *Server) sendValue(a *answer, v any) {
	if err := a.send(http.StatusOK, v); err != nil && !a.begun() {
		a.refuse(control.Errorf(control.CodeInternal, "%v", err), nil)
	}
}

func (s *Server) events(a *answer, r *http.Request, _ []byte) {
	follow, e := decodeFollow(r.URL.RawQuery)
	if e != nil {
		a.refuse(e, nil)
		return
	}
	// Who follows wants to know that he does, even if nothing happens.
	if a.open() != nil {
		return
	}
	err := s.backend.Events(r.Context(), follow, func(ev control.Event) error {
		return a.line(control.Line{Event: &ev})
	})
	// When the client is gone, or the server is closed, that is no news.
	if err != nil && a.err == nil && r.Context().Err() == nil {
		_ = a.line(control.Line{Error: asError(err)})
	}
}

// asError makes an error fit for a client.
func asError(err error) *control.Error {
	if e, ok := errors.AsType[*control.Error](err); ok {
		return e
	}
	return control.Errorf(control.CodeInternal, "%v", err)
}
