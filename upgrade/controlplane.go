package upgrade

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
	"github.com/hdctl/handoff/upgrade/internal/gate"
)

// openControl makes the control socket of the first generation, or takes the
// inherited one, and starts to answer on it once this generation leads.
func (u *Upgrader) openControl(inherited int) error {
	u.controlFD = inherited
	if inherited < 0 {
		path, own, reason := controlPath(u.set, u.env, u.name)
		if reason != "" {
			u.warn(reason)
		}
		if path == "" {
			return nil
		}
		if own {
			if err := controld.MakeDir(path); err != nil {
				return err
			}
		}
		ln, warning, err := controld.Listen(path, u.set.operatorGroup)
		if err != nil {
			return fmt.Errorf("open the control socket: %w", err)
		}
		if warning != "" {
			u.warn(warning)
		}
		u.controlPath = path
		if u.controlFD, err = duplicate(ln); err != nil {
			return err
		}
	} else if warning := controld.Share(u.controlPath, u.set.operatorGroup); warning != "" {
		u.warn(warning) // a version may name another group than the one before
	}
	u.controlGate = gate.NewListener(u.controlFD, &net.UnixAddr{Name: u.controlPath, Net: "unix"}, nil, nil)
	u.controlServer = controld.New(controld.Config{
		Backend: backend{u}, ServiceUID: os.Geteuid(), OperatorGroup: u.set.operatorGroup, Logger: u.log,
	})
	u.wg.Go(func() {
		if err := u.controlServer.Serve(u.controlGate); err != nil {
			u.log.LogAttrs(u.ctx, slog.LevelError, "control socket", slog.Any("err", err))
		}
	})
	return nil
}

// duplicate returns a descriptor of ln's socket and closes ln.
func duplicate(ln *net.UnixListener) (int, error) {
	defer ln.Close()
	raw, err := ln.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if ctlErr := raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) }); ctlErr != nil {
		return -1, ctlErr
	}
	return fd, os.NewSyscallError("fcntl", err)
}

// closeControl ends answering; with remove, of a service that stops, the socket
// file goes, too.
func (u *Upgrader) closeControl(remove bool) {
	if u.controlGate == nil {
		return
	}
	_ = u.controlGate.Close()
	_ = u.controlServer.Close()
	if remove {
		// As long as the socket listens nobody else takes the path.
		_ = os.Remove(u.controlPath)
	}
	_ = unix.Close(u.controlFD)
}

// backend is what the control server asks.
type backend struct{ u *Upgrader }

func (b backend) Version() control.Version {
	return control.Version{
		APIVersion: control.APIVersion, Library: b.u.library, Service: b.u.name,
		Generation: b.u.number, Version: b.u.opts.Version,
	}
}

func (b backend) Status() *control.Status { return b.u.Status() }

func (b backend) Upgrade(ctx context.Context, req control.UpgradeRequest, p controld.Peer, emit func(control.Event)) *control.Result {
	return answerOf(b.u.request(ctx, req, triggerOf(p, req.Via, req.Reason), emit))
}

// triggerOf says where a request on the control socket came from.
func triggerOf(p controld.Peer, via, reason string) control.Trigger {
	if via == "" {
		via = control.ViaAPI
	}
	return control.Trigger{Via: via, PID: p.PID, UID: p.UID, Reason: clip(reason)}
}

func (b backend) Events(ctx context.Context, follow bool, emit func(control.Event) error) error {
	seq := uint64(0)
	for {
		events, next, more := b.u.events.after(seq)
		seq = next
		for _, e := range events {
			if err := emit(e); err != nil {
				return err
			}
		}
		if !follow || !b.u.view.Load().state.Main {
			return nil // who follows goes on with the main generation
		}
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-b.u.ending:
			return nil
		}
	}
}

// lead makes this generation the one that is asked, and that systemd hears.
func (u *Upgrader) lead() {
	if u.controlGate != nil {
		u.openGate(u.controlGate.Open, func() bool { return u.state.Main })
	}
	u.ping()
}

// yield hands that on.
func (u *Upgrader) yield() {
	if u.controlGate != nil {
		u.controlGate.Pause()
	}
	if u.watchdog != nil {
		u.watchdog.Stop()
	}
}

// ping tells systemd's watchdog that the driver is alive, and does so again: the
// driver executes it, so that a driver that hangs does not.
func (u *Upgrader) ping() {
	if u.env.watchdog == 0 || !u.state.Main {
		return
	}
	u.systemd.notify("WATCHDOG=1")
	u.watchdog = u.after(u.env.watchdog/3, u.ping)
}

// openGate opens a gate, and tries again as long as this fails for want of
// descriptors or memory and it is still wanted open: a door that stays shut by
// accident is an outage.
func (u *Upgrader) openGate(open func() error, wanted func() bool) {
	err := open()
	if err == nil || errors.Is(err, net.ErrClosed) {
		return
	}
	u.log.LogAttrs(u.ctx, slog.LevelError, "gate not opened; trying again", slog.Any("err", err))
	u.after(50*time.Millisecond, func() {
		if wanted() {
			u.openGate(open, wanted)
		}
	})
}
