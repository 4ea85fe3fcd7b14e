package track

import (
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

// Entry is what a set knows of a connection: embed it in the connection's type.
// Its methods may be called concurrently.
//
// Its size is counted: times are kept in tenths of a second, and the lock of the
// label is a bit.
type Entry[C comparable] struct {
	set        *Set[C]
	prev, next C
	accepted   int64 // unix nanoseconds
	in, out    atomic.Int64

	label string // guarded by the flag busy

	state atomic.Uint32 // the phase in the low 8 bits, flags above
	moved atomic.Uint32 // tenths of a second from accepted until bytes last went over it

	// Spare is for the connection's type.
	Spare atomic.Uint32

	method uint8 // of the request that label is the path of; 0: label is all. Guarded by busy
	listed bool  // guarded by the set's mutex
}

// Flags of the state: those from FirstFlag upwards are for the connection's type.
const (
	phaseMask = 1<<8 - 1
	busy      = 1 << 8
	FirstFlag = 1 << 9
)

// Set returns the set that the entry was made for.
func (e *Entry[C]) Set() *Set[C] { return e.set }

// Phase returns the phase of the connection.
func (e *Entry[C]) Phase() Phase { return State(e.state.Load()).Phase() }

// State is the phase and the flags of a connection.
type State uint32

// Phase returns the phase in s.
func (s State) Phase() Phase { return Phase(s & phaseMask) }

// With returns s with another phase.
func (s State) With(p Phase) State { return s&^phaseMask | State(p) }

// State returns phase and flags.
func (e *Entry[C]) State() State { return State(e.state.Load()) }

// SetFlags and ClearFlags change flags, and return the state before.
func (e *Entry[C]) SetFlags(flags State) State { return State(e.state.Or(uint32(flags))) }

// ClearFlags takes flags away.
func (e *Entry[C]) ClearFlags(flags State) State { return State(e.state.And(^uint32(flags))) }

// Update replaces the state by what change makes of it, atomically, unless change
// says no. It returns the state before. change may be called several times.
func (e *Entry[C]) Update(change func(State) (State, bool)) (before State, changed bool) {
	for {
		old := e.state.Load()
		next, ok := change(State(old))
		if !ok {
			return State(old), false
		}
		if e.state.CompareAndSwap(old, uint32(next)) {
			return State(old), true
		}
	}
}

// SetPhase sets the phase of the connection.
func (e *Entry[C]) SetPhase(p Phase) {
	e.Update(func(s State) (State, bool) { return s.With(p), true })
}

// Accepted returns when the connection was accepted.
func (e *Entry[C]) Accepted() time.Time { return time.Unix(0, e.accepted) }

// Moved returns when bytes last went over the connection, to a tenth of a second;
// when it was accepted if none did.
func (e *Entry[C]) Moved() time.Time {
	return time.Unix(0, e.accepted+int64(e.moved.Load())*int64(tick))
}

const tick = 100 * time.Millisecond

// Ticks returns t in tenths of a second since the connection was accepted, rounded
// up; 0 if it was not accepted by then.
func (e *Entry[C]) Ticks(t time.Time) uint32 {
	d := t.UnixNano() - e.accepted
	if d < 0 {
		return 0
	}
	return uint32(min((d+int64(tick)-1)/int64(tick), 1<<32-1))
}

// In counts bytes that were received.
func (e *Entry[C]) In(n int) { e.in.Add(int64(n)); e.touch() }

// Out counts bytes that were sent.
func (e *Entry[C]) Out(n int64) { e.out.Add(n); e.touch() }

func (e *Entry[C]) touch() {
	if now := e.Ticks(time.Now()); e.moved.Load() != now {
		e.moved.Store(now)
	}
}

// Bytes returns how many bytes were received and sent.
func (e *Entry[C]) Bytes() (in, out int64) { return e.in.Load(), e.out.Load() }

// SetBytes sets both counts, and when bytes last moved: what others have counted
// before.
func (e *Entry[C]) SetBytes(in, out int64, moved time.Time) {
	e.in.Store(in)
	e.out.Store(out)
	e.moved.Store(e.Ticks(moved))
}

// methods are those that a request line can be kept of without an allocation.
var methods = [...]string{"", "GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"}

// maxLabel is how much of a label is shown, in bytes.
const maxLabel = 256

// SetRequest labels the connection with a request: the method, and the target
// without its query, which is nobody's business. It keeps a part of target and
// allocates nothing, but for methods that are rare.
func (e *Entry[C]) SetRequest(method, target string) {
	path := target
	if i := strings.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	if len(target) > maxLabel {
		path = strings.Clone(cut(path)) // a part of it would keep all of it in memory
	}
	for i, m := range methods {
		if m == method && i > 0 {
			e.setLabel(uint8(i), path)
			return
		}
	}
	e.setLabel(0, cut(method)+" "+cut(path))
}

// SetLabel labels the connection.
func (e *Entry[C]) SetLabel(label string) { e.setLabel(0, cut(label)) }

// Label returns the label.
func (e *Entry[C]) Label() string {
	e.lock()
	method, label := e.method, e.label
	e.unlock()
	if method == 0 {
		return label
	}
	return methods[method] + " " + cut(label)
}

func cut(s string) string { return s[:min(len(s), maxLabel)] }

func (e *Entry[C]) setLabel(method uint8, label string) {
	e.lock()
	e.method, e.label = method, label
	e.unlock()
}

// lock guards the label. It is held for a few instructions, by a request that
// begins and by who lists the connections: a mutex would cost eight bytes in each
// connection for a meeting that hardly ever takes place.
func (e *Entry[C]) lock() {
	for e.state.Or(busy)&busy != 0 {
		runtime.Gosched()
	}
}

func (e *Entry[C]) unlock() { e.state.And(^uint32(busy)) }
