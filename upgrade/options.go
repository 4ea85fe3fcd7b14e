package upgrade

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hdctl/handoff/activation"
	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// Defaults of [Options].
const (
	DefaultReadyTimeout = 30 * time.Second
	DefaultProbation    = 2 * time.Second
	DefaultDrainTimeout = 10 * time.Minute
	DefaultStopTimeout  = 20 * time.Second
	DefaultMaxDraining  = 8
	DefaultDrainSpread  = 10 * time.Second
	DefaultHangTimeout  = 500 * time.Millisecond
	DefaultStopped      = 5 * time.Second
	DefaultStageTimeout = 30 * time.Minute
)

// Overflow says what becomes of an upgrade while as many old generations drain as
// may.
type Overflow int

// Values of [Options.Overflow].
const (
	// HurryOldest: the oldest gets 5 s to finish.
	HurryOldest Overflow = iota
	// RefuseUpgrade: the upgrade is refused, with the list of who drains.
	RefuseUpgrade
)

var overflowNames = [...]string{"hurry-oldest", "refuse"}

// String returns the word for HANDOFF_OVERFLOW.
func (o Overflow) String() string {
	if o < 0 || int(o) >= len(overflowNames) {
		return fmt.Sprintf("Overflow(%d)", int(o))
	}
	return overflowNames[o]
}

// Options are fixed at [New]. The zero value of each is its default; a negative
// duration means none. Most have an environment variable that wins over the
// code, so that the unit file has the last word; durations are written as Go
// does ("90s", "10m"; "-1s" for none). Status shows the values in force.
type Options struct {
	// Name is the name of the service. Default: under systemd the unit's, else
	// the base name of the program. A successor has its predecessor's.
	Name string
	// Version is a label for status, records and logs.
	Version string
	// ReadyTimeout is how long a new generation may take from its start until
	// it is ready. HANDOFF_READY_TIMEOUT, 30 s.
	ReadyTimeout time.Duration
	// Probation is how long the old generation stands by to take over again
	// after the new one has begun to serve. HANDOFF_PROBATION, 2 s.
	Probation time.Duration
	// DrainTimeout is how long an old generation may take, after an upgrade, to
	// finish what its clients have open. HANDOFF_DRAIN_TIMEOUT, 10 min.
	DrainTimeout time.Duration
	// StopTimeout is how long all generations may take after SIGTERM.
	// HANDOFF_STOP_TIMEOUT, 20 s. It should be shorter than TimeoutStopSec=.
	StopTimeout time.Duration
	// DrainDelay is how long, after an upgrade, connections without an end of
	// their own are left alone before they are told to say goodbye, and
	// DrainSpread the time over which they are told then, each at a random
	// moment ([Conn.OnDrain]). Both end with DrainTimeout at the latest, and
	// neither applies to a stop. HANDOFF_DRAIN_DELAY, none, and
	// HANDOFF_DRAIN_SPREAD, 10 s.
	DrainDelay, DrainSpread time.Duration
	// MaxDraining is how many old generations may drain at once.
	// HANDOFF_MAX_DRAINING, 8.
	MaxDraining int
	// Overflow is what happens when an upgrade would make them more.
	// HANDOFF_OVERFLOW=hurry-oldest (or refuse).
	Overflow Overflow
	// NoMigration keeps idle HTTP/1.1 connections in the generation that
	// accepted them; they end with the answer to their next request.
	// HANDOFF_MIGRATE=on (or off).
	NoMigration bool
	// Control is the path of the control socket, or "-" for none.
	// HANDOFF_CONTROL. Default: under systemd control.sock in that directory of
	// $RUNTIME_DIRECTORY that ends in /handoff/NAME (RuntimeDirectory=; without
	// it there is no control socket, and a warning says so); else
	// $XDG_RUNTIME_DIR/handoff/NAME/control.sock, or for root
	// /run/handoff/NAME/control.sock.
	Control string
	// OperatorGroup is a group that may command on the control socket, besides
	// root and the service's user. HANDOFF_OPERATOR_GROUP.
	OperatorGroup string
	// HangTimeout is how long a new generation, while the old one stands by, may
	// be stopped (SIGSTOP) or accept nothing although clients wait; then it is
	// killed and the old one serves again. Not while a debugger holds it, the
	// unit's CPU time is used up (CPUQuota=), or it has said that it is busy
	// ([Listener.SetBusy]); four times as long while it is at work, or waits for the
	// CPU. HANDOFF_HANG_TIMEOUT, 500 ms.
	HangTimeout time.Duration
	// StoppedTimeout is the same for later, as long as the old generation still
	// drains: a serving generation that is stopped for so long is replaced by the
	// old one; one that runs, but accepts nothing, is reported.
	// HANDOFF_STOPPED_TIMEOUT, 5 s.
	StoppedTimeout time.Duration
	// StageTimeout is how long a staged upgrade waits for a decision; then it is
	// rolled back. HANDOFF_STAGE_TIMEOUT, 30 min.
	StageTimeout time.Duration
	// Check is a command that has to succeed before a new generation is started,
	// such as {"nginx", "-t"}, run as the service with its environment; "%b"
	// stands for the program that is going to run. HANDOFF_CHECK, separated by
	// white space. It counts towards ReadyTimeout.
	Check []string
	// AllowBinary permits upgrades to another program than the one that the
	// service was started with (hdctl upgrade --binary). HANDOFF_ALLOW_BINARY=off
	// (or on).
	AllowBinary bool
	// StateDir is where the history of upgrades is kept, and an operator's pause.
	// "-" is none. HANDOFF_STATE_DIR. Default: under systemd that directory of
	// $STATE_DIRECTORY that ends in /handoff/NAME (StateDirectory=), else none.
	StateDir string
	// PIDFile is a file with the PID of the main generation, for scripts; systemd
	// needs none. HANDOFF_PID_FILE.
	PIDFile string
	// Signals are what signals do. Default: SIGHUP upgrades; SIGTERM and SIGINT
	// stop, unless they are given something else. HANDOFF_SIGNALS=nginx stands for
	// [NginxSignals].
	Signals map[os.Signal]Action
	// NoSIGHUP turns off that SIGHUP starts an upgrade; it is ignored then.
	// HANDOFF_SIGHUP=off (or on).
	NoSIGHUP bool
	// NotifyReload is for units with Type=notify-reload (systemd 253) instead of an
	// ExecReload=: systemd is told when the upgrade for which it has sent SIGHUP
	// begins, and when it has ended. With another Type= a reload that nobody has
	// asked for would be seen. systemctl reload succeeds then in any case; whether
	// the upgrade did is in the unit's status text. HANDOFF_NOTIFY_RELOAD=off (or on).
	NotifyReload bool
	// Reconfigure reads the configuration of the service again, without a new
	// process (hdctl reconfigure, [ActionReconfigure]). An error leaves the old
	// configuration in force, and is the answer. Calls do not overlap. It is not
	// told to be quick, but ctx ends with the generation.
	Reconfigure func(ctx context.Context) error
	// Health returns totals of what the service has done since its start, for the
	// verdict on a staged upgrade. Default: what [HTTP] sees. It is called once a
	// second.
	Health func() Health
	// Logger gets a record for each change of state; nil logs nothing.
	Logger *slog.Logger
	// Sockets are the sockets of the first generation. Default: what systemd
	// passed ([activation.Take]). The Upgrader owns them from the call of New
	// on. A successor's come from its predecessor.
	Sockets *activation.Sockets
}

