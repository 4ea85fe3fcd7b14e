package spawn

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxLine  = 4 << 10  // longer lines are recorded in pieces
	maxLines = 50       // remembered
	maxBytes = 16 << 10 // remembered
)

// output is what takes in stdout and stderr of one child: two pipes, for the
// time of the fork in the place of this process's own.
//
// tableflip gives a child whatever is 1 and 2 then. Numbers are swapped, and
// not the variables os.Stdout and os.Stderr, which other goroutines read. What
// this process itself prints in these milliseconds goes into the pipe too, and
// out of it again like the child's lines: nothing is lost, but the record of
// the child may contain it.
type output struct {
	stdio   *sync.Mutex // held while 1 and 2 are not what others expect
	streams [2]*stream
	tail    *tail
	swapped bool
	drained chan struct{} // closed when both pipes are at their end
}

// stream is one of the two.
type stream struct {
	fd     int      // 1 or 2
	w      int      // write end of the pipe, for the child
	r      *os.File // read end
	real   *os.File // where fd really leads
	realFD int      // number of real; os.File.Fd would change its mode
}

// newOutput makes pipes and relays. The caller has locked stdio; close unlocks
// it.
func newOutput(stdio *sync.Mutex, t *tail, logger *slog.Logger) (*output, error) {
	o := &output{stdio: stdio, tail: t, drained: make(chan struct{})}
	for i := range o.streams {
		s, err := newStream(i + 1)
		if err != nil {
			for _, s := range o.streams[:i] {
				unix.Close(s.w)
				s.r.Close()
				s.real.Close()
			}
			return nil, err
		}
		o.streams[i] = s
	}
	var relays sync.WaitGroup
	for _, s := range o.streams {
		relays.Go(func() {
			if err := s.relay(t); err != nil {
				logger.Debug("relaying output of a started process", "stream", s.fd, "err", err)
			}
		})
	}
	go func() {
		relays.Wait()
		close(o.drained)
	}()
	return o, nil
}

func newStream(fd int) (*stream, error) {
	realFD, err := dup(fd)
	if err != nil {
		return nil, err
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		unix.Close(realFD)
		return nil, os.NewSyscallError("pipe2", err)
	}
	// Only the read end, for the netpoller: programs do not expect a stdout
	// that says EAGAIN.
	if err := unix.SetNonblock(p[0], true); err != nil {
		closeAll(realFD, p[0], p[1])
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &stream{
		fd:     fd,
		w:      p[1],
		r:      os.NewFile(uintptr(p[0]), "output"),
		real:   os.NewFile(uintptr(realFD), "stdio"),
		realFD: realFD,
	}, nil
}

// swap puts the pipes in the place of stdout and stderr.
func (o *output) swap() error {
	o.swapped = true
	for _, s := range o.streams {
		// Without close-on-exec: it stands in for stdio in every respect.
		if err := replace(s.w, s.fd, 0); err != nil {
			return errors.Join(err, o.restore())
		}
	}
	return nil
}

// restore undoes swap.
func (o *output) restore() error {
	if !o.swapped {
		return nil
	}
	o.swapped = false
	var errs []error
	for _, s := range o.streams {
		errs = append(errs, replace(s.realFD, s.fd, 0))
	}
	return errors.Join(errs...)
}

// close restores stdio and gives up the write ends: the relays end when the
// child and its heirs have, too.
func (o *output) close() error {
	err := o.restore()
	for _, s := range o.streams {
		unix.Close(s.w)
	}
	o.stdio.Unlock()
	return err
}

// wait waits until everything that was printed is relayed and recorded, if a
// process that lives on does not keep the pipe open: for that one it waits only
// for grace. The relay goes on without recording then, for closing the pipe
// would kill that process with SIGPIPE at its next word.
func (o *output) wait(grace time.Duration) {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-o.drained:
	case <-timer.C:
	}
	o.tail.freeze()
}

// relay copies the pipe to the real stream, whole lines at a time, and records
// the lines. It goes on reading if it cannot write, for the child's sake, and
// returns the first error.
func (s *stream) relay(t *tail) error {
	defer s.r.Close()
	defer s.real.Close()

	var firstErr error
	write := func(b []byte) {
		// The number is not 1 or 2: EPIPE, and no SIGPIPE from package os.
		if _, err := s.real.Write(b); err != nil && firstErr == nil {
			firstErr = err
		}
	}
	buf := make([]byte, maxLine)
	n := 0          // bytes in buf: a line without its end
	inLine := false // pieces of this line have been written already
	for {
		m, err := s.r.Read(buf[n:])
		n += m
		used := bytes.LastIndexByte(buf[:n], '\n') + 1
		if used == 0 && n == len(buf) {
			used = n
		}
		if used > 0 {
			inLine = t.add(s.fd, buf[:used], inLine)
			write(buf[:used]) // afterwards: it can block
			n = copy(buf, buf[used:n])
		}
		if err == nil {
			continue
		}
		if n > 0 {
			inLine = t.add(s.fd, buf[:n], inLine)
			write(buf[:n])
		}
		if inLine {
			write([]byte{'\n'}) // or the next line of another would be glued to it
		}
		if err != io.EOF && firstErr == nil {
			firstErr = err
		}
		return firstErr
	}
}

// tail records lines. Its methods may be called concurrently.
type tail struct {
	report func(stream int, line string) // may be nil

	adding sync.Mutex // held during a call of report, too
	frozen bool

	mu    sync.Mutex // never held during a call of report, which may ask for lines
	lines []string
	bytes int
}

// add records the lines in text, of which the last one may lack its end; that
// is returned. continued says that the first one is the rest of a line.
func (t *tail) add(stream int, text []byte, continued bool) (open bool) {
	t.adding.Lock()
	defer t.adding.Unlock()
	for line := range strings.Lines(string(text)) {
		var ended bool
		line, ended = strings.CutSuffix(line, "\n")
		open = !ended
		line = strings.TrimSuffix(line, "\r")
		if !t.frozen && !(continued && line == "") { // only the end of one that was recorded
			t.remember(line)
			if t.report != nil {
				t.report(stream, line)
			}
		}
		continued = false
	}
	return open
}

// remember adds a line, and drops the oldest ones.
func (t *tail) remember(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line)
	t.bytes += len(line) + 1
	drop := 0
	for len(t.lines)-drop > maxLines || t.bytes > maxBytes {
		t.bytes -= len(t.lines[drop]) + 1
		drop++
	}
	t.lines = slices.Delete(t.lines, 0, drop)
}

// freeze ends the recording.
func (t *tail) freeze() {
	t.adding.Lock()
	defer t.adding.Unlock()
	t.frozen = true
}

// last returns what was recorded last.
func (t *tail) last() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.lines)
}
