package leak

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// FDs lists the open file descriptors of this process, sorted by number, as
// "NUMBER LINK", where LINK is what /proc/self/fd/NUMBER points to:
// "7 socket:[4711]", "8 /etc/passwd" (see proc_pid_fd(5)).
//
// It is a snapshot: other goroutines may open and close descriptors meanwhile.
func FDs() []string {
	fds, err := list("self")
	if err != nil {
		// Without /proc nothing in this module can be tested.
		panic(fmt.Sprintf("leak: %v", err))
	}
	return texts(fds)
}

// OfPID lists the open file descriptors of the process pid like [FDs] does.
// It needs the permission to ptrace that process: its owner has it, and root.
// The error wraps [os.ErrNotExist] when there is no such process.
func OfPID(pid int) ([]string, error) {
	fds, err := list(strconv.Itoa(pid))
	return texts(fds), err
}

// descriptor is an open file descriptor. The link of a socket or a pipe has an
// inode number in it, so that two descriptors are equal only if they refer to
// the same object (or to files of the same name).
type descriptor struct {
	number int
	link   string
}

func (d descriptor) String() string { return fmt.Sprintf("%d %s", d.number, d.link) }

func texts(fds []descriptor) []string {
	texts := make([]string, len(fds))
	for i, fd := range fds {
		texts[i] = fd.String()
	}
	return texts
}

// list reads /proc/PID/fd; process is a number or "self".
func list(process string) ([]descriptor, error) {
	dir := filepath.Join("/proc", process, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list file descriptors: %w", err)
	}
	own := fmt.Sprintf("/proc/%d/fd", os.Getpid())
	fds := make([]descriptor, 0, len(entries))
	for _, entry := range entries {
		number, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		link, err := os.Readlink(filepath.Join(dir, entry.Name()))
		// The descriptor through which ReadDir has just read the directory is
		// in its own list, and closed by now. (Or another goroutine's call of
		// list has its own open at the moment.)
		if err != nil || link == own {
			continue
		}
		fds = append(fds, descriptor{number, link})
	}
	slices.SortFunc(fds, func(a, b descriptor) int { return a.number - b.number })
	return fds, nil
}

// added returns what is in after and not in before, without the descriptors
// that no test is responsible for.
func added(before, after []descriptor) []descriptor {
	// The runtime's poller has one of each, opened when it is first needed.
	poller := map[string]bool{"anon_inode:[eventpoll]": true, "anon_inode:[eventfd]": true}
	for _, fd := range before {
		delete(poller, fd.link)
	}
	var more []descriptor
	for _, fd := range after {
		switch {
		case slices.Contains(before, fd), fd.link == os.DevNull:
		case poller[fd.link]:
			delete(poller, fd.link)
		default:
			more = append(more, fd)
		}
	}
	return more
}
