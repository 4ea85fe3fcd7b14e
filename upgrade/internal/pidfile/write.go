package pidfile

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// mode is the file's, whatever the umask: who may see the process may
	// know its PID.
	mode = 0o644

	// maxSize is more than any PID takes. A larger file is something else.
	maxSize = 64

	// lockPatience is how long a write in place waits for a Remove, which
	// takes microseconds.
	lockPatience = 500 * time.Millisecond
)

// Write makes the file path say pid: a decimal number and a newline. It has mode
// 0644, and replaces what is there at once, or is written in place if that is
// not possible and there is a file already, which keeps its mode and owner then.
//
// The path must be absolute, and the directory must be there. After an error
// the file may be missing, or empty, or what it was.
func Write(path string, pid int) error {
	if err := write(path, pid); err != nil {
		return fmt.Errorf("write the PID file: %w", err)
	}
	return nil
}

func write(path string, pid int) error {
	if pid <= 0 {
		// kill(2) would take it for a process group.
		return fmt.Errorf("%d is not a PID", pid)
	}
	p, err := find(path)
	if err != nil {
		return err
	}
	defer p.close()
	content := append(strconv.AppendInt(nil, int64(pid), 10), '\n')
	replaceErr := p.replace(content)
	if replaceErr == nil {
		return nil
	}
	// Whatever it was, the directory's mode, a full disk, or a mount: a file
	// that is there and says the wrong PID is worse than how it is written.
	switch err := p.overwrite(content); {
	case err == nil:
		return nil
	case missing(err):
		return replaceErr
	default:
		return errors.Join(replaceErr, fmt.Errorf("in place: %w", err))
	}
}

// replace puts a new file in the place of the one that is there.
func (p *place) replace(content []byte) error {
	// It does not go to the disk first: no PID outlives a crash of the machine.
	temp := tempName()
	fd, err := unix.Openat(p.dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return p.wrap("create", err)
	}
	defer unix.Close(fd)
	n, err := unix.Write(fd, content)
	if err == nil && n < len(content) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = unix.Fchmod(fd, mode) // the umask
	}
	if err == nil {
		err = unix.Renameat(p.dir, temp, p.dir, p.name)
	}
	if err != nil {
		_ = unix.Unlinkat(p.dir, temp, 0)
		return p.wrap("replace", err)
	}
	return nil
}

// overwrite writes into the file that is there.
func (p *place) overwrite(content []byte) error {
	fd, err := p.open(unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Against an overwrite or an erase of another generation in the same
	// moment. The lock is not worth more waiting: anybody who can read the
	// file can hold it.
	lock(fd, lockPatience)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return p.wrap("fstat", err)
	}
	if st.Size > maxSize {
		if err := unix.Ftruncate(fd, 0); err != nil {
			return p.wrap("truncate", err)
		}
	}
	// "123456" becomes "77\n\n\n\n" and then "77\n": in no moment can a script
	// read a PID that was neither.
	padded := content
	if st.Size <= maxSize {
		padded = append(bytes.Clone(content), bytes.Repeat([]byte{'\n'}, max(0, int(st.Size)-len(content)))...)
	}
	n, err := unix.Pwrite(fd, padded, 0)
	if err == nil && n < len(padded) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return p.wrap("write", err)
	}
	if err := unix.Ftruncate(fd, int64(len(content))); err != nil {
		return p.wrap("truncate", err)
	}
	return nil
}

// lock tries for so long to get the lock on fd. It ends with the descriptor.
func lock(fd int, patience time.Duration) bool {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			return true
		}
		select {
		case <-again.C:
		case <-deadline.C:
			return false
		}
	}
}

// tempName returns a name that nobody can have made in advance.
func tempName() string { return ".pid-" + rand.Text() }
