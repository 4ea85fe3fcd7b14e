package launch

import (
	"fmt"
	"syscall"
)

// Kind is what an [Event] tells.
type Kind int

// The kinds of events.
const (
	Started   Kind = iota // PID is the main process, and its program could be executed
	Ready                 // READY=1: it serves, or is done with reloading
	Reloading             // RELOADING=1
	Stopping              // STOPPING=1: it will end
	Status                // STATUS=: Text is new
	Main                  // MAINPID=: PID is the main process from now on
	Watchdog              // WATCHDOG=trigger: the program says that it is not well
	Ended                 // process PID has ended, as Exit says; only those that the caller is, or has become, the parent of
	Refused               // a notification was refused; Text says why
)

// String returns the name of the kind.
func (k Kind) String() string {
	names := [...]string{"started", "ready", "reloading", "stopping", "status", "main", "watchdog", "ended", "refused"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return names[k]
}

// Event is what happened to a [Process].
type Event struct {
	Kind Kind
	PID  int // of whom it is told: who has said it, or the new main process
	Text string
	Exit Exit // of Ended
}

// String returns the event in a few words.
func (e Event) String() string {
	switch e.Kind {
	case Status, Refused:
		return fmt.Sprintf("process %d: %v: %s", e.PID, e.Kind, e.Text)
	case Ended:
		return e.Exit.String()
	}
	return fmt.Sprintf("process %d: %v", e.PID, e.Kind)
}

// Exit is how a process ended.
type Exit struct {
	PID    int
	Known  bool           // false: another process was its parent, and knows
	Status int            // exit status, if no signal ended it
	Signal syscall.Signal // 0: it has exited
	Core   bool           // it has dumped core
}

// Code is what a shell would call the exit status: that of the process, 128 and the
// number of the signal that has killed it, or 1 if nothing is known.
func (e Exit) Code() int {
	switch {
	case !e.Known:
		return 1
	case e.Signal != 0:
		return 128 + int(e.Signal)
	}
	return e.Status
}

// String says how the process ended: "process 42 exited with status 3".
func (e Exit) String() string {
	switch {
	case !e.Known:
		return fmt.Sprintf("process %d has ended", e.PID)
	case e.Core:
		return fmt.Sprintf("process %d was killed by %s (core dumped)", e.PID, signalName(e.Signal))
	case e.Signal != 0:
		return fmt.Sprintf("process %d was killed by %s", e.PID, signalName(e.Signal))
	}
	return fmt.Sprintf("process %d exited with status %d", e.PID, e.Status)
}
