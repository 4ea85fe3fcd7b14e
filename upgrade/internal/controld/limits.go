package controld

import (
	"sync"
	"time"
)

// Limits bound what clients can make the server do. A field that is zero has its
// default, which is good for everything but tests.
type Limits struct {
	// Conns is how many connections are served at once: 64. The last eighth is
	// kept for clients that may command, so that those who only read cannot
	// lock them out. As many more are answered that there are too many, and
	// what exceeds that, too, is told so and closed without being listened to.
	Conns int

	// Header is how long a client may take from the connect to the end of its
	// request's header: 5 s. So long can a connection do nothing.
	Header time.Duration

	// Body is how much longer the whole request may take, with its body: 5 s.
	Body time.Duration

	// Write is how long a client may take to take one line of a stream, or any
	// other answer as a whole: 5 s. Then it is dropped.
	Write time.Duration

	// HeaderBytes is the size of the largest header: 16 KiB. net/http reads up
	// to 4 KiB more.
	HeaderBytes int

	// BodyBytes is the size of the largest body: 64 KiB.
	BodyBytes int64

	// Close is how long Server.Close lets open requests say how they end, and
	// once more how long it waits for those that do not: 2 s.
	Close time.Duration
}

// withDefaults returns l with its zeros replaced.
func (l Limits) withDefaults() Limits {
	orDefault(&l.Conns, 64)
	orDefault(&l.Header, 5*time.Second)
	orDefault(&l.Body, 5*time.Second)
	orDefault(&l.Write, 5*time.Second)
	orDefault(&l.HeaderBytes, 16<<10)
	orDefault(&l.BodyBytes, 64<<10)
	orDefault(&l.Close, 2*time.Second)
	return l
}

func orDefault[T int | int64 | time.Duration](v *T, value T) {
	if *v <= 0 {
		*v = value
	}
}

// conns returns how many connections there may be for one more of a client to
// be served, who may command or not.
func (l Limits) conns(command bool) int {
	if command {
		return l.Conns
	}
	return l.Conns - l.Conns/8
}

// tally counts what is open, up to a limit, and tells when nothing is any more.
// It is a sync.WaitGroup to which can be added while somebody waits, and that
// can be waited for with a deadline.
type tally struct {
	mu     sync.Mutex
	n      int
	closed bool
	zero   chan struct{} // closed when closed is set and n is 0
}

func newTally() *tally { return &tally{zero: make(chan struct{})} }

// add counts one more, if there are fewer than limit and close was not called.
func (t *tally) add(limit int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.n >= limit {
		return false
	}
	t.n++
	return true
}

// done counts one less.
func (t *tally) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n--
	if t.closed && t.n == 0 {
		close(t.zero)
	}
}

// close makes all further adds fail. The channel is closed when nothing is open.
func (t *tally) close() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		if t.n == 0 {
			close(t.zero)
		}
	}
	return t.zero
}

// count returns how many are open.
func (t *tally) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}
