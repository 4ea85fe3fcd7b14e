package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// patience is how long the bench waits for what a service does by itself.
const patience = 30 * time.Second

// generation is one process of a service.
type generation struct {
	pid       int
	listening time.Time
	exited    time.Time     // zero while it lives
	cpu       time.Duration // of its life, when it has exited
}

// process is a service with all its generations.
type process struct {
	kind    string
	dir     string
	address string
	client  control.Client // of a service that is a kindHandoff
	cmd     *exec.Cmd      // the first generation
	reports *net.UnixConn
	read    sync.WaitGroup // of the reports
	gone    chan struct{}  // closed when no generation is left

	mu          sync.Mutex
	generations []generation // in the order of their starts
	failure     error        // of an upgrade
	log         bytes.Buffer
	changed     chan struct{} // closed at the next change
}

// start starts a service and waits until it listens.
func start(ctx context.Context, kind string, env ...string) (*process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "handoff-bench-")
	if err != nil {
		return nil, err
	}
	p := &process{kind: kind, dir: dir, gone: make(chan struct{}), changed: make(chan struct{})}
	p.client.Socket = filepath.Join(dir, "control.sock")
	path := filepath.Join(dir, "report.sock")
	p.reports, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p.read.Go(p.listen)
	// All generations have this pipe, so its end is that of the last one.
	r, w, err := os.Pipe()
	if err != nil {
		p.forget()
		return nil, err
	}
	p.cmd = exec.Command(program, serveCommand, kind)
	p.cmd.Stdout, p.cmd.Stderr = w, w
	p.cmd.Env = append(os.Environ(), reportEnv+"="+path, "HANDOFF_CONTROL="+p.client.Socket,
		"HANDOFF_PROBATION="+probation.String(), "HANDOFF_STOP_TIMEOUT=2s")
	p.cmd.Env = append(p.cmd.Env, env...)
	// A group of its own: Ctrl-C is for the bench, which then stops the service.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = p.cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		p.forget()
		return nil, err
	}
	go func() {
		defer close(p.gone)
		_, _ = io.Copy(p, r)
		r.Close()
		_ = p.cmd.Wait() // how it ended, the last lines tell
	}()
	if err := p.wait(ctx, "the service listens", func(gs []generation) bool { return len(gs) > 0 }); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// probation is how long an old generation of package upgrade stands by. It is
// shorter than a service would have it, since it is in all times but costs nothing.
const probation = 100 * time.Millisecond

// Write keeps what the service prints.
func (p *process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(text)
}

// listen takes reports until the socket is closed.
func (p *process) listen() {
	buf := make([]byte, 4096)
	for {
		n, err := p.reports.Read(buf)
		if err != nil {
			return
		}
		var e event
		if err := json.Unmarshal(buf[:n], &e); err == nil {
			p.note(e)
		}
	}
}

func (p *process) note(e event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Event {
	case eventListening:
		p.generations = append(p.generations, generation{pid: e.PID, listening: e.Time})
		p.address = e.Address
	case eventFailed:
		p.failure = fmt.Errorf("an upgrade failed: %s", e.Message)
	case eventExited:
		for i := range p.generations {
			if g := &p.generations[i]; g.pid == e.PID {
				g.exited, g.cpu = e.Time, e.CPU
			}
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait waits until cond holds of the generations; what says that in words.
func (p *process) wait(ctx context.Context, what string, cond func([]generation) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		p.mu.Lock()
		met, failure, changed := cond(p.generations), p.failure, p.changed
		p.mu.Unlock()
		switch {
		case met:
			return nil
		case failure != nil:
			return failure
		}
		select {
		case <-changed:
		case <-p.gone:
			return fmt.Errorf("wait until %s: the service ended:\n%s", what, p.output())
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w\n%s", what, ctx.Err(), p.output())
		}
	}
}

// output is the last of what the service has printed.
func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.log.Bytes()
	return string(b[max(0, len(b)-2048):])
}

// last is the newest generation, and which it is.
func (p *process) last() (int, generation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := len(p.generations) - 1
	return i, p.generations[i]
}

// generation returns number i, from 0.
func (p *process) generation(i int) generation {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.generations[i]
}

// upgrade replaces the newest generation and waits until the new one serves; with
// package upgrade, until it is confirmed.
func (p *process) upgrade(ctx context.Context, on func(control.Event)) error {
	i, old := p.last()
	if p.kind == kindHandoff {
		if _, err := p.client.Upgrade(ctx, control.UpgradeRequest{}, on); err != nil {
			return err
		}
	} else if err := syscall.Kill(old.pid, syscall.SIGHUP); err != nil {
		return err
	}
	return p.wait(ctx, "the next generation serves", func(gs []generation) bool { return len(gs) > i+1 })
}

// waitExited waits until generation i is gone.
func (p *process) waitExited(ctx context.Context, i int) error {
	return p.wait(ctx, "the old generation is gone", func(gs []generation) bool { return !gs[i].exited.IsZero() })
}

// stop ends all generations: by SIGTERM to the newest that lives, and if that does not help in
// time, by SIGKILL.
func (p *process) stop() error {
	defer p.forget()
	p.mu.Lock()
	for _, g := range slices.Backward(p.generations) {
		if g.exited.IsZero() {
			_ = syscall.Kill(g.pid, syscall.SIGTERM)
			break
		}
	}
	p.mu.Unlock()
	late := time.NewTimer(patience / 3)
	defer late.Stop()
	select {
	case <-p.gone:
		return nil
	case <-late.C:
	}
	// The group may have lost its first process, but not its number: nobody else
	// gets that while there is a process in it.
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.gone
	return fmt.Errorf("the service did not stop in time, and was killed; its last lines:\n%s", p.output())
}

// forget gives back what belongs to the bench.
func (p *process) forget() {
	_ = p.reports.Close()
	p.read.Wait()
	_ = os.RemoveAll(p.dir)
}
