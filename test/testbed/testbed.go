package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// bootTimeout is how long a boot may take that usually takes less than a
// second: so long only on a machine that is overloaded.
const bootTimeout = 2 * time.Minute

// Options say how a testbed differs from the usual one.
type Options struct {
	// Name shows in the testbed's directory and host name. Default: "testbed",
	// or the name of the test.
	Name string
	// Rootfs is the directory of a root file system with systemd, as
	// debootstrap(8) makes one. It is never written to; several testbeds may
	// use it at once. Default: $HANDOFF_TESTBED_ROOTFS, or else the host's root.
	Rootfs string
	// ManagerConf is added to the section [Manager] of systemd's configuration,
	// see systemd-system.conf(5): "DefaultTimeoutStartSec=5s\n".
	ManagerConf string
	// Console, if not nil, gets a copy of what PID 1 prints outside the
	// journal. A failed boot says so here; [Start] has it in its error, too.
	Console io.Writer
}

// A Testbed is a running systemd and the namespaces around it. Its methods may
// be called from several goroutines at once.
//
// PIDs are those that processes inside see, unless a name says "host".
type Testbed struct {
	name    string
	home    *home
	init    *pid1
	pidns   string // its PID namespace, as "pid:[4026532840]"
	console *console
	logf    func(format string, args ...any) // of the test, if there is one
	version int

	stop    sync.Once
	stopErr error
}

// Start boots a testbed outside of tests; they better use [Boot]. It returns
// when systemd has started all units of multi-user.target, or ctx is done. The
// caller must call [Testbed.Stop].
//
// The testbed lives at most as long as the calling process.
func Start(ctx context.Context, options Options) (*Testbed, error) {
	if options.Rootfs == "" {
		options.Rootfs = os.Getenv(RootfsEnv)
	}
	if options.Rootfs == "" {
		options.Rootfs = "/"
	}
	rootfs, err := filepath.Abs(options.Rootfs)
	if err != nil {
		return nil, err
	}
	options.Rootfs = rootfs
	options.Name = nameOf(options.Name)
	if err := available(rootfs); err != nil {
		return nil, fmt.Errorf("testbed: not available: %w", err)
	}
	// Leftovers of others are no reason to fail.
	_ = sweep()

	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, fmt.Errorf("not booted after %v", bootTimeout))
	defer cancel()
	tb, err := start(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("testbed: %w", err)
	}
	return tb, nil
}

func start(ctx context.Context, options Options) (_ *Testbed, err error) {
	tb := &Testbed{name: options.Name, logf: func(string, ...any) {}}
	if tb.home, err = newHome(options.Name); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tb.Stop())
		}
	}()
	// PID 1 of a container tells its manager when the boot is complete, in the
	// same way as services tell systemd.
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(tb.Share(), ".notify")})
	if err != nil {
		return nil, err
	}
	defer func() { _ = notify.Close() }() // removes the socket, too

	stdout, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	tb.console = newConsole(stdout, options.Console)
	tb.init, err = spawn(plan{
		rootfs:      options.Rootfs,
		managerConf: options.ManagerConf,
		hostname:    options.Name,
		home:        tb.home,
		notify:      "/share/.notify",
		console:     write,
	})
	_ = write.Close()
	if err != nil {
		return nil, err
	}
	if err := tb.awaitReady(ctx, notify); err != nil {
		return nil, err
	}
	if tb.pidns, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", tb.init.process.Pid)); err != nil {
		return nil, err
	}
	tb.version, err = tb.readVersion(ctx)
	return tb, err
}

// awaitReady waits for READY=1.
func (tb *Testbed) awaitReady(ctx context.Context, notify *net.UnixConn) error {
	ready := make(chan error, 1)
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := notify.Read(buffer)
			if err != nil || slices.Contains(strings.Split(string(buffer[:n]), "\n"), "READY=1") {
				ready <- err
				return
			}
		}
	}()
	var err error
	select {
	case err := <-ready:
		return err
	case <-tb.init.exited:
		<-tb.console.done
		err = fmt.Errorf("boot: PID 1 exited: %v", tb.init.state)
	case <-ctx.Done():
		err = fmt.Errorf("boot: %w", context.Cause(ctx))
	}
	_ = notify.Close()
	<-ready
	return fmt.Errorf("%w; its console:\n%s", err, tb.console)
}

// Stop ends everything inside at once, without asking (a power cut), and
// removes all traces from the host. Files of [Testbed.Share] are gone, too.
// It returns when that is done. More calls do no harm.
func (tb *Testbed) Stop() error {
	tb.stop.Do(func() {
		if tb.init != nil {
			// The end of a PID namespace's first process is the end of all.
			if err := tb.init.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				tb.stopErr = err
			}
			<-tb.init.exited
			tb.init.close()
		}
		if tb.console != nil {
			<-tb.console.done
		}
		tb.stopErr = errors.Join(tb.stopErr, tb.home.close())
	})
	return tb.stopErr
}

// Share returns a directory of the host that is /share inside. Unix sockets in
// it can be connected to from both sides.
func (tb *Testbed) Share() string { return tb.home.share() }

// Version returns the version of systemd, as 252.
func (tb *Testbed) Version() int { return tb.version }

// Name returns the name of the testbed, which is its host name, too.
func (tb *Testbed) Name() string { return tb.name }

// nameOf makes a short name of a test's name, good for files and hosts.
// Sockets in [Testbed.Share] need short paths.
func nameOf(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(strings.TrimPrefix(name, "Test")))
	clean = strings.Trim(clean[:min(len(clean), 16)], "-")
	if clean == "" {
		return "testbed"
	}
	return clean
}

// console reads what PID 1 prints.
type console struct {
	tail
	done chan struct{} // closed after the last line
}

// newConsole reads from r, in a goroutine, until it ends, and closes it.
func newConsole(r io.ReadCloser, tee io.Writer) *console {
	c := &console{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer func() { _ = r.Close() }()
		if tee != nil {
			_, _ = io.Copy(tee, io.TeeReader(r, c))
			// If that failed, go on without: PID 1 must not get SIGPIPE.
		}
		_, _ = io.Copy(c, r)
	}()
	return c
}