// Health is how much a service has done since its start.
type Health struct {
	Requests, Errors uint64        // Errors are some of the requests
	Latency          time.Duration // of all of them together; 0: not known
}

// settings are options with defaults and environment applied. 0 means none.
type settings struct {
	readyTimeout, probation, drainTimeout, stopTimeout time.Duration
	drainDelay, drainSpread                            time.Duration
	hangTimeout, stoppedTimeout, stageTimeout          time.Duration

	maxDraining   int
	overflow      Overflow
	noMigration   bool
	control       string
	operatorGroup string
	noSIGHUP      bool
	notifyReload  bool
	check         []string
	allowBinary   bool
	stateDir      string
	pidFile       string
	signals       map[os.Signal]Action
}

// resolve applies environment and defaults. lookup is os.LookupEnv.
func (o Options) resolve(lookup func(string) (string, bool)) (settings, error) {
	s := settings{
		control: o.Control, operatorGroup: o.OperatorGroup, noSIGHUP: o.NoSIGHUP, notifyReload: o.NotifyReload,
		overflow: o.Overflow, noMigration: o.NoMigration,
		check: o.Check, allowBinary: o.AllowBinary, stateDir: o.StateDir, pidFile: o.PIDFile, signals: o.Signals,
	}
	for _, d := range []struct {
		to         *time.Duration
		option     time.Duration
		key        string
		byDefault  time.Duration
		forbidNone bool
	}{
		{&s.readyTimeout, o.ReadyTimeout, "HANDOFF_READY_TIMEOUT", DefaultReadyTimeout, false},
		{&s.probation, o.Probation, "HANDOFF_PROBATION", DefaultProbation, false},
		{&s.drainTimeout, o.DrainTimeout, "HANDOFF_DRAIN_TIMEOUT", DefaultDrainTimeout, false},
		{&s.stopTimeout, o.StopTimeout, "HANDOFF_STOP_TIMEOUT", DefaultStopTimeout, true},
		{&s.drainDelay, o.DrainDelay, "HANDOFF_DRAIN_DELAY", 0, false},
		{&s.drainSpread, o.DrainSpread, "HANDOFF_DRAIN_SPREAD", DefaultDrainSpread, false},
		{&s.hangTimeout, o.HangTimeout, "HANDOFF_HANG_TIMEOUT", DefaultHangTimeout, false},
		{&s.stoppedTimeout, o.StoppedTimeout, "HANDOFF_STOPPED_TIMEOUT", DefaultStopped, false},
		{&s.stageTimeout, o.StageTimeout, "HANDOFF_STAGE_TIMEOUT", DefaultStageTimeout, false},
	} {
		v := d.option
		if text, ok := lookup(d.key); ok && text != "" {
			var err error
			if v, err = time.ParseDuration(text); err != nil {
				return s, fmt.Errorf("read environment variable %s: %w (write it like 90s or 10m)", d.key, err)
			}
			if v == 0 {
				v = -1 // "0s" is meant literally in a unit file
			}
		}
		switch {
		case v == 0:
			v = d.byDefault
		case v < 0 && d.forbidNone:
			v = time.Millisecond // a stop has an end
		case v < 0:
			v = 0
		}
		*d.to = v
	}
	s.maxDraining = o.MaxDraining
	if text, ok := lookup("HANDOFF_MAX_DRAINING"); ok && text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return s, fmt.Errorf("read environment variable HANDOFF_MAX_DRAINING: %q is not a number from 1", text)
		}
		s.maxDraining = n
	}
	if s.maxDraining <= 0 {
		s.maxDraining = DefaultMaxDraining
	}
	for _, t := range []struct {
		to  *string
		key string
	}{
		{&s.control, "HANDOFF_CONTROL"},
		{&s.operatorGroup, "HANDOFF_OPERATOR_GROUP"},
		{&s.stateDir, "HANDOFF_STATE_DIR"},
		{&s.pidFile, "HANDOFF_PID_FILE"},
	} {
		if text, ok := lookup(t.key); ok && text != "" {
			*t.to = text
		}
	}
	if text, ok := lookup("HANDOFF_CHECK"); ok && text != "" {
		s.check = strings.Fields(text)
	}
	switch text, _ := lookup("HANDOFF_SIGNALS"); text {
	case "":
	case "nginx":
		s.signals = NginxSignals()
	default:
		return s, fmt.Errorf("read environment variable HANDOFF_SIGNALS: %q is not nginx", text)
	}
	if text, ok := lookup("HANDOFF_OVERFLOW"); ok && text != "" {
		i := slices.Index(overflowNames[:], text)
		if i < 0 {
			return s, fmt.Errorf("read environment variable HANDOFF_OVERFLOW: %q is neither %s", text, strings.Join(overflowNames[:], " nor "))
		}
		s.overflow = Overflow(i)
	}
	for _, b := range []struct {
		to  *bool
		key string
		on  bool // what "on" means
	}{
		{&s.noSIGHUP, "HANDOFF_SIGHUP", false},
		{&s.notifyReload, "HANDOFF_NOTIFY_RELOAD", true},
		{&s.noMigration, "HANDOFF_MIGRATE", false},
		{&s.allowBinary, "HANDOFF_ALLOW_BINARY", true},
	} {
		switch text, _ := lookup(b.key); text {
		case "":
		case "on", "off":
			*b.to = (text == "on") == b.on
		default:
			return s, fmt.Errorf("read environment variable %s: %q is neither on nor off", b.key, text)
		}
	}
	return s, nil
}

