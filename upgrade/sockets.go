package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/activation"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/spawn"
)

// Names under which descriptors are passed to the next generation. Sockets are
// numbered, and described in the hello.
const (
	keyLink    = "link"
	keyControl = "control"
	keySocket  = "socket/"
)

// reservedName is the name of a socket that a service may not have.
const reservedName = "control"

// socket is one shared descriptor of the service. It is kept, as a bare number
// outside the netpoller, from the start of the generation to its end, whether the
// service serves it or not: the next version may.
type socket struct {
	name             string
	index            int
	network, address string
	fd               int
	slot             *pulse.Slot // where accepts are counted; nil: nowhere
	claimed          bool
	kept             bool // open to the end of the process: a PacketConn may still write to it
}

// addr returns the address of the socket as package net knows it.
func (s *socket) addr() net.Addr { return addr{s.network, s.address} }

// addr is a net.Addr for what package net has no type for.
type addr struct{ network, address string }

func (a addr) Network() string { return a.network }
func (a addr) String() string  { return a.address }

// socketTable is every socket of the service.
type socketTable struct {
	mu    sync.Mutex
	set   *activation.Sockets
	socks []*socket
}

// claim takes the sockets called name that network could stand for, or binds
// address where the set allows it.
func (t *socketTable) claim(name, network, address string) ([]*socket, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fds, err := t.set.ClaimFDs(context.Background(), name, network, address)
	if err != nil {
		return nil, err
	}
	return t.add(fds, true)
}

// claimRest takes what nobody claimed, so that it reaches the next generation,
// and returns it.
func (t *socketTable) claimRest() ([]*socket, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var rest []*socket
	for _, s := range t.set.Unclaimed() {
		// One claim takes all of that name.
		if slices.ContainsFunc(rest, func(r *socket) bool { return r.name == s.Name }) {
			continue
		}
		fds, err := t.set.ClaimFDs(context.Background(), s.Name, "", "")
		if err != nil {
			return rest, err
		}
		socks, err := t.add(fds, false)
		if err != nil {
			return rest, err
		}
		rest = append(rest, socks...)
	}
	return rest, nil
}

func (t *socketTable) add(fds []activation.FD, claimed bool) ([]*socket, error) {
	var socks []*socket
	for _, fd := range fds {
		network, address, err := activation.Describe(fd.FD)
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd.FD)
			}
			return nil, fmt.Errorf("socket %q: %w", fd.Name, err)
		}
		socks = append(socks, &socket{name: fd.Name, index: fd.Index, network: network, address: address, fd: fd.FD, claimed: claimed})
	}
	t.socks = append(t.socks, socks...)
	slices.SortStableFunc(t.socks, func(a, b *socket) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.index, b.index))
	})
	return socks, nil
}

// all returns the sockets, sorted by name.
func (t *socketTable) all() []*socket {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.socks)
}

// export describes the sockets for a hello, and lists their descriptors, which
// stay ours.
func (t *socketTable) export() ([]link.Socket, []spawn.File) {
	var described []link.Socket
	var files []spawn.File
	for i, s := range t.all() {
		key := keySocket + strconv.Itoa(i)
		described = append(described, link.Socket{
			Key: key, Name: s.name, Index: s.index, Network: s.network, Address: s.address,
		})
		files = append(files, spawn.File{Name: key, FD: s.fd})
	}
	return described, files
}

// inheritSockets makes the set of a successor: what the hello describes, of what
// was passed. It owns the descriptors.
func inheritSockets(described []link.Socket, files map[string]int) (*activation.Sockets, error) {
	var fds []activation.NamedFD
	for _, d := range described {
		fd, ok := files[d.Key]
		if !ok {
			return nil, fmt.Errorf("the predecessor announced socket %q (%s %s), but did not pass it", d.Name, d.Network, d.Address)
		}
		delete(files, d.Key)
		fds = append(fds, activation.NamedFD{Name: d.Name, FD: fd})
	}
	return activation.NewSockets(true, fds...)
}

// close gives up the descriptors of this process.
func (t *socketTable) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	errs := []error{t.set.Close()}
	for _, s := range t.socks {
		if s.kept {
			continue
		}
		if err := unix.Close(s.fd); err != nil {
			errs = append(errs, fmt.Errorf("close socket %q: %w", s.name, os.NewSyscallError("close", err)))
		}
	}
	t.socks = nil
	return errors.Join(errs...)
}
