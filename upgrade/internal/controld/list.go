package controld

import (
	"errors"
	"net/http"

	"github.com/hdctl/handoff/upgrade/control"
)

// list is an answer of many lines, with an end of its own: it is complete, or it
// says that it is not. Nothing here grows with its length.
type list struct {
	a      *answer
	r      *http.Request
	broken error // why it ended early; a.err if it is the client's fault
}

// send sends a piece of the list, which is whole lines. An error is final, and
// the one of all further calls.
func (l *list) send(lines []byte) error {
	switch n := len(lines); {
	case l.broken != nil:
		return l.broken
	case l.r.Context().Err() != nil:
		return l.fail(l.r.Context().Err())
	case n == 0:
		return nil
	case lines[n-1] != '\n':
		// What follows would be taken for the rest of it.
		return l.fail(errors.New("the list has half a line"))
	}
	return l.fail(l.a.lines(lines))
}

// fail ends the list with err, if that is one.
func (l *list) fail(err error) error {
	l.broken = err
	return err
}

// whole tells whether the list is complete, given the error of who has made it.
// Otherwise it tells the client, if that is still there, and the answer is done.
func (l *list) whole(err error) bool {
	switch {
	case l.a.err != nil:
		return false // nobody to tell
	case l.r.Context().Err() != nil && (l.broken != nil || err != nil):
		err = errClosed() // or the client is gone, and does not read it
	case l.broken != nil:
		err = l.broken
	}
	switch {
	case err == nil:
		return true
	case l.a.begun():
		_ = l.a.line(control.Line{Error: asError(err)})
	default:
		l.a.refuse(asError(err), nil)
	}
	return false
}
