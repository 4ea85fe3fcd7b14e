package controld

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/hdctl/handoff/upgrade/control"
)

// upgrade answers POST /v1/upgrade.
func (s *Server) upgrade(a *answer, r *http.Request, body []byte) {
	rollout(s, a, r, body, decodeUpgrade, s.backend.Upgrade)
}

// promote answers POST /v1/promote.
func (s *Server) promote(a *answer, r *http.Request, body []byte) {
	rollout(s, a, r, body, decodePromote, s.backend.Promote)
}

// rollback answers POST /v1/rollback.
func (s *Server) rollback(a *answer, r *http.Request, body []byte) {
	rollout(s, a, r, body, decodeRollback, s.backend.Rollback)
}

// rollout answers a request to which generation serves: with the events on the
// way, as they happen, and with the result. run is a method of the Backend.
func rollout[T any](s *Server, a *answer, r *http.Request, body []byte, decode func([]byte) (T, *control.Error),
	run func(context.Context, T, Peer, func(control.Event)) *control.Result,
) {
	req, e := decode(body)
	if e != nil {
		a.refuse(e, nil)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	result := run(ctx, req, a.conn.peer, func(ev control.Event) {
		err := a.line(control.Line{Event: &ev})
		if a.err != nil {
			cancel() // to us, a client that does not read is gone
		} else if err != nil {
			s.log.LogAttrs(ctx, slog.LevelError, "control event cannot be sent", slog.Any("err", err))
		}
	})
	switch {
	case a.err != nil:
		// Nobody to tell.
	case result == nil && ctx.Err() != nil:
		// The end is not known here. A connection that breaks says so; an
		// error would be taken for an answer.
		panic(http.ErrAbortHandler)
	case result == nil:
		endRollout(a, nil, errNoResult())
	case result.Outcome == control.OutcomeRefused && result.Error != nil && !a.begun():
		a.refuse(result.Error, result)
	default:
		endRollout(a, result, nil)
	}
}

// endRollout sends the last line.
func endRollout(a *answer, result *control.Result, e *control.Error) {
	if err := a.line(control.Line{Result: result, Error: e}); err != nil && a.err == nil {
		_ = a.line(control.Line{Error: control.Errorf(control.CodeInternal, "%v", err)})
	}
}
