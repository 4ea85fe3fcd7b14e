package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	errStopped = errors.New("the load was stopped")
	errAborted = errors.New("the load was aborted")
	errUnasked = errors.New("the server sent something that nobody asked for")
	errTimeout = errors.New("no answer in time")
	errClosed  = errors.New("the connection was closed before the answer")

	errPipelined = errors.New("unanswered: the answer before announced the end of the connection")
)

// phaseError is an error of a request, and what it was doing.
type phaseError struct {
	phase Phase
	err   error
}

func (e *phaseError) Error() string { return string(e.phase) + ": " + e.err.Error() }
func (e *phaseError) Unwrap() error { return e.err }

// origin is who answered, from the headers of the answer.
type origin struct {
	generation int
	pid        int
	version    string
}

func originOf(h http.Header) origin {
	// What is missing or no number is 0: the checks compare with the body.
	g, _ := strconv.Atoi(h.Get("X-Handoff-Generation"))
	pid, _ := strconv.Atoi(h.Get("X-Handoff-Pid"))
	return origin{generation: g, pid: pid, version: h.Get("X-Handoff-Version")}
}

// history is what is known of a connection when it fails.
type history struct {
	born     time.Time
	last     origin // who answered last
	requests int    // carried so far
}

// conn is one connection to the service, used by one worker.
//
// Its deadlines are set in one place, under a lock, because the end of the load
// works by deadlines too: a stop wakes a connection that waits between two
// requests, an abort wakes any.
type conn struct {
	net.Conn
	history
	br     *bufio.Reader
	unhook [2]func() bool

	mu    sync.Mutex
	idle  bool // reads between two requests
	stop  bool // no more requests
	abort bool // not even the one that is running
}

// dial connects. stop ends the load's requests, ctx ends the running one, too.
func (o *Options) dial(ctx, stop context.Context) (*conn, error) {
	dctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	nc, err := o.Dial(dctx)
	switch {
	case err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled):
		return nil, errAborted
	case err != nil && dctx.Err() != nil:
		return nil, &phaseError{PhaseDial, fmt.Errorf("%w (%s): %w", errTimeout, o.Timeout, err)}
	case err != nil:
		return nil, &phaseError{PhaseDial, err}
	}
	c := &conn{Conn: nc, br: bufio.NewReader(nc), history: history{born: time.Now()}}
	c.unhook[0] = context.AfterFunc(stop, func() { c.wake(false) })
	c.unhook[1] = context.AfterFunc(ctx, func() { c.wake(true) })
	return c, nil
}

// Close closes the connection.
func (c *conn) Close() error {
	for _, f := range c.unhook {
		f()
	}
	return c.Conn.Close()
}

// past is a deadline that ends what is running.
var past = time.Unix(1, 0)

func (c *conn) wake(abort bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop = true
	c.abort = c.abort || abort
	if c.idle || c.abort {
		c.Conn.SetDeadline(past)
	}
}

// arm sets the deadline for what comes next: a wait between requests (idle), or
// a part of a request. The zero time is none.
func (c *conn) arm(idle bool, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.abort:
		return errAborted
	case idle && c.stop:
		return errStopped
	}
	c.idle = idle
	return c.Conn.SetDeadline(t)
}

// ended tells a deadline of the load's end from one of the request.
func (c *conn) ended(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.abort:
		return errAborted
	case c.idle && c.stop:
		return errStopped
	}
	return err
}

// await waits for the time of the next request, the zero time is never, and
// watches the connection meanwhile. nil: it is time. io.EOF: the server closed
// the connection. errStopped, errAborted: the load ends. Anything else broke
// the connection.
func (c *conn) await(until time.Time) error {
	if err := c.arm(true, until); err != nil {
		return err
	}
	_, err := c.br.Peek(1)
	if err == nil {
		return errUnasked
	}
	if err = c.ended(err); !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return c.peek()
}

