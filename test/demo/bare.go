package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// bare is a host without systemd: the service binds by itself, in a directory of
// the demo.
type bare struct {
	*stage
	dir     string
	address string
	socket  string // of hdctl

	service *exec.Cmd // the first generation; nil: not started
	log     transcript
	gone    chan struct{} // closed when no generation is left
}

func newBare(_ context.Context, s *stage, dir string) (host, error) {
	// There is no way to ask for a free port and keep it, so it may be lost.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	return &bare{
		stage: s, dir: dir, address: ln.Addr().String(),
		socket: filepath.Join(dir, "control.sock"), gone: make(chan struct{}),
	}, nil
}

// command shows a command, runs it in the demo's directory, and shows its output.
func (h *bare) command(ctx context.Context, program string, args ...string) outcome {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = h.dir
	return h.stage.run(cmd)
}

func (h *bare) install(ctx context.Context, version string) error {
	args := []string{filepath.Join(version, "handoff-demo"), "handoff-demo"}
	h.typed("$", append([]string{"install"}, args...)...)
	return h.command(ctx, "install", args...).err()
}

func (h *bare) start(context.Context) error {
	args := []string{"--http", h.address, "--name", "demo"}
	h.typed("$", append([]string{"./handoff-demo"}, args...)...)
	h.service = exec.Command(filepath.Join(h.dir, "handoff-demo"), args...)
	h.service.Dir = h.dir
	h.service.Env = append(os.Environ(), "HANDOFF_CONTROL="+h.socket, "HANDOFF_STOP_TIMEOUT=5s")
	// A group of its own: Ctrl-C is for the demo, which then stops the service.
	h.service.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// All generations have this pipe, so its end is that of the last one.
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	h.service.Stdout, h.service.Stderr = w, w
	if err := h.service.Start(); err != nil {
		r.Close()
		h.service = nil
		return err
	}
	serving := make(chan struct{})
	h.log.notify("msg=serving", serving)
	go func() {
		defer close(h.gone)
		defer r.Close()
		_, _ = io.Copy(&h.log, r)
		_ = h.service.Wait() // how it ended, the last lines tell
	}()
	select {
	case <-serving:
		return nil
	case <-h.gone:
		return fmt.Errorf("the service ended:\n%s", h.log.String())
	}
}

// reload sends SIGHUP, which has no answer: the service is asked until there is
// one.
func (h *bare) reload(ctx context.Context) outcome {
	start := time.Now()
	before, err := h.client().Status(ctx)
	if err != nil {
		return outcome{args: []string{"kill"}, code: -1, cause: err}
	}
	args := []string{"kill", "-HUP", strconv.Itoa(before.Generations[0].PID)}
	h.typed("$", args...)
	o := h.command(ctx, "sh", "-c", `"$@"`, "sh", args[0], args[1], args[2])
	o.args = args
	if o.cause == nil {
		h.say("(a signal has no answer: the demo asks the service until it has one)")
		if o.cause = h.settled(ctx, before); o.cause != nil {
			o.code = 1
		}
	}
	o.elapsed = time.Since(start)
	return o
}

// settled waits for the end of an upgrade that was not known before.
func (h *bare) settled(ctx context.Context, before *control.Status) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := h.client().Status(ctx)
		switch {
		case err != nil:
			// Main moves at this moment, or the service is gone: ctx limits it.
		case status.Last == nil || before.Last != nil && !status.Last.Time.After(before.Last.Time):
		case status.Last.Outcome != control.OutcomeConfirmed:
			return fmt.Errorf("the upgrade %s: %w", status.Last.Outcome, status.Last.Error)
		default:
			return nil
		}
		select {
		case <-tick.C:
		case <-h.gone:
			return fmt.Errorf("the service ended:\n%s", h.log.String())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (h *bare) answersReload() bool { return false }

func (h *bare) hdctl(ctx context.Context, args ...string) outcome {
	args = append(args, "--socket", "control.sock")
	h.typed("$", append([]string{"hdctl"}, args...)...)
	return h.command(ctx, filepath.Join(h.dir, "hdctl"), args...)
}

func (h *bare) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", h.address)
}

func (h *bare) client() *control.Client { return &control.Client{Socket: h.socket} }

// close stops all generations: by SIGTERM to the main one, and if that does not
// help in time, by SIGKILL to all.
func (h *bare) close() error {
	if h.service == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	status, err := h.client().Status(ctx)
	if err == nil {
		err = syscall.Kill(status.Generations[0].PID, syscall.SIGTERM)
	}
	if err == nil {
		select {
		case <-h.gone:
			return nil
		case <-ctx.Done():
			err = errors.New("it did not stop in time, and was killed")
		}
	}
	_ = syscall.Kill(-h.service.Process.Pid, syscall.SIGKILL)
	<-h.gone
	return fmt.Errorf("stop the service: %w; its last lines:\n%s", err, h.log.String())
}

// transcript keeps what the service prints.
type transcript struct {
	mu    sync.Mutex
	text  bytes.Buffer
	what  string
	found chan struct{} // closed when what was printed; nil: it was, or nobody asks
}

// notify closes found when what is printed.
func (t *transcript) notify(what string, found chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.what, t.found = what, found
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text.Write(p)
	if t.found != nil && bytes.Contains(t.text.Bytes(), []byte(t.what)) {
		close(t.found)
		t.found = nil
	}
	return len(p), nil
}

// String returns the last 2 KiB.
func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.text.Bytes()
	return string(b[max(0, len(b)-2048):])
}
