package watch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// process reads what the kernel says of a process in proc_pid_stat(5).
//
// The file stays open, which is cheaper, and safer: it goes on to mean this
// process when its number has become another's, and then reads as ESRCH.
type process struct {
	pid  int
	file *os.File // nil if it could not be opened yet
	last byte     // state
	buf  [1024]byte
}

func openProcess(pid int) *process {
	p := &process{pid: pid}
	p.open()
	return p
}

// path names a file about the main thread of the process, which in a Go program
// lives as long as the process does. The file about the process itself has the same
// in it, and sums of all threads, which take the longer the more there are.
func (p *process) path(name string) string {
	return fmt.Sprintf("/proc/%d/task/%[1]d/%s", p.pid, name)
}

func (p *process) open() {
	if f, err := os.Open(p.path("stat")); err == nil {
		p.file = f
	}
}

func (p *process) close() {
	if p.file != nil {
		_ = p.file.Close() // was only read
	}
}

// read returns what the process is doing, and if that is dying, in which way.
// It cannot tell that it is traced while it runs: traced does.
func (p *process) read() (condition, string) {
	if p.file == nil {
		if p.open(); p.file == nil {
			// Out of descriptors, or a /proc with hidepid: the process may well live.
			if errors.Is(unix.Kill(p.pid, 0), unix.ESRCH) {
				return dying, "gone"
			}
			return unknown, ""
		}
	}
	n, err := p.file.ReadAt(p.buf[:], 0)
	if errors.Is(err, unix.ESRCH) {
		return dying, "gone"
	}
	s, ok := parseStat(p.buf[:n])
	if !ok {
		return unknown, ""
	}
	p.last = s.state
	return s.condition()
}

// traced reports whether a debugger is attached.
func (p *process) traced() bool {
	status, err := os.ReadFile(p.path("status"))
	return err == nil && parseTracer(status) != 0
}

// wanting reports whether a thread of the process has the CPU, or wants it. What it
// does not do yet it may do as soon as it gets some.
func (p *process) wanting() bool {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid))
	if err != nil {
		return false
	}
	for _, t := range threads {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", p.pid, t.Name()))
		if err != nil {
			continue // it has ended
		}
		if s, ok := parseStat(content); ok && s.state == 'R' {
			return true
		}
	}
	return false
}

// state is the last state in words.
func (p *process) state() string {
	switch p.last {
	case 'R':
		return "runs"
	case 'S':
		return "sleeps"
	case 'D':
		return "waits for a device"
	case 'T':
		return "is stopped"
	default:
		return ""
	}
}

// stat is what is used of a stat file.
type stat struct {
	state byte
	flags uint64
}

// From the kernel's linux/sched.h. A thread that a fatal signal reaches, as all
// others do when one of them ends the process, gets the second at once, and the
// first after a core has been dumped.
const (
	pfExiting  = 0x4
	pfSignaled = 0x400
)

func (s stat) condition() (condition, string) {
	switch {
	case s.flags&(pfExiting|pfSignaled) != 0, s.state == 'Z', s.state == 'X':
		return dying, "exiting, or being killed"
	case s.state == 'T':
		return stopped, ""
	case s.state == 't':
		return traced, ""
	default:
		return running, ""
	}
}

// parseStat parses the content of a stat file. The second field is the name of the
// process in parentheses, and may itself have parentheses, spaces and newlines.
func parseStat(b []byte) (s stat, ok bool) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return stat{}, false
	}
	// state ppid pgrp session tty_nr tpgid flags
	const flags = 6
	b = b[end+1:]
	for i := 0; i <= flags; i++ {
		b = bytes.TrimLeft(b, " ")
		field := b
		if n := bytes.IndexByte(b, ' '); n >= 0 {
			field = b[:n]
		}
		switch {
		case len(field) == 0:
			return stat{}, false
		case i == 0 && len(field) != 1:
			return stat{}, false
		case i == 0:
			s.state = field[0]
		case i == flags:
			n, err := strconv.ParseUint(string(field), 10, 64)
			if err != nil {
				return stat{}, false
			}
			s.flags = n
		}
		b = b[len(field):]
	}
	return s, true
}

// parseTracer returns the TracerPid in a status file, 0 if there is none. The
// name of the process, in the first line, cannot look like it: the kernel escapes
// newlines there.
func parseTracer(b []byte) int {
	n, _ := parseField(b, "TracerPid:")
	return int(n)
}

// parseField returns the number after name at the beginning of a line.
func parseField(b []byte, name string) (n uint64, ok bool) {
	for line := range bytes.Lines(b) {
		if rest, found := bytes.CutPrefix(line, []byte(name)); found {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
