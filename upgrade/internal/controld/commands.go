package controld

import (
	"context"
	"errors"
	"net/http"

	"github.com/hdctl/handoff/upgrade/control"
)

// drain answers POST /v1/drain.
func (s *Server) drain(a *answer, r *http.Request, body []byte) {
	command(s, a, r, body, decodeDrain, s.backend.Drain)
}

// pause answers POST /v1/pause.
func (s *Server) pause(a *answer, r *http.Request, body []byte) {
	command(s, a, r, body, decodePause, s.backend.Pause)
}

// command answers a request that changes the status, with the status after it.
// do is a method of the Backend.
func command[T any](s *Server, a *answer, r *http.Request, body []byte, decode func([]byte) (T, *control.Error),
	do func(context.Context, T, Peer) error,
) {
	req, e := decode(body)
	if e != nil {
		a.refuse(e, nil)
		return
	}
	if err := do(r.Context(), req, a.conn.peer); err != nil {
		a.refuse(outcome(r, err), nil)
		return
	}
	s.status(a, r, nil)
}

// end answers POST /v1/end.
func (s *Server) end(a *answer, r *http.Request, body []byte) {
	req, e := decodeEnd(body)
	if e != nil {
		a.refuse(e, nil)
		return
	}
	result, err := s.backend.End(r.Context(), req, a.conn.peer)
	switch {
	case err != nil:
		a.refuse(outcome(r, err), nil)
	case result == nil:
		a.refuse(errNoResult(), nil)
	default:
		// A list that is empty is [], not null.
		s.sendValue(a, control.EndResult{Generations: append([]int{}, result.Generations...)})
	}
}

// reconfigure answers POST /v1/reconfigure.
func (s *Server) reconfigure(a *answer, r *http.Request, body []byte) {
	req, e := decodeReconfigure(body)
	if e != nil {
		a.refuse(e, nil)
		return
	}
	result, err := s.backend.Reconfigure(r.Context(), req, a.conn.peer)
	switch {
	case err != nil:
		a.refuse(outcome(r, err), nil)
	case result == nil:
		a.refuse(errNoResult(), nil)
	default:
		s.sendValue(a, result)
	}
}

// outcome is the answer to a command that has failed. It does not return if there
// is none.
func outcome(r *http.Request, err error) *control.Error {
	if e, ok := errors.AsType[*control.Error](err); ok {
		return e
	}
	if r.Context().Err() != nil {
		// What became of the command is not known here. A connection that
		// breaks says so; an error would be taken for an answer.
		panic(http.ErrAbortHandler)
	}
	return asError(err)
}
