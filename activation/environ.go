package activation

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
)

const (
	// firstFD is SD_LISTEN_FDS_START.
	firstFD = 3

	// noName is what sd_listen_fds_with_names(3) calls a descriptor without one.
	noName = "unknown"
)

// environ is what systemd says in the environment.
type environ struct {
	listenPID     string
	listenPIDFDID string // the process again, by inode number of its pidfd; systemd 259 and later
	listenFDs     string
	listenFDNames string
	execPID       string // systemd 248 and later
}

// takeEnviron reads the variables and removes those of the socket activation: a
// child would find numbers in them that mean other descriptors there. The PIDs
// protect only those children that look at them.
func takeEnviron() environ {
	return environ{
		listenPID:     takeVariable("LISTEN_PID"),
		listenPIDFDID: takeVariable("LISTEN_PIDFDID"),
		listenFDs:     takeVariable("LISTEN_FDS"),
		listenFDNames: takeVariable("LISTEN_FDNAMES"),
		execPID:       os.Getenv("SYSTEMD_EXEC_PID"),
	}
}

func takeVariable(key string) string {
	value := os.Getenv(key)
	os.Unsetenv(key)
	return value
}

// process is how systemd names a process.
type process struct {
	pid     int
	pidfdID uint64 // 0: not known
}

// announcement is what the environment says about one process.
type announcement struct {
	bySystemd  bool     // systemd started it: nothing is bound
	count      int      // of the descriptors from firstFD on; nobody has looked whether they are there
	names      []string // at most count
	foreignPID int      // the descriptors were passed to this other process
}

// name returns the name of the i-th descriptor. An empty one is what a missing
// one is: nobody can have meant it.
func (a announcement) name(i int) string {
	if i >= len(a.names) || a.names[i] == "" {
		return noName
	}
	return a.names[i]
}

// announced interprets env for process p. Empty variables count as unset.
func announced(env environ, p process) (announcement, error) {
	a := announcement{bySystemd: env.execPID == strconv.Itoa(p.pid)}
	if env.listenPID == "" {
		return a, nil
	}
	pid, err := strconv.Atoi(env.listenPID)
	if err != nil {
		return a, fmt.Errorf("LISTEN_PID=%q is not a number", env.listenPID)
	}
	if pid != p.pid {
		a.foreignPID = pid
		return a, nil
	}
	if env.listenPIDFDID != "" {
		id, err := strconv.ParseUint(env.listenPIDFDID, 10, 64)
		if err != nil {
			return a, fmt.Errorf("LISTEN_PIDFDID=%q is not a number", env.listenPIDFDID)
		}
		if p.pidfdID != 0 && id != p.pidfdID {
			a.foreignPID = pid // an earlier process that had this PID
			return a, nil
		}
	}
	a.bySystemd = true
	if env.listenFDs == "" {
		return a, nil
	}
	a.count, err = strconv.Atoi(env.listenFDs)
	if err != nil || a.count < 0 || a.count > math.MaxInt32-firstFD {
		return announcement{bySystemd: true}, fmt.Errorf("LISTEN_FDS=%q is not a number of descriptors", env.listenFDs)
	}
	if env.listenFDNames == "" {
		return a, nil
	}
	// systemd joins the names with colons, escapes nothing, and allows no colon in
	// a name (systemd.socket(5), FileDescriptorName=).
	a.names = strings.Split(env.listenFDNames, ":")
	if len(a.names) > a.count {
		// Which ones are too many? A name for the wrong socket is worse than none.
		return announcement{bySystemd: true}, fmt.Errorf("LISTEN_FDNAMES=%q has %d names for %d descriptors",
			env.listenFDNames, len(a.names), a.count)
	}
	return a, nil
}
