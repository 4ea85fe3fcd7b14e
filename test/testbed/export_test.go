package testbed

import (
	"os"

	"golang.org/x/sys/unix"
)

// ParseField is for its test.
var ParseField = parseField

// NameOf is for its test.
var NameOf = nameOf

// Sweep is for its test.
var Sweep = sweep

// OnThread is for its test.
var OnThread = onThread

// Directory returns the testbed's directory on the host; its cgroup has the
// same base name.
func (tb *Testbed) Directory() string { return tb.home.dir }

// JanitorPID returns the PID of the process that cleans up.
func (tb *Testbed) JanitorPID() int { return tb.home.janitor.Process.Pid }

// HostCgroups returns the names of the host's topmost cgroups.
func HostCgroups() ([]string, error) {
	root, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	// root is only good for names, like a descriptor of O_PATH.
	fd, err := unix.Openat(int(root.Fd()), ".", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), "cgroup2")
	defer func() { _ = dir.Close() }()
	return dir.Readdirnames(-1)
}