// requestSlack is what an upgrade may take beside getting ready and probation:
// the hand-over itself, and systemd's answer.
const requestSlack = 10 * time.Second

// requestTimeout bounds a request that names no deadline; 0 is unbounded.
func (s settings) requestTimeout() time.Duration {
	if s.readyTimeout == 0 {
		return 0
	}
	return s.readyTimeout + s.probation + requestSlack
}

func (s settings) limits() machine.Limits {
	return machine.Limits{MaxDraining: s.maxDraining, Refuse: s.overflow == RefuseUpgrade}
}

func (s settings) describe(watchdog time.Duration) control.Settings {
	return control.Settings{
		ReadyTimeout: s.readyTimeout.Seconds(),
		Probation:    s.probation.Seconds(),
		DrainTimeout: s.drainTimeout.Seconds(),
		StopTimeout:  s.stopTimeout.Seconds(),
		DrainDelay:   s.drainDelay.Seconds(),
		DrainSpread:  s.drainSpread.Seconds(),
		MaxDraining:  s.maxDraining,
		Overflow:     s.overflow.String(),
		Migrate:      !s.noMigration,
		Watchdog:     watchdog.Seconds(),
		HangTimeout:  s.hangTimeout.Seconds(),
		StopLimit:    s.stoppedTimeout.Seconds(),
		StageTimeout: s.stageTimeout.Seconds(),
		AllowBinary:  s.allowBinary,
		PIDFile:      s.pidFile,
	}
}

