package activation

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Sockets is a set of named descriptors, each of which is claimed at most once.
// The zero value is an empty set of a process that systemd did not start. It is
// safe for concurrent use.
type Sockets struct {
	origin     origin
	foreignPID int // LISTEN_PID, if it was another process's; 0: none

	mu      sync.Mutex
	entries []*entry
	bound   map[binding]bool // bound by this process instead of passed
	closed  bool
}

// origin is where a set comes from.
type origin int

const (
	originNone       origin = iota // systemd did not start the process: it binds
	originSystemd                  // from Take
	originHandedOver               // from a predecessor, or made by a test
)

// entry is a descriptor that was passed.
type entry struct {
	Socket
	fd       int // ours, as long as it is neither claimed nor closed
	pollable bool
}

// binding is what a name was bound for; a stream and a datagram socket may share
// a name, as in a .socket unit.
type binding struct {
	name string
	want want
}

// Socket describes a descriptor that was passed, as it was at that time.
type Socket struct {
	Name    string // FileDescriptorName=
	Network string // see [Describe]
	Address string
	Index   int  // among the descriptors of the same name, from 0
	Claimed bool // belongs to whoever claimed it
	Kind    Kind
}

// NamedFD is a descriptor for [NewSockets].
type NamedFD struct {
	Name string // "" becomes "unknown"
	FD   int
}

// NewSockets makes a set from descriptors: package upgrade makes that of a later
// generation with it, and tests make theirs. In an activated set nothing is ever
// bound: a name that is not there is a [*NameError].
//
// NewSockets takes ownership of the descriptors in every case: it sets
// close-on-exec, and closes all of them when it returns an error (one is not open,
// or is listed twice).
func NewSockets(activated bool, fds ...NamedFD) (*Sockets, error) {
	s := new(Sockets)
	if activated {
		s.origin = originHandedOver
	}
	if err := s.add(fds); err != nil {
		closed := make(map[int]bool)
		for _, f := range fds {
			// Twice would hit whoever opened a file in between.
			if !closed[f.FD] {
				unix.Close(f.FD)
				closed[f.FD] = true
			}
		}
		return nil, fmt.Errorf("make set of sockets: %w", err)
	}
	return s, nil
}

// add describes the descriptors and puts them into an empty set that nobody else
// knows yet.
func (s *Sockets) add(fds []NamedFD) error {
	index := make(map[string]int)
	seen := make(map[int]string)
	for _, f := range fds {
		name := f.Name
		if name == "" {
			name = noName
		}
		if other, ok := seen[f.FD]; ok {
			return fmt.Errorf("descriptor %d is listed as %q and as %q", f.FD, other, name)
		}
		seen[f.FD] = name
		d, err := describe(f.FD)
		if err != nil {
			return fmt.Errorf("socket %q: %w", name, err)
		}
		unix.CloseOnExec(f.FD)
		s.entries = append(s.entries, &entry{
			Socket:   Socket{Name: name, Network: d.network, Address: d.address, Index: index[name], Kind: d.kind},
			fd:       f.FD,
			pollable: d.pollable,
		})
		index[name]++
	}
	return nil
}

// Activated reports whether nothing is bound: the process was started by systemd,
// or has the sockets of a predecessor.
func (s *Sockets) Activated() bool { return s.origin != originNone }

// All returns every descriptor that was passed, claimed or not, in the order in
// which it was passed. What the process bound itself is not among them.
func (s *Sockets) All() []Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Socket, 0, len(s.entries))
	for _, e := range s.entries {
		all = append(all, e.Socket)
	}
	return all
}

// Unclaimed returns the descriptors that are still open and still in the set.
// After all claims a program should report them: a socket that systemd holds and
// nobody accepts from lets its clients connect and then wait for ever. It is empty
// after Close.
func (s *Sockets) Unclaimed() []Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rest []Socket
	for _, e := range s.entries {
		if !e.Claimed && !s.closed {
			rest = append(rest, e.Socket)
		}
	}
	return rest
}

// Close closes the descriptors that nobody claimed; claimed ones belong to their
// claimers. It does not unlink or shut down anything. Later claims fail with
// [os.ErrClosed]; a second Close does nothing.
func (s *Sockets) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	for _, e := range s.entries {
		if e.Claimed {
			continue
		}
		if err := unix.Close(e.fd); err != nil {
			errs = append(errs, fmt.Errorf("close socket %q: %w", e.Name, os.NewSyscallError("close", err)))
		}
	}
	return errors.Join(errs...)
}

// claim looks for unclaimed descriptors called name that w accepts, hands them to
// use, and gives them away if use succeeds. If use fails, nothing has happened. It
// returns false if nothing of that name was passed and the process may bind it.
// A limit of 0 is none.
//
// A name may stand for several kinds: a claim takes those that it can use.
func (s *Sockets) claim(name string, w want, limit int, use func([]*entry) error) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, fmt.Errorf("claim socket %q: %w", name, os.ErrClosed)
	}
	named := slices.DeleteFunc(slices.Clone(s.entries), func(e *entry) bool { return e.Name != name })
	if len(named) == 0 {
		if s.origin == originNone {
			return false, nil
		}
		return false, s.nameError(name)
	}
	fit := slices.DeleteFunc(slices.Clone(named), func(e *entry) bool { return !w.accepts(e.Kind) })
	if len(fit) == 0 {
		return false, &KindError{Name: name, Want: w.String(), Got: named[0].describe()}
	}
	free := slices.DeleteFunc(slices.Clone(fit), func(e *entry) bool { return e.Claimed })
	if len(free) == 0 {
		return false, fmt.Errorf("claim socket %q: %w", name, ErrClaimed)
	}
	if limit > 0 && len(free) > limit {
		return false, fmt.Errorf("claim socket %q: %d sockets have this name, from %s to %s, and the program takes one: use Take and the methods of Sockets, or a socket unit for each",
			name, len(free), free[0].Address, free[len(free)-1].Address)
	}
	if err := use(free); err != nil {
		return false, fmt.Errorf("claim socket %q: %w", name, err)
	}
	for _, e := range free {
		e.Claimed = true
	}
	return true, nil
}

// describe is for the sentence "socket NAME is ...".
func (e *entry) describe() string {
	what := e.Network
	switch e.Kind {
	case Stream, Seqpacket, Packet, Connection:
		what += " " + e.Kind.String()
	case Other:
		what = "of kind " + what
	}
	if e.Kind != Other {
		what = "a " + what
	}
	if e.Address != "" {
		what += " (" + e.Address + ")"
	}
	return what
}

// nameError is called with s.mu held.
func (s *Sockets) nameError(name string) *NameError {
	err := &NameError{Name: name}
	for _, e := range s.entries {
		if !slices.Contains(err.Passed, e.Name) {
			err.Passed = append(err.Passed, e.Name)
		}
	}
	switch {
	case s.origin == originNone:
		err.hint = "; systemd did not start this process, and there is no address to bind instead"
	case s.origin == originHandedOver:
		err.hint = fmt.Sprintf("; a later generation has the sockets of the first:"+
			" set FileDescriptorName=%s in the .socket unit, start that unit and restart the service", name)
	case len(err.Passed) == 0:
		err.hint = fmt.Sprintf(", nor any other: the service was started without its .socket unit;"+
			" give the service Requires= and After= that unit, with FileDescriptorName=%s in it, and start both again", name)
	default:
		err.hint = fmt.Sprintf("; set FileDescriptorName=%s in its .socket unit and start that unit", name)
	}
	return err
}
