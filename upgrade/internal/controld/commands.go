package controld

import (
	"errors"
	"net/http"

	"github.com/hdctl/handoff/upgrade/control"
)

// drain answers POST /v1/drain.
func (s *Server) drain(a *answer, r *http.Request, body []byte) {
	req, e := decodeDrain(body)
	if e != nil {
		a.refuse(e, nil)
		return
	}
	if err := s.backend.Drain(r.Context(), req, a.conn.peer); err != nil {
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
		a.refuse(control.Errorf(control.CodeInternal, "the request ended without a result"), nil)
	default:
		// A list that is empty is [], not null.
		s.sendValue(a, control.EndResult{Generations: append([]int{}, result.Generations...)})
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