// environment is what systemd said to this process in its environment.
type environment struct {
	bySystemd  bool // systemd started this very process, or is told about it
	notify     string
	watchdog   time.Duration
	invocation string
	runtime    []string // $RUNTIME_DIRECTORY
	state      []string // $STATE_DIRECTORY
}

// takeEnvironment reads what is meant for this process alone and removes it, so
// that neither a successor nor a helper process finds what is not true of it, or
// not its business (sd_notify(3), sd_watchdog_enabled(3), systemd.exec(5)). It
// must run before any other goroutine reads the environment.
func takeEnvironment() environment {
	take := func(key string) string {
		v := os.Getenv(key)
		_ = os.Unsetenv(key)
		return v
	}
	self := strconv.Itoa(os.Getpid())
	e := environment{
		notify:     take("NOTIFY_SOCKET"),
		invocation: os.Getenv("INVOCATION_ID"),
	}
	e.bySystemd = take("SYSTEMD_EXEC_PID") == self || e.notify != ""
	usec, pid := take("WATCHDOG_USEC"), take("WATCHDOG_PID")
	if n, err := strconv.ParseInt(usec, 10, 64); err == nil && n > 0 && (pid == "" || pid == self) {
		e.watchdog = time.Duration(n) * time.Microsecond
	}
	if dirs := os.Getenv("RUNTIME_DIRECTORY"); dirs != "" {
		e.runtime = strings.Split(dirs, ":")
	}
	if dirs := os.Getenv("STATE_DIRECTORY"); dirs != "" {
		e.state = strings.Split(dirs, ":")
	}
	return e
}

// serviceName finds the name of the service.
func serviceName(o Options, e environment, cgroup string) string {
	if o.Name != "" {
		return strings.TrimSuffix(o.Name, ".service")
	}
	for _, dir := range e.runtime {
		if parent, name := filepath.Split(dir); filepath.Base(parent) == "handoff" {
			return name
		}
	}
	if e.bySystemd {
		for line := range strings.Lines(cgroup) {
			unit := filepath.Base(strings.TrimSpace(line))
			if name, ok := strings.CutSuffix(unit, ".service"); ok {
				return name
			}
		}
	}
	return filepath.Base(os.Args[0])
}

// controlPath finds the place of the control socket; "" for none, with the
// reason. own says that its directory is ours to make.
func controlPath(s settings, e environment, name string) (path string, own bool, reason string) {
	switch {
	case s.control == "-":
		return "", false, ""
	case s.control != "":
		return s.control, false, ""
	case e.bySystemd:
		for _, dir := range e.runtime {
			if strings.HasSuffix(dir, filepath.Join("/handoff", name)) {
				return filepath.Join(dir, "control.sock"), false, ""
			}
		}
		return "", false, fmt.Sprintf("no control socket: the unit has no RuntimeDirectory=handoff/%s, so hdctl cannot reach this service", name)
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && os.Geteuid() != 0 {
		return filepath.Join(dir, "handoff", name, "control.sock"), true, ""
	}
	if os.Geteuid() == 0 {
		return filepath.Join("/run/handoff", name, "control.sock"), true, ""
	}
	return "", false, "no control socket: XDG_RUNTIME_DIR is not set, so hdctl cannot reach this service"
}

// stateDir finds the place of the state directory; "" for none.
func stateDir(s settings, e environment, name string) string {
	switch {
	case s.stateDir == "-":
		return ""
	case s.stateDir != "":
		return s.stateDir
	case e.bySystemd:
		for _, dir := range e.state {
			if strings.HasSuffix(dir, filepath.Join("/handoff", name)) {
				return dir
			}
		}
		return ""
	}
	return ""
}
