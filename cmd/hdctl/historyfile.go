package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

// stateRoot is where the services of the system have their state directories:
// StateDirectory=handoff/NAME of their units.
const stateRoot = "/var/lib/handoff"

// stateOf is the state directory of a service, where systemd makes it if the unit
// says nothing else: for a user's services see $XDG_STATE_HOME in
// file-hierarchy(7).
func (a *app) stateOf(t target) string {
	if !a.globals.User {
		return filepath.Join(a.stateDir, t.name)
	}
	home := a.env["XDG_STATE_HOME"]
	if home == "" {
		home = filepath.Join(a.env["HOME"], ".local/state")
	}
	return filepath.Join(home, "handoff", t.name)
}

// historyLimit bounds what is read of a file of a history. The service keeps each
// below 1 MiB.
const historyLimit = 4 << 20

// readHistory reads the history in a state directory: at most limit entries, or all
// if that is 0, the newest first. It skips, and counts, what a crash in the middle of
// a line may have left. The error is fs.ErrNotExist if there is no history.
func readHistory(dir string, limit int) (entries []control.Entry, skipped int, err error) {
	var lines [][]byte // newest first
	found := false
	for _, name := range []string{"history.jsonl", "history.jsonl.1"} {
		data, err := readEnd(filepath.Join(dir, name), historyLimit)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		found = true
		for _, line := range slices.Backward(bytes.Split(data, []byte("\n"))) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				lines = append(lines, line)
			}
		}
	}
	if !found {
		return nil, 0, fs.ErrNotExist
	}
	entries, skipped = control.ReadHistory(slices.Values(lines), limit)
	return entries, skipped, nil
}

// readEnd reads the last bytes of a regular file, at most limit.
func readEnd(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not hold us up
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fs.ErrInvalid}
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-limit), limit))
}
