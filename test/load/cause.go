package load

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// Cause is why a request failed, in one word.
type Cause string

// The causes.
const (
	Refused Cause = "refused" // nobody listens, or a unix socket's backlog is full
	Reset   Cause = "reset"   // the connection was broken
	EOF     Cause = "eof"     // it was closed before the answer was complete
	Timeout Cause = "timeout" // no answer in time
	Content Cause = "content" // the answer is complete and wrong, a status of 500 included
	Other   Cause = "other"
)

// Cause says why it failed.
func (f Failure) Cause() Cause { return causeOf(&phaseError{f.Phase, f.Err}) }

func causeOf(err error) Cause {
	var p *phaseError
	dialing := errors.As(err, &p) && p.phase == PhaseDial
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), dialing && errors.Is(err, syscall.EAGAIN):
		return Refused
	case errors.Is(err, errTimeout), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return Timeout
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Reset
	case errors.Is(err, errClosed), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return EOF
	case p != nil && p.phase == PhaseContent:
		return Content
	}
	return Other
}
