package controld

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// answer is the answer to one request. It is used by the goroutine of the
// request only.
type answer struct {
	http.ResponseWriter
	conn    *conn
	control *http.ResponseController
	limit   time.Duration // for the client to take a piece
	status  int           // 0: nothing is sent yet
	stream  bool          // lines
	err     error         // the first failure to write; nothing is written after it
}

func newAnswer(w http.ResponseWriter, c *conn, limit time.Duration) *answer {
	return &answer{ResponseWriter: w, conn: c, control: http.NewResponseController(w), limit: limit}
}

// begun tells whether the client may have seen something already.
func (a *answer) begun() bool { return a.status != 0 }

// extend gives the client time to take what comes next.
func (a *answer) extend() {
	// It can only fail on a connection that is closed: the write says so, too.
	_ = a.control.SetWriteDeadline(time.Now().Add(a.limit))
}

// fail ends the whole answer when a write has failed. The connection is closed
// at once and not when the handler returns, which can take as long as an upgrade.
func (a *answer) fail(err error) error {
	a.err = fmt.Errorf("write to the client: %w", err)
	_ = a.conn.Close()
	return a.err
}

// send sends a whole answer: v as JSON.
func (a *answer) send(status int, v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	a.extend()
	a.status = status
	a.Header().Set("Content-Length", strconv.Itoa(len(body)))
	a.WriteHeader(status)
	if _, err := a.Write(body); err != nil {
		return a.fail(err)
	}
	return nil
}

// refuse sends e as a whole answer, with the result of an upgrade or nil.
func (a *answer) refuse(e *control.Error, result *control.Result) {
	if err := a.send(statusOf(e.Code), refusal{e, result}); err != nil && !a.begun() {
		// The result cannot be encoded. The error can.
		_ = a.send(statusOf(e.Code), refusal{Error: e})
	}
}

// begin begins a stream of lines. The headers go with the first line that does.
func (a *answer) begin() {
	a.status, a.stream = http.StatusOK, true
	a.Header().Set("Content-Type", typeLines)
	a.WriteHeader(http.StatusOK)
}

// open begins a stream of lines: the client gets the headers now.
func (a *answer) open() error {
	if a.err != nil || a.begun() {
		return a.err
	}
	a.extend()
	a.begin()
	if err := a.control.Flush(); err != nil {
		return a.fail(err)
	}
	return nil
}

// lines sends whole lines of a stream, and leaves it to net/http when the last
// few KiB go. An error means that the client is gone or too slow, and is dropped;
// further calls do nothing.
func (a *answer) lines(data []byte) error {
	if a.err != nil {
		return a.err
	}
	if !a.begun() {
		a.begin()
	}
	a.extend()
	if _, err := a.Write(data); err != nil {
		return a.fail(err)
	}
	return nil
}

// line sends one line of a stream, at once. Errors are those of lines.
func (a *answer) line(l control.Line) error {
	data, err := encode(l)
	if err != nil {
		return err
	}
	if err := a.lines(data); err != nil {
		return err
	}
	if err := a.control.Flush(); err != nil {
		return a.fail(err)
	}
	return nil
}
