package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/hdctl/handoff/activation"
	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// needs is the list of sockets that a program asks for which is to print them
// ([control.NeedsEnv]). It runs up to where it would serve, on sockets that nobody
// knows, and then ends: only the program itself knows what it would ask for.
type needs struct {
	mu      sync.Mutex
	sockets []control.Need
	once    sync.Once
	err     error // of printing
}

// printsNeeds tells whether this process is to print what it needs. No successor
// does: nobody would ever know why an upgrade did not come about.
func printsNeeds(successor bool) bool {
	asked := os.Getenv(control.NeedsEnv) == "1"
	_ = os.Unsetenv(control.NeedsEnv)
	return asked && !successor
}

// beNobody has a generation that prints its needs leave no traces: no control
// socket, no files, no word to systemd.
func (u *Upgrader) beNobody() error {
	u.set.control, u.set.stateDir, u.set.pidFile = "-", "-", ""
	u.env = environment{}
	if u.table.set != nil {
		if err := u.table.set.Close(); err != nil {
			return err
		}
	}
	var err error
	u.table.set, err = activation.NewSockets(false)
	u.opts.Sockets = nil
	return err
}

// ask takes a note of a socket and returns the address of one to be bound in its
// place.
func (n *needs) ask(name, network string) (address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sockets = append(n.sockets, control.Need{Name: name, Network: network})
	switch network {
	case "tcp6", "udp6":
		return "[::1]:0"
	case "unix", "unixpacket", "unixgram":
		return fmt.Sprintf("@handoff-needs-%d-%d", os.Getpid(), len(n.sockets))
	}
	return "127.0.0.1:0"
}

// printNeeds prints the list, once, and ends this generation.
func (u *Upgrader) printNeeds() error {
	n := u.needs
	n.once.Do(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		text, err := json.Marshal(control.Needs{
			Library: u.library, Service: u.name, Version: u.opts.Version, Sockets: append([]control.Need{}, n.sockets...),
		})
		if err == nil {
			_, err = os.Stdout.Write(append(text, '\n'))
		}
		if err != nil {
			n.err = fmt.Errorf("upgrade: print the sockets that are asked for: %w", err)
		}
		u.box.post(func() { u.step(machine.Stop{}) })
	})
	<-u.over
	return errors.Join(n.err, u.endErr)
}
