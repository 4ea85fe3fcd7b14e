package controld

import (
	"errors"
	"net/http"

	"github.com/hdctl/handoff/upgrade/control"
)

// conns answers GET /v1/conns. The list goes through as the Backend makes it: no
// line is looked at.
func (s *Server) conns(a *answer, r *http.Request, _ []byte) {
	filter, e := decodeConns(r.URL.RawQuery)
	if e != nil {
		a.refuse(e, nil)
		return
	}
	l := list{a: a, r: r}
	end, err := s.backend.Conns(r.Context(), filter, l.send)
	if err == nil && end == nil {
		err = errors.New("the list of connections has no end")
	}
	if l.whole(err) {
		_ = a.line(control.Line{End: end}) // can be encoded: there are only strings and whole numbers in it
	}
}
