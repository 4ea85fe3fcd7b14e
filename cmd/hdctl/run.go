package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/activation/launch"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// runCmd is "hdctl run".
type runCmd struct {
	Listen   []string      `sep:"none" placeholder:"NAME=ADDR[,mode=MODE]" help:"A socket: its name for the program, and [tcp:|udp:|unix:|unixgram:|unixpacket:]ADDR, where ADDR is PORT, IP:PORT, /PATH or @NAME; with the mode of a unix socket's file, in octal (0666). Repeat it for more sockets; the same NAME for more addresses."`
	Name     string        `placeholder:"NAME" help:"Name of the service (that of the program's file)."`
	Env      []string      `sep:"none" placeholder:"NAME=VALUE" help:"An environment variable for it; repeat it for more."`
	Watch    bool          `help:"Upgrade the service when the file of its program changes; start it again if it is down."`
	Debounce time.Duration `placeholder:"DURATION" help:"With --watch: look at the file so often; it must have been the same in two looks (300ms)."`
	Restart  bool          `help:"Start it again when it ends by itself."`
	Command  []string      `arg:"" passthrough:"" placeholder:"COMMAND" help:"The program and its arguments."`
}

// Help is shown by hdctl run --help.
func (runCmd) Help() string {
	return `The program gets its sockets as from systemd, so it must not bind them by itself. Other verbs find it by its name; for an ordinary user they take --user.

SIGHUP upgrades the service, Ctrl-C stops it, and a second Ctrl-C kills it. It stops, too, when its terminal is closed, unless nohup(1) is in front. Where hdctl itself is killed with SIGKILL, the service goes on without it. What the program prints is not touched. Exit status: that of the main process, 128 and the number of the signal that has killed it, or 0 if it ended by SIGTERM when it was told to.

Example:

    hdctl run --listen http=127.0.0.1:8080 --watch -- ./app --verbose
    hdctl run --listen dns=udp:5353 --listen admin=/tmp/admin.sock,mode=0600 ./app
`
}

// Run starts the program, and stays with it until it has ended.
func (c *runCmd) Run(ctx context.Context, a *app) error {
	if os.Geteuid() != 0 {
		a.globals.User = true
	}
	path, args, err := c.program()
	if err != nil {
		return err
	}
	if c.Name == "" {
		c.Name = filepath.Base(path)
	}
	t, err := a.target(c.Name)
	if err != nil {
		return err
	}
	t.socket = control.SocketIn(a.dir(), t.name)
	addresses, err := c.addresses()
	if err != nil {
		return err
	}
	for _, e := range c.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return exitf(exitUsage, "--env %q: want NAME=VALUE", e)
		}
	}
	if c.Debounce < 0 {
		return exitf(exitUsage, "--debounce: %v is negative", c.Debounce)
	}

	place, err := a.takePlace(ctx, t)
	if err != nil {
		return err
	}
	defer place.release()
	state := a.stateOf(t)
	if err := errors.Join(os.MkdirAll(filepath.Dir(state), 0o755), os.MkdirAll(state, 0o750)); err != nil {
		a.warnf("no history is kept: %v", err)
		state = ""
	}
	var sockets []*launch.Socket
	defer func() {
		for _, s := range sockets {
			if err := s.Close(); err != nil {
				a.warnf("%v", err)
			}
		}
	}()
	for _, address := range addresses {
		s, err := launch.Bind(ctx, address)
		if err != nil {
			return bindError(err)
		}
		sockets = append(sockets, s)
	}
	r := &runner{
		app: a, cmd: c, target: t, client: a.client(t),
		command: launch.Command{
			Path: path, Args: args, Env: c.environment(a, t, state), Sockets: sockets,
			Shim: []string{a.self, execVerb}, RuntimeDirectory: place.dir, StateDirectory: state,
		},
	}
	return r.run(ctx)
}

// program finds the program.
func (c *runCmd) program() (path string, args []string, err error) {
	words := c.Command
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		return "", nil, exitf(exitUsage, "which program?").withHint("hdctl run --help")
	}
	path, err = exec.LookPath(words[0])
	if errors.Is(err, exec.ErrDot) {
		err = nil // it was asked for
	}
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", nil, exitf(exitUsage, "%w", err)
	}
	return path, words[1:], nil
}

// addresses reads --listen.
func (c *runCmd) addresses() ([]launch.Address, error) {
	var out []launch.Address
	for _, l := range c.Listen {
		name, address, ok := strings.Cut(l, "=")
		if !ok || name == "" {
			return nil, exitf(exitUsage, "--listen %q: want NAME=ADDR", l)
		}
		address, text, hasMode := strings.Cut(address, ",mode=")
		listen, err := units.ParseListen(address)
		if err != nil {
			return nil, exitf(exitUsage, "--listen %q: %w", l, err)
		}
		bound := addressOf(name, listen)
		if hasMode {
			mode, err := strconv.ParseUint(text, 8, 32)
			if err != nil || mode == 0 || mode > 0o777 || !strings.HasPrefix(listen.Address, "/") {
				return nil, exitf(exitUsage, "--listen %q: mode=%s: want an octal mode, for the path of a unix socket", l, text)
			}
			bound.Mode = fs.FileMode(mode)
		}
		out = append(out, bound)
	}
	return out, nil
}

