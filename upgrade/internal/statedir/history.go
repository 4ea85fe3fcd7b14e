package statedir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// MaxLine is the length of the longest line that [Dir.Append] takes, with its
// newline.
const MaxLine = 64 << 10

const (
	historyFile  = "history.jsonl"
	previousFile = "history.jsonl.1"

	// maxHistory is the size above which a file of the history is not taken
	// further.
	maxHistory = 1 << 20
)

// Append writes v, which must encode as a JSON object, as the last line of the
// history. When it returns nil, the line is on the disk.
//
// After an error nothing else is in the history than before, with two
// exceptions: if the error is one of fdatasync(2), or of fsync(2), the line may
// be there; and a piece of it may be if the lock could not be had, as the
// package's documentation says. Neither disturbs other lines. A full disk is
// ENOSPC or EDQUOT; a line above [MaxLine] is [ErrTooLarge]. Append can be
// called again after any error.
func (d *Dir) Append(v any) error {
	if err := d.append(v); err != nil {
		return fmt.Errorf("append to the history: %w", err)
	}
	return nil
}

func (d *Dir) append(v any) error {
	line, err := encodeLine(v)
	if err != nil {
		return err
	}
	dir, err := d.open()
	if err != nil {
		return err
	}
	defer dir.close()
	err = dir.lock()
	locked := err == nil
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	f, created, err := openHistory(dir, int64(len(line)), d.maxHistory, locked)
	if err != nil {
		return err
	}
	defer f.close()
	if err := addLine(f, line, locked); err != nil {
		return dir.wrap("write", historyFile, err)
	}
	// A disk may take seconds for what follows; nobody has to wait for that.
	dir.unlock()
	if err := retryErr(func() error { return unix.Fdatasync(int(f)) }); err != nil {
		return dir.wrap("fdatasync", historyFile, err)
	}
	if created {
		return dir.sync()
	}
	return nil
}

// encodeLine returns v as JSON with a newline.
func encodeLine(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // people grep
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	switch {
	case b.Len() > MaxLine:
		return nil, fmt.Errorf("a line of %d bytes, and %d are allowed: %w", b.Len(), MaxLine, ErrTooLarge)
	case b.Bytes()[0] != '{':
		// The piece of an object is never an object; the piece of a number is
		// one. Only so a reader can tell what is whole.
		return nil, fmt.Errorf("%T does not encode as a JSON object", v)
	}
	return b.Bytes(), nil
}

// openHistory opens the file that has room for a line of need bytes, and says
// whether its name is new in the directory.
func openHistory(dir *directory, need, limit int64, locked bool) (f file, created bool, err error) {
	// Read as well: addLine looks at the last byte.
	const flags = unix.O_RDWR | unix.O_APPEND
	f, err = dir.openFile(historyFile, flags)
	if err == nil {
		st, err := f.stat()
		switch {
		case err != nil:
			f.close()
			return -1, false, dir.wrap("fstat", historyFile, err)
		case st.Size == 0 || st.Size+need <= limit:
			return f, false, nil
		case !locked && st.Size+need <= 2*limit:
			return f, false, nil
		}
		f.close()
		if !locked {
			return -1, false, dir.wrap("rename", historyFile, fmt.Errorf("it has %d bytes, and another process keeps the lock: %w", st.Size, os.ErrDeadlineExceeded))
		}
		if err := retryErr(func() error { return unix.Renameat(dir.fd, historyFile, dir.fd, previousFile) }); err != nil && err != unix.ENOENT {
			return -1, false, dir.wrap("rename", historyFile, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return -1, false, err
	}
	f, err = dir.openFile(historyFile, flags|unix.O_CREAT)
	return f, true, err
}

// addLine appends line to f, or leaves f as it was.
func addLine(f file, line []byte, locked bool) error {
	st, err := f.stat()
	if err != nil {
		return err
	}
	if st.Size > 0 {
		// A process that died in the middle of a line, or an editor.
		var last [1]byte
		if _, err := f.ReadAt(last[:], st.Size-1); err != nil && err != io.EOF { // EOF: just truncated
			return err
		} else if err == nil && last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	n, err := f.write(line, st.Size)
	if n == len(line) || n == 0 || !locked {
		return err
	}
	// If the file is not what it should be now, somebody else has changed it,
	// and it is not ours to make it longer or shorter.
	if now, statErr := f.stat(); statErr == nil && now.Size == st.Size+int64(n) {
		if cutErr := f.truncate(st.Size); cutErr != nil {
			return errors.Join(err, fmt.Errorf("take away what was written of it: %w", cutErr))
		}
	}
	return err
}
