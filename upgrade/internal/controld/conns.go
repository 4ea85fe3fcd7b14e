package controld

import (
	"errors"
	"net/http"

	"github.com/hdctl/handoff/upgrade/control"
)

// conns answers GET /v1/conns. The list goes through as the Backend makes it:
// nothing here grows with its length, and no line is looked at.
func (s *Server) conns(a *answer, r *http.Request, _ []byte) {
	filter, e := decodeConns(r.URL.RawQuery)
	if e != nil {
		a.refuse(e, nil)
		return
	}
	var broken error // why the list ended early; a.err if it is the client's fault
	end, err := s.backend.Conns(r.Context(), filter, func(lines []byte) error {
		if broken == nil {
			broken = emit(a, r, lines)
		}
		return broken
	})
	switch {
	case a.err != nil:
		return // nobody to tell
	case r.Context().Err() != nil && (broken != nil || err != nil):
		err = errClosed() // or the client is gone, and does not read it
	case broken != nil:
		err = broken
	case err == nil && end == nil:
		err = errors.New("the list of connections has no end")
	}
	switch {
	case err == nil:
		_ = a.line(control.Line{End: end}) // can be encoded: there are only strings and whole numbers in it
	case a.begun():
		_ = a.line(control.Line{Error: asError(err)})
	default:
		a.refuse(asError(err), nil)
	}
}

// emit sends a piece of a list of connections.
func emit(a *answer, r *http.Request, lines []byte) error {
	switch n := len(lines); {
	case r.Context().Err() != nil:
		return r.Context().Err()
	case n == 0:
		return nil
	case lines[n-1] != '\n':
		// What follows would be taken for the rest of it.
		return errors.New("the list of connections has half a line")
	}
	return a.lines(lines)
}
