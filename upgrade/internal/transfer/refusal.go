package transfer

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Codes of a [Refused]. They are part of the protocol.
const (
	CodeDraining = "draining" // the receiver is on its way out itself
	CodeHeld     = "held"     // an operator has closed its door
	CodeBusy     = "busy"     // it has no room now; the next try may succeed
	CodeFiles    = "files"    // it has no file descriptors left
	CodeListener = "listener" // it has no such listener
	CodeSession  = "session"  // it does not understand the session
	CodeError    = "error"    // whatever else went wrong
)

// ErrWithdrawn is returned, wrapped together with the cause, for a connection
// whose offer got no answer and will get none. It is the sender's as before.
var ErrWithdrawn = errors.New("transfer: withdrawn")

// Refused says that the receiver does not want a connection. It is the sender's as
// before.
type Refused struct {
	Code    string // for programs; one that is not known here is like CodeError
	Message string // for people; at most maxMessage bytes of it are sent
}

// Error returns the code and the message.
func (e *Refused) Error() string {
	if e.Message == "" {
		return "connection refused by the other generation: " + e.Code
	}
	return fmt.Sprintf("connection refused by the other generation: %s: %s", e.Code, e.Message)
}

// maxMessage bounds a message: a refusal that does not fit a frame would never
// arrive.
const maxMessage = 1024

// refusal makes the answer to an offer of the error of an adopt function.
func refusal(err error) Refused {
	r := Refused{Code: CodeError, Message: err.Error()}
	var refused *Refused
	switch {
	case errors.As(err, &refused):
		r = *refused
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		r.Code = CodeFiles
	}
	if r.Code == "" {
		r.Code = CodeError // the empty one means that it was adopted
	}
	if len(r.Message) > maxMessage {
		r.Message = strings.ToValidUTF8(r.Message[:maxMessage], "")
	}
	return r
}
