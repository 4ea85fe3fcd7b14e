package sdnotifytest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	maxDatagram = 4096 // what systemd reads
	maxFiles    = 253  // what the kernel passes
)

// Datagram is one notification.
type Datagram struct {
	PID, UID  int      // of the sender, told by the kernel
	Lines     []string // in the order in which they were sent
	Files     int      // descriptors that came with it, all of which the Recorder closes
	Truncated bool     // larger than 4096 bytes: systemd would ignore it
}

// Has reports whether line, NAME=VALUE, is in d.
func (d Datagram) Has(line string) bool { return slices.Contains(d.Lines, line) }

// Value returns the value of the assignment to name, and whether there is one.
func (d Datagram) Value(name string) (value string, ok bool) {
	for _, line := range d.Lines {
		if value, ok = strings.CutPrefix(line, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// String returns the sender and the lines, for messages of tests.
func (d Datagram) String() string {
	return fmt.Sprintf("pid %d: %s", d.PID, strings.Join(d.Lines, " "))
}

// Recorder is a notify socket that records. Methods may be called concurrently.
type Recorder struct {
	address string
	conn    *net.UnixConn
	reader  sync.WaitGroup

	mu      sync.Mutex
	all     []Datagram
	next    int           // of all, for Next
	arrived chan struct{} // closed, and replaced, when a datagram has come
	closed  bool
	holding int   // holds that are not released
	held    []int // descriptors of barriers that are not answered
}

// New returns a Recorder at a new address, which is closed at the end of the
// test.
func New(t testing.TB) *Recorder {
	t.Helper()
	// Not t.TempDir, whose path is soon longer than a socket's may be.
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatalf("make a notify socket: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r, err := Listen(filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatalf("make a notify socket: %v", err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// Listen returns a Recorder at address: a path, or @ and the name of an abstract
// socket. The caller closes it.
func Listen(address string) (*Recorder, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		})
		err = errors.Join(err, set)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	r := &Recorder{address: address, conn: conn, arrived: make(chan struct{})}
	r.reader.Go(r.read)
	return r, nil
}

// Address returns what NOTIFY_SOCKET would be.
func (r *Recorder) Address() string { return r.address }

// Datagrams returns all that came so far. Nothing is waited for: where something
// must have come, Next or Until say when it has.
func (r *Recorder) Datagrams() []Datagram {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// Next waits for a datagram that neither Next nor Until has returned or skipped.
// The error is that of ctx, or [net.ErrClosed].
func (r *Recorder) Next(ctx context.Context) (Datagram, error) {
	for {
		r.mu.Lock()
		if r.next < len(r.all) {
			d := r.all[r.next]
			r.next++
			r.mu.Unlock()
			return d, nil
		}
		arrived, closed := r.arrived, r.closed
		r.mu.Unlock()
		if closed {
			return Datagram{}, net.ErrClosed
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return Datagram{}, ctx.Err()
		}
	}
}

// Until calls Next until a datagram has line in it, and returns that one.
func (r *Recorder) Until(ctx context.Context, line string) (Datagram, error) {
	for {
		d, err := r.Next(ctx)
		if err != nil {
			return d, fmt.Errorf("wait for %q, got %v: %w", line, r.Datagrams(), err)
		}
		if d.Has(line) {
			return d, nil
		}
	}
}

// HoldBarriers leaves barriers unanswered from now on, as a systemd that is busy
// does, until release is called; release answers those that have come. Where it is
// not called they are never answered.
func (r *Recorder) HoldBarriers() (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holding++
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.holding--
		if r.holding == 0 {
			r.answer()
		}
	})
}

// Close closes the socket, and removes it; held barriers end. Further calls do
// nothing.
func (r *Recorder) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	close(r.arrived)
	r.mu.Unlock()

	err := r.conn.Close()
	r.reader.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer()
	if r.address[0] != '@' {
		err = errors.Join(err, os.Remove(r.address))
	}
	return err
}

// answer closes the descriptors of the barriers. mu is held.
func (r *Recorder) answer() {
	closeFDs(r.held)
	r.held = nil
}

// read runs until the socket is closed.
func (r *Recorder) read() {
	text := make([]byte, maxDatagram+1)
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxFiles))
	for {
		n, controlled, flags, _, err := r.conn.ReadMsgUnix(text, control)
		if err != nil {
			return
		}
		d := Datagram{Truncated: n > maxDatagram || flags&unix.MSG_TRUNC != 0}
		if n > 0 {
			d.Lines = strings.Split(strings.TrimSuffix(string(text[:n]), "\n"), "\n")
		}
		cred, fds := parseControl(control[:controlled])
		d.Files = len(fds)
		if cred != nil {
			d.PID, d.UID = int(cred.Pid), int(cred.Uid)
		}
		r.record(d, fds)
	}
}

func (r *Recorder) record(d Datagram, fds []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		closeFDs(fds)
		return
	}
	if d.Has("BARRIER=1") && r.holding > 0 {
		r.held = append(r.held, fds...)
	} else {
		closeFDs(fds)
	}
	r.all = append(r.all, d)
	close(r.arrived)
	r.arrived = make(chan struct{})
}

func parseControl(control []byte) (cred *unix.Ucred, fds []int) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, nil
	}
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		} else if got, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			cred = got
		}
	}
	return cred, fds
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
