package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade"
	"github.com/hdctl/handoff/upgrade/control"
)

// site is a testbed with the demo service on it, or with another program in its
// place, installed as an operator would: the units that hdctl generates, and hdctl
// where they look for it.
type site struct {
	*testbed.Testbed
	t       testing.TB
	sockets []string // their units
}

const (
	service = "demo.service"
	program = "/usr/local/bin/demo"
	address = "127.0.0.1:8080"
)

// options of a site.
type options struct {
	program   string               // what is deployed; default demo-v1
	unit      func(*units.Service) // changes what is generated
	dropIn    string               // [Service] lines besides
	stopped   bool                 // does not start it
	probation time.Duration
}

// newSite boots a testbed and starts version v1 of the demo, or another program.
func newSite(t testing.TB, o options) *site {
	t.Helper()
	s := &site{Testbed: testbed.Boot(t), t: t}
	require.NoError(t, s.CopyFile(binaries.path(t, "hdctl"), units.DefaultHdctl))
	s.deploy(cmp.Or(o.program, "demo-v1"))
	u := units.Service{
		Name: "demo", Exec: program,
		Sockets: []units.Socket{
			socket(t, "http", "8080"), socket(t, "echo", "7777"), socket(t, "dgram", "udp:7778"),
		},
		Probation: 200 * time.Millisecond,
		// Of the race detector, if it is there: no second of sleep at the end.
		Environment: []units.Variable{
			{Name: "GORACE", Value: "atexit_sleep_ms=0"},
			{Name: "HANDOFF_DRAIN_SPREAD", Value: "100ms"},
		},
	}
	if o.probation != 0 {
		u.Probation = o.probation
	}
	if o.unit != nil {
		o.unit(&u)
	}
	for i := range u.Sockets {
		s.sockets = append(s.sockets, u.SocketUnitName(i))
	}
	files, err := u.Render()
	require.NoError(t, err)
	texts := make(map[string]string)
	for name, content := range files {
		texts[name] = string(content)
	}
	if o.dropIn != "" {
		texts[service+".d/test.conf"] = "[Service]\n" + o.dropIn
	}
	require.NoError(t, s.InstallUnits(texts))
	if o.stopped {
		return s
	}
	s.MustSystemctl(t, append([]string{"start", service}, s.sockets...)...)
	return s
}

func socket(t testing.TB, name, listen string) units.Socket {
	t.Helper()
	l, err := units.ParseListen(listen)
	require.NoError(t, err)
	return units.Socket{Name: name, Listen: []units.Listen{l}}
}

// deploy installs a program where the service runs it, by rename(2).
func (s *site) deploy(name string) {
	s.t.Helper()
	require.NoError(s.t, s.CopyFile(binaries.path(s.t, name), program))
}

// deployFaulty installs the program that goes wrong in the given way.
func (s *site) deployFaulty(mode string) {
	s.t.Helper()
	require.NoError(s.t, s.WriteFile(program+".mode", []byte(mode), 0o644))
	s.deploy("faulty")
}

// reload runs "systemctl reload", which must succeed.
func (s *site) reload() {
	s.t.Helper()
	s.MustSystemctl(s.t, "reload", service)
}

// stop stops the service and its sockets.
func (s *site) stop() {
	s.t.Helper()
	s.MustSystemctl(s.t, append([]string{"stop", service}, s.sockets...)...)
}

// hdctl runs hdctl inside.
func (s *site) hdctl(args ...string) testbed.Result {
	return s.Run(context.Background(), append([]string{"hdctl"}, args...)...)
}

