package pidfile

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Remove removes the file path if it says pid. It leaves alone, without an error,
// a file that says another PID, or nothing, and one that is not there. Where the
// directory cannot be written, the file is emptied instead.
//
// It is safe against a [Write] of another process at the same time: the file that
// is removed is the one that said pid.
func Remove(path string, pid int) error {
	p, err := find(path)
	if missing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the PID file: %w", err)
	}
	defer p.close()
	if err := p.remove(pid); err != nil {
		return fmt.Errorf("remove the PID file: %w", err)
	}
	return nil
}

func (p *place) remove(pid int) error {
	fd, err := p.open(unix.O_RDONLY)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	said := says(fd, pid)
	unix.Close(fd)
	if !said {
		return nil
	}
	takeErr := p.take(pid)
	if takeErr == nil {
		return nil
	}
	if err := p.erase(pid); err != nil {
		return errors.Join(takeErr, fmt.Errorf("in place: %w", err))
	}
	return nil
}

// take removes the file if it says pid. To look and then to remove would be two
// steps, and a successor's file might come in between. So it is moved away
// first, where nobody else changes it, and looked at there.
func (p *place) take(pid int) error {
	aside := &place{dir: p.dir, path: p.path, name: tempName()}
	if err := unix.Renameat(p.dir, p.name, p.dir, aside.name); err != nil {
		if err == unix.ENOENT {
			return nil
		}
		return p.wrap("rename", err)
	}
	if fd, err := aside.open(unix.O_RDONLY); err == nil {
		said := says(fd, pid)
		unix.Close(fd)
		if said {
			if err := unix.Unlinkat(p.dir, aside.name, 0); err != nil {
				return p.wrap("unlink", err)
			}
			return nil
		}
	}
	// It came in between. Back with it, unless there is one that is newer still.
	err := unix.Renameat2(p.dir, aside.name, p.dir, p.name, unix.RENAME_NOREPLACE)
	if err == unix.EINVAL { // a file system that does not know the flag
		err = unix.Renameat(p.dir, aside.name, p.dir, p.name)
	}
	if err == unix.EEXIST {
		err = unix.Unlinkat(p.dir, aside.name, 0)
	}
	if err != nil {
		return p.wrap("rename", err)
	}
	return nil
}

// erase empties the file if it says pid.
func (p *place) erase(pid int) error {
	fd, err := p.open(unix.O_RDWR)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Who has the lock is about to write another PID.
	if !lock(fd, 0) || !says(fd, pid) {
		return nil
	}
	if err := unix.Ftruncate(fd, 0); err != nil {
		return p.wrap("truncate", err)
	}
	return nil
}

// says reports whether the file has pid in it, and nothing else but white space.
func says(fd, pid int) bool {
	b := make([]byte, maxSize+1)
	n, err := unix.Pread(fd, b, 0)
	if err != nil || n > maxSize {
		return false
	}
	return string(bytes.TrimSpace(b[:n])) == strconv.Itoa(pid)
}
