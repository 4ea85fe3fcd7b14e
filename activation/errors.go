package activation

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var (
	// ErrTaken is returned by the second [Take] in a process: the descriptors
	// that systemd passed have one owner.
	ErrTaken = errors.New("activation: sockets already taken")

	// ErrClaimed is wrapped by the error of a second claim of the same sockets.
	ErrClaimed = errors.New("activation: already claimed")
)

// NameError is the error for a socket that is configured in the program and was
// not passed to it.
type NameError struct {
	Name   string   // what was asked for
	Passed []string // the names that were passed, each once, in the order of the descriptors

	hint string // what to do about it
}

func (e *NameError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "activation: no socket named %q was passed", e.Name)
	if len(e.Passed) > 0 {
		quoted := make([]string, len(e.Passed))
		for i, name := range e.Passed {
			quoted[i] = strconv.Quote(name)
		}
		fmt.Fprintf(&b, " (passed: %s)", strings.Join(quoted, ", "))
	}
	b.WriteString(e.hint)
	return b.String()
}

// KindError is the error for a name that stands for another kind of socket or
// file than was asked for, such as a datagram socket for [Sockets.Listen].
type KindError struct {
	Name string // what was asked for
	Want string // what the call can use, with the settings of systemd.socket(5) that make it
	Got  string // what was passed, with network and address
}

func (e *KindError) Error() string {
	return fmt.Sprintf("activation: socket %q is %s, not %s", e.Name, e.Got, e.Want)
}