// peek asks the kernel for what arrived since the read of await ended.
func (c *conn) peek() error {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var perr error
	err = rc.Control(func(fd uintptr) {
		var b [1]byte
		n, _, perr = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	switch {
	case err != nil:
		return err
	case errors.Is(perr, unix.EAGAIN), errors.Is(perr, unix.EINTR):
		return nil
	case perr != nil:
		return os.NewSyscallError("recvfrom", perr)
	case n == 0:
		return io.EOF
	}
	return errUnasked
}

// answer is a good one.
type answer struct {
	from      origin
	announced bool          // the connection ends with it
	wait      time.Duration // from the request to the header of its answer, without the pauses in between
}

// do sends f and reads the answers, which must come in the order of the requests;
// good is called with each. The error, a [*phaseError] or errAborted, is that of
// the first request without one; those behind it have none either.
func (c *conn) do(f flight, timeout time.Duration, good func(answer)) error {
	start := time.Now()
	deadline := start.Add(timeout + f.extra())
	out, ends := f.bytes()
	sent, paused, broken := c.send(out, f.cuts, ends[0], deadline)
	if broken != nil {
		// Those requests that were sent completely may have answers still.
		if err := c.arm(false, deadline); err != nil {
			return err
		}
	}
	var asked time.Duration
	for i, r := range f.requests {
		if sent < ends[i] {
			return c.fault(PhaseWrite, timeout, broken)
		}
		resp, err := c.header(r.method, timeout)
		if err != nil {
			return err
		}
		asked += r.asked
		a := answer{from: originOf(resp.Header), announced: resp.Close, wait: time.Since(start) - paused - asked}
		if err := r.check(a.from, resp); err != nil {
			return c.fault(PhaseContent, timeout, err)
		}
		c.last = a.from
		c.requests++
		last := i == len(f.requests)-1
		if last && !a.announced && c.br.Buffered() > 0 {
			return &phaseError{PhaseContent, errUnasked}
		}
		good(a)
		if a.announced && !last {
			return &phaseError{PhaseRead, errPipelined}
		}
	}
	return nil
}

// open sends a request without a body and reads the header of the answer.
func (c *conn) open(r request, timeout time.Duration) (*http.Response, error) {
	if _, _, err := c.send(r.head, nil, len(r.head), time.Now().Add(timeout)); err != nil {
		return nil, c.fault(PhaseWrite, timeout, err)
	}
	return c.header(r.method, timeout)
}

// header reads the header of an answer.
func (c *conn) header(method string, timeout time.Duration) (*http.Response, error) {
	if _, err := c.br.Peek(1); err == io.EOF {
		return nil, &phaseError{PhaseRead, errClosed}
	} else if err != nil {
		return nil, c.fault(PhaseRead, timeout, err)
	}
	resp, err := http.ReadResponse(c.br, &http.Request{Method: method})
	if err != nil {
		return nil, c.fault(PhaseRead, timeout, err)
	}
	return resp, nil
}

// send writes out, of which the first request ends at first. In the pauses of the
// cuts it listens, as a client with an event loop would. It tells how many bytes
// were written, and how long the pauses were.
func (c *conn) send(out []byte, cuts []cut, first int, deadline time.Time) (sent int, paused time.Duration, err error) {
	if err := c.arm(false, deadline); err != nil {
		return 0, 0, err
	}
	for _, cut := range cuts {
		n, err := c.Write(out[sent:cut.at])
		sent += n
		if err != nil {
			return sent, paused, err
		}
		if cut.pause == 0 {
			continue
		}
		start := time.Now()
		err = c.listen(cut.pause, sent >= first)
		paused += time.Since(start)
		if err != nil {
			return sent, paused, err
		}
		if err := c.arm(false, deadline); err != nil {
			return sent, paused, err
		}
	}
	n, err := c.Write(out[sent:])
	return sent + n, paused, err
}

// listen reads for the given time. answers: they may come, for a request has been
// sent completely.
func (c *conn) listen(d time.Duration, answers bool) error {
	if err := c.arm(false, time.Now().Add(d)); err != nil {
		return err
	}
	for {
		switch _, err := c.br.Peek(c.br.Buffered() + 1); {
		case err == nil && answers:
		case err == nil:
			line, _ := c.br.Peek(min(c.br.Buffered(), 60))
			return fmt.Errorf("answered before the request was complete: %q", line)
		case err == io.EOF:
			return errors.New("the connection was closed before the request was complete")
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil // arm tells if it was the end of the load
		default:
			return err // bufio.ErrBufferFull included: no answer is as long
		}
	}
}

// fault names the phase of an error. An error of reading remains one if a check
// met it.
func (c *conn) fault(p Phase, timeout time.Duration, err error) error {
	if err = c.ended(err); errors.Is(err, errAborted) {
		return errAborted
	}
	var op *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &phaseError{PhaseRead, fmt.Errorf("%w (%s)", errTimeout, timeout)}
	case p == PhaseContent && (errors.As(err, &op) || errors.Is(err, io.ErrUnexpectedEOF)):
		return &phaseError{PhaseRead, fmt.Errorf("the answer is cut short: %w", err)}
	}
	return &phaseError{p, err}
}
