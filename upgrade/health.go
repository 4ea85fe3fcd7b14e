package upgrade

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/track"
)

// How healthy a generation is can be seen from its answers. Each request that comes
// by [HTTP] is counted once, in the page that the generation before it reads:
//
//   - It has failed if its status is 500 or more, or if the handler did not return:
//     it panicked, which includes [http.ErrAbortHandler], because the client has
//     half an answer. That is not so if the request's context had ended before, and
//     nobody was there any more to notice: the client had gone, as it has where
//     [net/http/httputil.ReverseProxy] panics most, or the drain's deadline had come.
//   - Its latency is the time that the handler took. A hijacked connection has none:
//     it is counted as soon as it is hijacked, once more if the handler panics
//     later, and for the rest it is no request any more. What lasts as long as it
//     likes has none either, see [answering.endless].
//
// What net/http answers itself, such as 400 to nonsense, is not counted.

// untimed is the latency of a request that has none.
const untimed time.Duration = -1

// serve is the handler around the service's: it counts the request.
func (s *httpServer) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	c, _ := ConnFrom(r.Context())
	page := s.page.Load()
	if c != nil {
		page = c.listener().pulse
	}
	if page == nil {
		s.answer(c, next, w, r)
		return
	}
	a := answering{server: s, page: page, conn: c, w: w, r: r, began: time.Now()}
	defer a.end()
	s.answer(c, next, w, r)
	a.returned = true
}

// answering is a request that a handler answers. It lives on the stack: that it is
// counted costs no allocation.
type answering struct {
	server   *httpServer
	page     *pulse.Page
	conn     *Conn // nil: not known
	w        http.ResponseWriter
	r        *http.Request
	began    time.Time
	returned bool
}

// end counts the request. It does not recover from a panic.
func (a *answering) end() {
	took := time.Since(a.began)
	failed := !a.returned && a.r.Context().Err() == nil
	if a.conn != nil && a.conn.entry.Phase() == track.Hijacked {
		if failed {
			a.page.Observe(untimed, true)
		}
		return // it was counted when it was hijacked
	}
	if took >= endlessAfter && a.endless() {
		took = untimed
	}
	a.page.Observe(took, failed || a.server.status(a.w, a.r) >= http.StatusInternalServerError)
}

// endlessAfter is how long an answer takes at least for anybody to ask whether it
// has an end of its own.
const endlessAfter = time.Second

// endless tells whether the handler took as long as the client or the service
// liked: a tunnel, an answer that the handler said is a stream ([Conn.OnDrain]), or
// one of a type that is. The time to its first byte would be its latency, but
// nothing short of a ResponseWriter of our own sees that, which costs an allocation
// and hides what net/http looks for in its own.
func (a *answering) endless() bool {
	if a.r.Method == http.MethodConnect || a.conn != nil && a.conn.entry.Phase() == track.Stream {
		return true
	}
	switch kind, _, _ := strings.Cut(a.w.Header().Get("Content-Type"), ";"); kind {
	case "text/event-stream", "multipart/x-mixed-replace":
		return true
	default:
		return strings.HasPrefix(kind, "application/grpc")
	}
}

// statusField is where net/http keeps the status of an answer, which it tells
// nobody: in a field of its ResponseWriter for HTTP/1, and for HTTP/2 in a field of
// what that points to.
type statusField struct {
	writer reflect.Type // a pointer to a struct
	state  int          // index of the field that points to the struct with the status; -1: it is the writer
	status int          // index of the field; -1: there is none
}

// findStatus looks for the status in a type of ResponseWriter.
func findStatus(writer reflect.Type) *statusField {
	f := &statusField{writer: writer, state: -1, status: -1}
	if writer.Kind() != reflect.Pointer || writer.Elem().Kind() != reflect.Struct {
		return f
	}
	in := writer.Elem()
	if state, ok := in.FieldByName("rws"); ok && len(state.Index) == 1 && state.Type.Kind() == reflect.Pointer && state.Type.Elem().Kind() == reflect.Struct {
		f.state, in = state.Index[0], state.Type.Elem()
	}
	if status, ok := in.FieldByName("status"); ok && len(status.Index) == 1 && status.Type.Kind() == reflect.Int {
		f.status = status.Index[0]
	}
	return f
}

// read returns the status of w, which is of the type; 0 if there is none yet.
func (f *statusField) read(w http.ResponseWriter) int {
	if f.status < 0 {
		return 0
	}
	v := reflect.ValueOf(w).Elem()
	if f.state >= 0 {
		if v = v.Field(f.state); v.IsNil() {
			return 0
		}
		v = v.Elem()
	}
	return int(v.Field(f.status).Int())
}

// status returns the status of an answer that w has written, 0 if it has not begun,
// or if this version of net/http keeps it where we do not know.
func (s *httpServer) status(w http.ResponseWriter, r *http.Request) int {
	version := versionOf(r)
	if !s.statusKnown[version].Load() {
		return 0
	}
	f := s.statusField[version].Load()
	if t := reflect.TypeOf(w); f == nil || f.writer != t {
		f = findStatus(t) // there is one type of each version
		s.statusField[version].Store(f)
	}
	return f.read(w)
}

// The versions of HTTP, which have ResponseWriters of their own.
const (
	http1 = iota
	http2
	httpVersions
)

func versionOf(r *http.Request) int {
	if r.ProtoMajor >= 2 {
		return http2
	}
	return http1
}

// verifiedStatus finds out, once a process, whether the statuses of answers can be
// read, for each version of HTTP.
var verifiedStatus = sync.OnceValue(func() (errs [httpVersions]error) {
	for version := range errs {
		errs[version] = verifyStatus(version)
	}
	return errs
})

// statusesUnknown says why statuses of answers are not known, so that only panics
// count as failures; it is empty if they are.
func statusesUnknown() string {
	errs := verifiedStatus()
	if err := errors.Join(errs[:]...); err != nil {
		return strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return ""
}
