package controld

import (
	"net/http"

	"github.com/hdctl/handoff/upgrade/control"
)

// history answers GET /v1/history.
func (s *Server) history(a *answer, r *http.Request, _ []byte) {
	limit, e := decodeHistory(r.URL.RawQuery)
	if e != nil {
		a.refuse(e, nil)
		return
	}
	l := list{a: a, r: r}
	err := s.backend.History(r.Context(), limit, func(entry control.Entry) error {
		line, err := encode(control.Line{Entry: &entry})
		if err != nil {
			return l.fail(err)
		}
		return l.send(line)
	})
	if l.whole(err) {
		_ = a.open() // a history may be empty
	}
}
