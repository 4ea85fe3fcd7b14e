package transfer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hdctl/handoff/upgrade/internal/link"
)

// Sender gives connections away. Its methods may be called concurrently, Give by
// thousands of goroutines.
type Sender struct {
	conn *link.Conn
	done chan struct{} // closed when every offer is decided, and the link is closed

	mu      sync.Mutex
	last    uint64             // ID of the latest offer
	transit map[uint64]transit // offers without an answer
	cause   error              // the first reason to withdraw
	over    error              // what an offer without an answer gets; nil until that is decided
}

// transit is an offer without an answer.
type transit struct {
	since  time.Time
	result chan error // with room for the result, of which there is one
}

// NewSender begins to give connections away over conn, which is used for nothing
// else, and of which it takes ownership. The caller ends it with Close.
func NewSender(conn *link.Conn) *Sender {
	s := &Sender{
		conn:    conn,
		done:    make(chan struct{}),
		transit: make(map[uint64]transit),
	}
	go s.receive()
	return s
}

// Give offers the connection c, with the files of its session, and waits for the
// answer. It sets o.ID. Nobody may read from or write to c meanwhile.
//
// With nil the connection is the receiver's, and the caller closes its copy
// with close(2). With every error it is the caller's as before:
//
//   - [*Refused]: the receiver does not want it. Another one may be welcome.
//   - [ErrWithdrawn]: the link is over. See the package documentation for how
//     such a connection is closed in the end.
//   - Other errors are about sending: the connection is closed, or the session
//     is too large for a frame, or ([link.ErrFull]) too many descriptors of this
//     user are on their way.
//
// Give has no timeout of its own, also where the link is full: who finds that it
// takes too long (see Oldest) calls Withdraw, which ends all waiting.
func (s *Sender) Give(c syscall.Conn, o link.Offer, extra ...*os.File) error {
	files := make([]syscall.Conn, 1, 2)
	files[0] = c
	for _, f := range extra {
		files = append(files, f)
	}
	result := make(chan error, 1)
	err := s.enter(&o, result)
	if err != nil {
		return err
	}
	if err := s.conn.SendWait(o, files...); err != nil {
		s.leave(o.ID)
		if errors.Is(err, link.ErrPeerClosed) || errors.Is(err, net.ErrClosed) {
			s.Withdraw(err) // unless somebody has, and that is why
			return s.over   // is not written any more
		}
		return err
	}
	return <-result
}

// enter puts an offer among those in transit: before it is sent, because the
// answer may be quicker than the return from sendmsg.
func (s *Sender) enter(o *link.Offer, result chan error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return s.over
	}
	s.last++
	o.ID = s.last
	s.transit[o.ID] = transit{time.Now(), result}
	return nil
}

// leave takes an offer out of those in transit. There is none of that ID where the
// peer has made the ID up, or answers for the second time.
func (s *Sender) leave(id uint64) (transit, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.transit[id]
	delete(s.transit, id)
	return t, ok
}

// receive gives the answers to those who wait, until no further answer can come.
func (s *Sender) receive() {
	for broken := false; ; {
		m, files, err := s.conn.Receive()
		var frame *link.FrameError
		switch {
		case err == nil:
			closeFiles(files)
			if a, ok := m.(link.Answer); ok {
				s.answered(a)
			}
			continue
		case errors.As(err, &frame):
			// An answer needs no files; so one that lost some is still one.
			if a, ok := frame.Message.(link.Answer); ok {
				s.answered(a)
			}
			continue
		case !errors.Is(err, io.EOF) && !broken:
			// Not known to happen. But there may be answers in the socket, and
			// there must be no further ones.
			broken = true
			s.withdraw(err)
			continue
		}
		s.end()
		return
	}
}

func (s *Sender) answered(a link.Answer) {
	t, ok := s.leave(a.ID)
	switch {
	case !ok:
	case a.Code == "":
		t.result <- nil
	default:
		t.result <- &Refused{Code: a.Code, Message: a.Message}
	}
}

// end decides all offers that got no answer.
func (s *Sender) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil {
		s.cause = link.ErrPeerClosed
	}
	s.over = fmt.Errorf("%w: %w", ErrWithdrawn, s.cause)
	for _, t := range s.transit {
		t.result <- s.over
	}
	clear(s.transit)
	_ = s.conn.Close() // those that wait for room in it return
	close(s.done)
}

// Withdraw ends the link, for a cause, and returns when it is decided for every
// connection who owns it: what the receiver has answered so far counts, and all
// the rest is ours, [ErrWithdrawn]. It waits for nothing that the receiver does,
// so it is the way out when that is dead, stopped or slow, or when there is a
// newer one. Later calls do nothing but wait for the first one.
func (s *Sender) Withdraw(cause error) {
	s.withdraw(cause)
	<-s.done
}

func (s *Sender) withdraw(cause error) {
	s.mu.Lock()
	if s.cause == nil {
		s.cause = cause
	}
	s.mu.Unlock()
	s.conn.CloseRead()
}

// Done is closed when the link is over, and decided for every connection who owns
// it: after Withdraw, or because the receiver has closed its end.
func (s *Sender) Done() <-chan struct{} { return s.done }

// Oldest returns when the oldest offer in transit was made, and the zero Time if
// there is none. An offer that waits for room in the link counts.
func (s *Sender) Oldest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest time.Time
	for _, t := range s.transit { // not many: see Places
		if oldest.IsZero() || t.since.Before(oldest) {
			oldest = t.since
		}
	}
	return oldest
}

// Close is Withdraw, because of [net.ErrClosed]. It returns nil.
func (s *Sender) Close() error {
	s.Withdraw(net.ErrClosed)
	return nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
