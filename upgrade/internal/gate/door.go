package gate

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

// door is what the gates have in common: a shared socket, and something of
// package net, a T, that exists while the gate is open.
type door[T io.Closer] struct {
	fd   int
	addr net.Addr
	from func(*os.File) (T, error) // works on a duplicate of the descriptor

	mu      sync.Mutex
	reserve reserve
	opening *opening[T] // nil while the gate is closed
	last    *opening[T] // the latest one, if it was closed again
	shut    bool
	changed chan struct{} // closed at the next change
}

// opening is the time from an Open to the next Pause.
type opening[T io.Closer] struct {
	via T
	// entered are the calls that use via.
	entered sync.WaitGroup
}

func (d *door[T]) init(fd int, addr net.Addr, from func(*os.File) (T, error)) {
	d.fd, d.addr, d.from = fd, addr, from
	d.changed = make(chan struct{})
	d.reserve = noReserve
	d.reserve.fill(fd)
}

// Open opens the gate. An error leaves it closed, and Open may be tried again;
// [net.ErrClosed] is the answer of a gate that is shut.
func (d *door[T]) Open() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.shut:
		return net.ErrClosed
	case d.opening != nil:
		return nil
	}
	d.reserve.release()
	o := new(opening[T])
	err := borrow(d.fd, func(f *os.File) (err error) {
		o.via, err = d.from(f)
		return err
	})
	if err != nil {
		d.reserve.fill(d.fd)
		return fmt.Errorf("open gate of %s: %w", d.addr, err)
	}
	d.opening = o
	d.wake()
	return nil
}

// Pause closes the gate: once it has returned nothing more is taken from the
// socket. What was being taken in that moment still arrives; Settle waits for it.
func (d *door[T]) Pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opening == nil {
		return
	}
	_ = d.opening.via.Close() // close(2) only: what is made of a file neither unlinks nor shuts down
	d.last, d.opening = d.opening, nil
	d.reserve.fill(d.fd)
	d.wake()
}

// Settle waits, after a Pause, until all that was being taken from the socket
// has been.
func (d *door[T]) Settle() {
	d.mu.Lock()
	last := d.last
	d.mu.Unlock()
	if last != nil {
		last.entered.Wait()
	}
}

// Close shuts the gate for good: whoever waits at it gets [net.ErrClosed]. The
// descriptor is the caller's again.
func (d *door[T]) Close() error {
	d.Pause()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut {
		return nil
	}
	d.shut = true
	d.reserve.release()
	d.wake()
	return nil
}

// wake tells all that wait that the gate has changed. The caller holds mu.
func (d *door[T]) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// enter returns the present opening, which the caller leaves by
// entered.Done; or nil and what to wait for. No call enters an opening that has
// ended, so that Settle can wait for those that did.
func (d *door[T]) enter(op string) (*opening[T], <-chan struct{}, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.enterLocked(op)
}

// enterLocked is enter for a caller that holds mu.
func (d *door[T]) enterLocked(op string) (*opening[T], <-chan struct{}, error) {
	switch {
	case d.shut:
		return nil, nil, d.fail(op, net.ErrClosed)
	case d.opening != nil:
		d.opening.entered.Add(1)
	}
	return d.opening, d.changed, nil
}

// isOpen tells whether o has not ended: an error of it is a real one then, and
// not our own doing.
func (d *door[T]) isOpen(o *opening[T]) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opening == o
}

func (d *door[T]) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: d.addr.Network(), Addr: d.addr, Err: err}
}