// status asks the service, by hdctl.
func (s *site) status() control.Status {
	s.t.Helper()
	r := s.hdctl("status", "-o", "json", "demo")
	require.Equal(s.t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	return parseStatus(s.t, r.Stdout)
}

func parseStatus(t testing.TB, text string) control.Status {
	t.Helper()
	var st control.Status
	require.NoError(t, json.Unmarshal([]byte(text), &st), "%s", text)
	return st
}

// generation returns one of the generations of a status.
func generation(t testing.TB, st control.Status, number int) control.Generation {
	t.Helper()
	for _, g := range st.Generations {
		if g.Number == number {
			return g
		}
	}
	t.Fatalf("no generation %d in %+v", number, st.Generations)
	return control.Generation{}
}

// main returns the main generation of a status.
func mainOf(t testing.TB, st control.Status) control.Generation {
	t.Helper()
	return generation(t, st, st.Main)
}

// working counts the connections of a generation that are in the middle of
// something over HTTP.
func working(g control.Generation) int { return g.Conns.Active + g.Conns.Stream }

// unit returns what systemd thinks of the service.
func (s *site) unit() map[string]string {
	s.t.Helper()
	return s.Show(service, "ActiveState", "SubState", "MainPID", "Result", "NRestarts", "StatusText", "ReloadResult")
}

// requireServing asserts that systemd and the service agree that the given
// generation is main and serves, and that it does.
func (s *site) requireServing(number int, version string) control.Status {
	s.t.Helper()
	st := s.status()
	require.Equal(s.t, number, st.Main)
	require.Equal(s.t, control.StateServing, st.State)
	unit := s.unit()
	require.Equal(s.t, "active", unit["ActiveState"], "%v", unit)
	require.Equal(s.t, "running", unit["SubState"], "%v", unit)
	require.Equal(s.t, fmt.Sprint(mainOf(s.t, st).PID), unit["MainPID"])
	a := s.get("/")
	require.Equal(s.t, fmt.Sprint(number), a.header("X-Handoff-Generation"))
	require.Equal(s.t, version, a.header("X-Handoff-Version"))
	return st
}

// noZombies asserts that the service has left no dead process unreaped.
func (s *site) noZombies() {
	s.t.Helper()
	pids, err := s.Pids(service)
	require.NoError(s.t, err)
	for _, pid := range pids {
		require.NotEqual(s.t, "Z", s.processState(pid), "pid %d is a zombie", pid)
	}
}

// processState returns the state of a process inside as proc_pid_stat(5) has it,
// "" if it is gone.
func (s *site) processState(pid int) string {
	stat, err := s.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	state, _, _ := strings.Cut(rest, " ")
	return state
}

// startLoad puts a load on the service and returns when it has begun.
func (s *site) startLoad(o load.Options) *load.Load {
	s.t.Helper()
	o.Dial = func(ctx context.Context) (net.Conn, error) { return s.Dial(ctx, "tcp", address) }
	l := load.Start(context.Background(), o)
	s.t.Cleanup(func() { l.Stop() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(s.t, l.Wait(ctx, func(r load.Report) bool { return r.Total().Responses >= 50 }))
	return l
}

// requireNoFailure ends the load and asserts that no request failed.
func requireNoFailure(t testing.TB, l *load.Load) load.Report {
	t.Helper()
	r := l.Stop()
	t.Logf("%v", r)
	require.NoError(t, r.Err())
	total := r.Total()
	require.Equal(t, total.Requests, total.Responses)
	return r
}

// kill sends a signal to a process inside.
func (s *site) kill(pid int, signal syscall.Signal) {
	s.t.Helper()
	require.NoError(s.t, s.Kill(pid, signal))
}

// waitGone waits until a process inside is gone.
func (s *site) waitGone(pid int) {
	s.t.Helper()
	s.WaitFor(s.t, fmt.Sprintf("the end of process %d", pid), func() bool {
		_, err := s.HostPID(pid)
		return err != nil
	})
}

// upgradeInBackground runs "hdctl upgrade" and returns its result when it is there.
func (s *site) inBackground(args ...string) <-chan testbed.Result {
	ch := make(chan testbed.Result, 1)
	go func() { ch <- s.Run(context.Background(), args...) }()
	return ch
}

// waitPhase waits until an upgrade is in the given phase.
func (s *site) waitPhase(phase string) control.Status {
	s.t.Helper()
	var st control.Status
	s.WaitFor(s.t, "an upgrade in "+phase, func() bool {
		r := s.hdctl("status", "-o", "json", "demo")
		if r.ExitCode != 0 {
			return false
		}
		st = parseStatus(s.t, r.Stdout)
		return st.Upgrade != nil && st.Upgrade.Phase == phase
	})
	return st
}

// The structured records of package upgrade.
const (
	upgradedID = upgrade.MessageUpgraded
	failedID   = upgrade.MessageUpgradeFailed
	drainedID  = upgrade.MessageDrained
	hungID     = upgrade.MessageHung
)

// waitRecord waits for an entry of the journal.
func (s *site) waitRecord(match string) testbed.JournalEntry {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, err := s.WaitJournal(ctx, func(testbed.JournalEntry) bool { return true }, match)
	require.NoError(s.t, err)
	return e
}

// journalText is all that the journal has, one message a line.
func (s *site) journalText() string {
	s.t.Helper()
	entries, err := s.Journal()
	require.NoError(s.t, err)
	var text strings.Builder
	for _, e := range entries {
		text.WriteString(e.Message + "\n")
	}
	return text.String()
}
