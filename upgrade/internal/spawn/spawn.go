package spawn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
)

// ErrAlive is returned by Start while the process that an earlier Start
// returned lives.
var ErrAlive = errors.New("a process started earlier still lives")

// File is a file descriptor with the name under which it is handed over.
type File struct {
	Name string
	FD   int
}

// Program is what to start. The zero value is the path by which the service was
// started, with its symlinks as they are at that moment.
//
// Whatever is started, it goes on by that path: its os.Args[0], and what it would
// start in its turn, is the same as in its parent.
type Program struct {
	// Path is another program to start, this once. It must be absolute.
	Path string

	// File, if not nil, is executed instead of any path: also a file that was
	// deleted, or replaced, or that has never had a path (memfd_create(2)). Path
	// is for messages then. It must be open for reading or with O_PATH, is
	// borrowed for the call, and may be close-on-exec. It cannot be a script.
	//
	// An open file keeps its content when another one takes its place. It does
	// not when somebody writes into it (cp(1) without --remove-destination),
	// which the kernel allows as soon as no process executes it.
	File *os.File
}

// Starter starts the next generation.
type Starter interface {
	// Start starts a program and passes it files, whose names are unique and
	// not empty. The descriptors are only borrowed. It returns when the program
	// has been executed; what it does then is told by Child.
	//
	// Only one child may live at a time: ErrAlive. After an error, and after
	// Child.Exited, it can be called again.
	Start(ctx context.Context, files []File, p Program) (Child, error)
}

// Child is a started process. Its methods may be called concurrently.
type Child interface {
	// PID is the process ID. It is safe to signal by it only as long as Exited
	// is open; Kill is safe always.
	PID() int
	// Kill sends SIGKILL, by pidfd. It returns nil if the process is gone, and
	// does not wait for its end.
	Kill() error
	// Exited is closed when the process is gone, it was waited for, and its
	// output has been read. If a process that it has left behind keeps the
	// output open, that is waited for only for a second.
	Exited() <-chan struct{}
	// Exit says how the process ended. Valid after Exited is closed.
	Exit() Exit
	// Output returns the last lines that the process has printed so far on
	// stdout and stderr, without newlines: at most 50 lines and 16 KiB. Lines
	// longer than 4 KiB come in pieces.
	Output() []string
}

// Exit is the end of a process.
type Exit struct {
	Code   int            // exit status, -1 if it was killed or is not known
	Signal syscall.Signal // that killed it, or 0
	Err    error          // why neither is known
}

// String describes e like [os.ProcessState] does: "exit status 3",
// "signal: killed".
func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Signal != 0:
		return "signal: " + e.Signal.String()
	default:
		return fmt.Sprintf("exit status %d", e.Code)
	}
}

// Options configure New. The zero value is fine.
type Options struct {
	// Logger gets debug messages. Nil: none.
	Logger *slog.Logger

	// Output, if not nil, is called with each line that a child prints, until
	// Child.Exited is closed: without newline, at most 4 KiB, stream is 1
	// (stdout) or 2 (stderr). Calls do not overlap. While it blocks, so does
	// a child that prints more than a pipe holds, and Child.Exited waits.
	Output func(stream int, line string)
}
