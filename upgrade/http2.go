package upgrade

import (
	"net/http"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

// http2Preface is the length of what a client of HTTP/2 says first (RFC 9113,
// section 3.4), in bytes.
const http2Preface = 24

// The open streams of an HTTP/2 connection are counted above the flags of its
// state.
const (
	oneStream  track.State = 1 << 23
	streamMask             = ^(oneStream - 1)
)

// serveStream serves a stream of HTTP/2. In a drain its answer announces the end of
// the connection if no other stream is open: a GOAWAY while there are some makes the
// client open another connection beside the one that has to stay.
func (s *httpServer) serveStream(c *Conn, next http.Handler, w http.ResponseWriter, r *http.Request) {
	c.entry.Update(func(s track.State) (track.State, bool) {
		s |= multiplexed | pinned
		if s&streamMask == streamMask {
			return s, true // more than fit the counter: more than any server allows
		}
		return s + oneStream, true
	})
	c.givePlaceBack()
	defer c.entry.Update(func(s track.State) (track.State, bool) { return s - oneStream, s&streamMask != 0 })
	if s.draining.Load() == nil {
		next.ServeHTTP(w, r)
		return
	}
	a := &lastAnswer{ResponseWriter: w, conn: c}
	next.ServeHTTP(a, r)
	a.decide()
}

// lastAnswer decides at the last moment, when the header is sent, whether it is that
// of the last stream.
type lastAnswer struct {
	http.ResponseWriter
	conn    *Conn
	decided bool
}

func (a *lastAnswer) decide() {
	if a.decided {
		return
	}
	a.decided = true
	if a.conn.entry.State()&streamMask == oneStream {
		a.Header().Set("Connection", "close")
	}
}

func (a *lastAnswer) WriteHeader(status int) {
	if status >= http.StatusOK { // an informational one is not the answer
		a.decide()
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *lastAnswer) Write(p []byte) (int, error) {
	a.decide()
	return a.ResponseWriter.Write(p)
}

// Flush is what handlers look for that know no ResponseController.
func (a *lastAnswer) Flush() { _ = a.FlushError() }

// FlushError is what a ResponseController looks for.
func (a *lastAnswer) FlushError() error {
	a.decide()
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Push pushes a resource, where the client allows it.
func (a *lastAnswer) Push(target string, opts *http.PushOptions) error {
	if p, ok := a.ResponseWriter.(http.Pusher); ok {
		return p.Push(target, opts)
	}
	return http.ErrNotSupported
}

// Unwrap is for http.ResponseController.
func (a *lastAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