// addressOf is an address of systemd.socket(5) in the words of package net.
func addressOf(name string, l units.Listen) launch.Address {
	a := launch.Address{Name: name, Address: l.Address}
	switch isUnix := strings.HasPrefix(l.Address, "/") || strings.HasPrefix(l.Address, "@"); {
	case isUnix && l.Kind == units.Stream:
		a.Network = "unix"
	case isUnix && l.Kind == units.Datagram:
		a.Network = "unixgram"
	case isUnix:
		a.Network = "unixpacket"
	case l.Kind == units.Datagram:
		a.Network = "udp"
	default:
		a.Network = "tcp"
	}
	switch {
	case a.Network != "tcp" && a.Network != "udp":
	case !strings.Contains(a.Address, ":"):
		a.Address = ":" + a.Address // all addresses, IPv4 and IPv6
	case !strings.HasPrefix(a.Address, "["):
		a.Network += "4" // or 0.0.0.0 would be IPv6, too
	}
	return a
}

func bindError(err error) error {
	e := exitf(exitFailed, "%w", cleanError{err})
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return e.withHint("somebody has it already: ss -lp shows who")
	case errors.Is(err, unix.EACCES):
		return e.withHint("ports below 1024 are for root")
	}
	return e
}

// environment is what the program gets: the one of hdctl, and where to find the
// service. The variables of the library say it again, for a program that has another
// name in mind.
func (c *runCmd) environment(a *app, t target, state string) []string {
	env := maps.Clone(a.env)
	delete(env, "HDCTL_SOCKET")
	setDefaultIn(env, "HANDOFF_CONTROL", t.socket)
	if state != "" {
		setDefaultIn(env, "HANDOFF_STATE_DIR", state)
	}
	for _, e := range c.Env {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}

func setDefaultIn(env map[string]string, name, value string) {
	if env[name] == "" {
		env[name] = value
	}
}

// place is the runtime directory of a service that hdctl runs. It is locked, so that
// no two have the same name.
type place struct {
	dir string
	fd  int
}

// takePlace makes the directory, which systemd would do by RuntimeDirectory=.
func (a *app) takePlace(ctx context.Context, t target) (*place, error) {
	dir := filepath.Dir(t.socket)
	fail := func(err error) error {
		e := exitf(exitFailed, "make the runtime directory: %w", err)
		if a.globals.User {
			return e.withHint("set XDG_RUNTIME_DIR to a directory of yours")
		}
		return e
	}
	for {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fail(err)
		}
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue // the one before us is about to leave
		}
		if err != nil {
			return nil, fail(&fs.PathError{Op: "open", Path: dir, Err: err})
		}
		p := &place{dir, fd}
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			unix.Close(fd)
			return nil, runsAlready(t, err)
		}
		if !p.current() {
			unix.Close(fd)
			continue
		}
		if err := a.call(ctx, t, a.patience.status, func(ctx context.Context, c *control.Client) error {
			_, err := c.Version(ctx)
			if notRunning(err) {
				return nil
			}
			return errors.Join(errRuns, err)
		}); err != nil {
			unix.Close(fd)
			return nil, runsAlready(t, nil)
		}
		return p, nil
	}
}

var errRuns = errors.New("it runs")

func runsAlready(t target, err error) error {
	if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
		return exitf(exitFailed, "lock the runtime directory of %s: %w", t, err)
	}
	return exitf(exitRefused, "%s runs already", t).withHint("%s shows it; --name gives this one another name", t.command("status"))
}

// current tells whether the locked directory is the one that the path leads to.
func (p *place) current() bool {
	var locked, there unix.Stat_t
	return unix.Fstat(p.fd, &locked) == nil && unix.Stat(p.dir, &there) == nil &&
		locked.Ino == there.Ino && locked.Dev == there.Dev
}

// release removes the directory with what the service has left there.
func (p *place) release() {
	_ = os.RemoveAll(p.dir)
	_ = unix.Close(p.fd)
}

// execVerb is how hdctl calls itself to become the program: launch.Exec.
const execVerb = "__exec"

// execCmd is "hdctl __exec".
type execCmd struct {
	Args []string `arg:"" passthrough:"" help:"What package launch says."`
}

// Help is shown by hdctl __exec --help.
func (execCmd) Help() string {
	return `This is a part of hdctl run.

Example:

    hdctl run ./app
`
}

// Run becomes the program, or fails; hdctl run then has the reason.
func (c *execCmd) Run(context.Context, *app) error {
	if err := launch.Exec(c.Args); errors.Is(err, launch.ErrNotStarted) {
		return exitf(exitUsage, "%w", err)
	}
	return exitCode(127)
}

// text is a word in front of what is said about the service.
func (r *runner) text(format string, args ...any) string {
	return fmt.Sprintf("%s: %s", r.target, clean(fmt.Sprintf(format, args...)))
}
