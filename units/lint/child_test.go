package lint_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv has this test binary be a service in a testbed: its value says which.
const childEnv = "LINT_TEST_CHILD"

// Services that the test binary stands in for.
const (
	childReady     = "ready"     // says that it is ready, and waits
	childHandover  = "handover"  // starts another process and makes it the main one
	childOrphan    = "orphan"    // the same, and ends then
	childTakeBack  = "take-back" // and makes itself the main one again
	childSuccessor = "successor" // what those three start
)

// child is such a service. On SIGTERM it takes a moment, as one with connections does,
// and leaves a file if it was let.
func child(name string) int {
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, unix.SIGTERM)
	signal.Ignore(unix.SIGHUP)
	if err := serveAs(name); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	if name == childOrphan {
		return 0
	}
	<-terminated
	finish, err := time.ParseDuration(os.Getenv("FINISH"))
	if err != nil {
		return 5
	}
	time.Sleep(finish) // what it has to do for its clients
	file := filepath.Join("/run", os.Getenv("UNIT")+".finished."+name)
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		return 4
	}
	return 0
}

func serveAs(name string) error {
	switch name {
	case childReady:
		return notify("READY=1")
	case childHandover, childOrphan, childTakeBack:
	case childSuccessor:
		_, err := os.Stdin.Read(make([]byte, 1)) // until its predecessor has said all
		if err == nil {
			return fmt.Errorf("unexpected input")
		}
		return notify("STATUS=successor")
	default:
		return fmt.Errorf("unknown %q", name) // no second process: no fork bomb
	}
	successor := exec.Command("/proc/self/exe")
	successor.Env = append(os.Environ(), childEnv+"="+childSuccessor)
	successor.Stderr = os.Stderr
	hold, err := successor.StdinPipe()
	if err != nil {
		return err
	}
	if err := successor.Start(); err != nil {
		return err
	}
	if err := notify("MAINPID=" + strconv.Itoa(successor.Process.Pid) + "\nREADY=1"); err != nil {
		return err
	}
	if name == childTakeBack {
		if err := notify("MAINPID=" + strconv.Itoa(os.Getpid())); err != nil {
			return err
		}
	}
	if name == childOrphan {
		if err := barrier(); err != nil {
			return err
		}
	}
	return hold.Close()
}

// notify is sd_notify(3).
func notify(state string) error {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}

// barrier waits until systemd has read what was sent before (BARRIER=1).
func barrier() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	// Not connected: package net passes descriptors only with an address.
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	systemd := &net.UnixAddr{Net: "unixgram", Name: os.Getenv("NOTIFY_SOCKET")}
	_, _, err = conn.WriteMsgUnix([]byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), systemd)
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, _ = r.Read(make([]byte, 1)) // end of file, when systemd has closed it
	return nil
}

// unitOf writes a unit of the sections [Unit], [Service] or [Socket], and so on, each
// a list of lines.
func unitOf(sections ...string) string { return strings.Join(sections, "\n") + "\n" }
