package statedir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// blockSize is how much of the history is read at a time: some ten upgrades.
const blockSize = 16 << 10

// Records returns the last lines of the history, the newest first: at most limit,
// or all if limit is 0. What is not a whole JSON object is skipped, and so are
// lines longer than [MaxLine]. No more of the files is read than is needed, and
// never more than the last 2 MiB of each.
//
// A history that does not exist has no lines. With an error, what could be read
// is returned as well.
func (d *Dir) Records(limit int) ([]json.RawMessage, error) {
	dir, err := d.open()
	if err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	defer dir.close()
	current, previous := openFiles(dir)
	defer current.close()
	defer previous.close()
	var records []json.RawMessage
	var errs []error
	for _, p := range []historyPart{current, previous} {
		if limit > 0 && len(records) >= limit {
			break
		}
		if p.err == nil {
			var st unix.Stat_t
			if st, p.err = p.stat(); p.err == nil {
				r := newLineReader(p.file, st.Size, 2*d.maxHistory)
				records, p.err = appendRecords(records, r, limit)
			}
			if p.err != nil {
				p.err = dir.wrap("read", p.name, p.err)
			}
		}
		if p.err != nil && !errors.Is(p.err, fs.ErrNotExist) {
			errs = append(errs, p.err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return records, fmt.Errorf("read the history: %w", err)
	}
	return records, nil
}

// historyPart is one of the two files, open, or the reason why it is not.
type historyPart struct {
	file
	name string
	err  error
}

func openPart(dir *directory, name string) historyPart {
	f, err := dir.openFile(name, unix.O_RDONLY)
	return historyPart{file: f, name: name, err: err}
}

func (p historyPart) close() {
	if p.file >= 0 {
		p.file.close()
	}
}

// openFiles opens the files of the history.
func openFiles(dir *directory) (current, previous historyPart) {
	const attempts = 3 // to have one between two rotations, which are years apart
	for range attempts {
		current, previous = openPart(dir, historyFile), openPart(dir, previousFile)
		// No lock is needed to read, but the first may have become the second
		// between the two calls, and would be read twice.
		if current.err != nil || previous.err != nil || !sameFile(current.file, previous.file) {
			return current, previous
		}
		current.close()
		previous.close()
	}
	// Somebody has made them one.
	return openPart(dir, historyFile), historyPart{file: -1, err: fs.ErrNotExist}
}

func sameFile(a, b file) bool {
	sa, errA := a.stat()
	sb, errB := b.stat()
	return errA == nil && errB == nil && sa.Dev == sb.Dev && sa.Ino == sb.Ino
}

// appendRecords appends the lines of r that are JSON objects, until there are
// limit records.
func appendRecords(records []json.RawMessage, r *lineReader, limit int) ([]json.RawMessage, error) {
	for limit <= 0 || len(records) < limit {
		line, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return records, err
		}
		line = bytes.Trim(line, " \t\r")
		if len(line) > 0 && line[0] == '{' && json.Valid(line) {
			records = append(records, bytes.Clone(line))
		}
	}
	return records, nil
}

// lineReader reads lines from the end of a file to its beginning.
type lineReader struct {
	src  io.ReaderAt
	off  int64  // what is before it has not been read
	stop int64  // what is before it will not be read
	rest []byte // what has been read, begins at off, and was not returned yet
	long bool   // the line that rest ends with is too long, and its end is gone
	done bool
}

// newLineReader returns a reader of the last most bytes of src, which has size
// bytes.
func newLineReader(src io.ReaderAt, size, most int64) *lineReader {
	return &lineReader{src: src, off: size, stop: max(0, size-most)}
}

// next returns the line before the one that it returned last, without newline,
// or io.EOF. Lines that are too long are left out. The line is valid until the
// next call.
func (r *lineReader) next() ([]byte, error) {
	for !r.done {
		if i := bytes.LastIndexByte(r.rest, '\n'); i >= 0 {
			line := r.rest[i+1:]
			r.rest = r.rest[:i]
			if r.long || len(line) >= MaxLine {
				r.long = false
				continue
			}
			return line, nil
		}
		if r.off == r.stop {
			r.done = true
			if r.stop > 0 || r.long || len(r.rest) >= MaxLine {
				break // it begins where we do not look
			}
			return r.rest, nil
		}
		if err := r.fill(); err != nil {
			r.done = true
			return nil, err
		}
	}
	return nil, io.EOF
}

// fill puts one more block in front of rest.
func (r *lineReader) fill() error {
	if len(r.rest) >= MaxLine {
		// However long it is, it does not need memory.
		r.rest, r.long = nil, true
	}
	n := min(blockSize, r.off-r.stop)
	b := make([]byte, n, int(n)+len(r.rest))
	if _, err := r.src.ReadAt(b, r.off-n); err == io.EOF {
		// It has been truncated: what was in rest is no more, and there is
		// nothing to go on from.
		return io.EOF
	} else if err != nil {
		return err
	}
	r.off -= n
	r.rest = append(b, r.rest...)
	return nil
}
