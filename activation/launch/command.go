package launch

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Command is what to start, and how.
type Command struct {
	// Path is the program. It is not searched for in PATH. A relative one is relative
	// to Dir.
	Path string

	// Argv0 is what the program is told that it is called. "" is Path.
	Argv0 string

	Args []string // its arguments, without its name

	// Env is its environment; nil is that of the caller. What [Start] sets by itself
	// replaces what is in it; what a service manager has said to the caller, and that
	// is not true of the program, is removed (LISTEN_*, NOTIFY_SOCKET, WATCHDOG_*,
	// MAINPID).
	Env []string

	Dir string // its working directory; "" is the caller's

	Sockets []*Socket // in this order, from descriptor 3 on

	// Shim is a command that calls [Exec] with the arguments after its own. Without a
	// slash it is searched for in PATH.
	Shim []string

	// RuntimeDirectory and StateDirectory, if not empty, are what the program finds
	// in RUNTIME_DIRECTORY and STATE_DIRECTORY, systemd.exec(5). They are not made.
	RuntimeDirectory, StateDirectory string

	// Notify is told what happens to the process: one event after the other, in order,
	// the last one before Wait returns. While it runs nothing else is heard.
	Notify func(Event)
}

func (c *Command) check() error {
	switch {
	case c.Path == "":
		return errors.New("start a program: no path")
	case len(c.Shim) == 0:
		return fmt.Errorf("start %s: no shim", c.Path)
	case !strings.Contains(c.Path, "/"):
		return fmt.Errorf("start %s: a path has a slash in it", c.Path)
	}
	return nil
}

// environment is what the program gets, but for what has its PID in it. Exported
// credentials of the caller's own manager are not the program's.
func (c *Command) environment(notify, invocation string) []string {
	env := c.Env
	if env == nil {
		env = os.Environ()
	}
	env = without(env,
		"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET",
		"WATCHDOG_PID", "WATCHDOG_USEC", "SYSTEMD_EXEC_PID", "MAINPID", "MANAGERPID",
		"INVOCATION_ID", "RUNTIME_DIRECTORY", "STATE_DIRECTORY",
	)
	env = append(env, "NOTIFY_SOCKET="+notify, "INVOCATION_ID="+invocation)
	if len(c.Sockets) > 0 {
		var names []string
		for _, s := range c.Sockets {
			names = append(names, s.Name)
		}
		env = append(env, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	if c.RuntimeDirectory != "" {
		env = append(env, "RUNTIME_DIRECTORY="+c.RuntimeDirectory)
	}
	if c.StateDirectory != "" {
		env = append(env, "STATE_DIRECTORY="+c.StateDirectory)
	}
	return env
}

// newID makes an INVOCATION_ID, sd-id128(3).
func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// signalName is SIGTERM for 15.
func signalName(s unix.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}
