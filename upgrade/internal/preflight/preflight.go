package preflight

import (
	"context"
	"os"

	"github.com/hdctl/handoff/upgrade/control"
)

// Names of the checks, in the order of the result.
const (
	NameFile         = "file"
	NameExecutable   = "executable"
	NameArchitecture = "architecture"
	NameComplete     = "complete"
	NameInterpreter  = "interpreter"
	NameCommand      = "command"
	NameDescriptors  = "descriptors"
	NameMemory       = "memory"
	NameProcesses    = "processes"
)

// Config says what is going to be started.
type Config struct {
	// Path is the program's. Symbolic links are followed.
	Path string

	// File, if not nil, is looked at instead of what is at Path, which is only
	// for messages then: the open file of a program that ran before. It is
	// borrowed for the call; its offset is left alone.
	File *os.File

	// Command is a program that checks what Path would meet, such as its
	// configuration, and its arguments. "%b" in them is the path of the program
	// that is going to run, by which Command can open and execute it; with File
	// it leads to that one, and is good for Command and what it starts only.
	// Exit status 0 says yes. It gets /dev/null as stdin, and no descriptor of this
	// process but those that are not close-on-exec, of which Go opens none. Empty: no
	// such check.
	Command []string

	// Env is the environment of Command. Nil: that of this process.
	Env []string

	// MemoryNeeded is how many bytes the next generation is expected to take. 0:
	// as many as this process has now.
	MemoryNeeded int64

	// Files is how many file descriptors are handed over.
	Files int
}

// Run makes all checks and returns what they have found. It never fails by
// itself: what cannot be found out is left out, or said in a message.
//
// The end of ctx kills Command with everything that it has started; it has failed
// then. Everything else takes less than a millisecond, plus what the file system
// takes.
func Run(ctx context.Context, c Config) []control.Check {
	return host{proc: "/proc", cgroups: "/sys/fs/cgroup"}.run(ctx, c)
}

// host is where the kernel tells about this machine.
type host struct {
	proc    string // proc(5)
	cgroups string // mount point of cgroups(7), version 2
}

func (h host) run(ctx context.Context, c Config) []control.Check {
	checks := program(c)
	if len(c.Command) > 0 && Failed(checks) == nil {
		checks = append(checks, command(ctx, c))
	}
	return append(checks, h.limits(c)...)
}

// Failed returns the first check that has failed, or nil.
func Failed(checks []control.Check) *control.Check {
	for i := range checks {
		if checks[i].Result == control.CheckFailed {
			return &checks[i]
		}
	}
	return nil
}

func pass(name, message string) control.Check {
	return control.Check{Name: name, Result: control.CheckOK, Message: message}
}

func warn(name, message, hint string) control.Check {
	return control.Check{Name: name, Result: control.CheckWarning, Message: message, Hint: hint}
}

func fail(name, message, hint string) control.Check {
	return control.Check{Name: name, Result: control.CheckFailed, Message: message, Hint: hint}
}
