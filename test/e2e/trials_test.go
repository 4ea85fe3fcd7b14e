package e2e

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/faulty/fault"
	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// trials is a site with the service that goes wrong as it is told to, in a good
// version at first.
type trials struct {
	*site
	executable []byte     // without a plan
	labels     int        // of versions, used so far
	number     int        // of the generation that serves
	version    string     // its label
	good       fault.Plan // what the next good version does
}

// newTrials boots a testbed and starts a good version. change may change its units.
func newTrials(t testing.TB, change func(*units.Service)) *trials {
	t.Helper()
	s := &trials{number: 1}
	s.site = newSite(t, options{
		program: "faulty", stopped: true, probation: 700 * time.Millisecond,
		unit: func(u *units.Service) {
			u.Sockets = []units.Socket{socket(t, "http", "8080")}
			// Who holds a connection decides how long the old generation drains.
			u.Environment = append(u.Environment, units.Variable{Name: "HANDOFF_DRAIN_DELAY", Value: "1h"})
			if change != nil {
				change(u)
			}
		},
	})
	var err error
	s.executable, err = os.ReadFile(binaries.path(t, "faulty"))
	require.NoError(t, err)
	s.version = s.install(fault.Plan{})
	s.MustSystemctl(t, append([]string{"start", service}, s.sockets...)...)
	s.requireServing(1, s.version)
	return s
}

// install puts a version with the given plan where the service runs it, by
// rename(2), and returns its label, which no other one has.
func (s *trials) install(p fault.Plan) string {
	s.t.Helper()
	s.labels++
	p.Version = fmt.Sprintf("t%d", s.labels)
	file, err := p.Attach(s.executable)
	require.NoError(s.t, err)
	require.NoError(s.t, s.WriteFile(program, file, 0o755))
	return p.Version
}

// trial is a version that is tried under load, and what is seen of it.
type trial struct {
	s    *trials
	plan fault.Plan
	load *load.Load

	label    string            // of the version
	before   control.Status    // when it began
	unit     map[string]string // likewise
	cursor   string            // of the journal, likewise
	command  testbed.Result    // of the upgrade
	result   control.Result    // likewise
	after    control.Status    // when it ended
	messages []string          // of the service's journal, in between
	deed     string            // what the test itself does to the version, if the plan has nothing
	done     time.Time         // when
	report   load.Report       // of the load, likewise
}

// newArrivals is the load of a trial: new connections at a fixed rate. With the race
// detector in the service and in the client the machine cannot bear as many.
func newArrivals() load.Options {
	o := load.Arriving()
	if len(raceFlags) > 0 {
		o.Arrivals = 300
	}
	return o
}

// lasting are the properties of the unit that are the same for as long as systemd
// does not start it again.
var lasting = []string{"NRestarts", "InvocationID", "ActiveEnterTimestampMonotonic", "ActiveState"}

// begin installs a version and puts load on the service.
func (s *trials) begin(p fault.Plan) *trial {
	s.t.Helper()
	return s.beginUnder(newArrivals(), p)
}

// beginUnder is begin with another load.
func (s *trials) beginUnder(o load.Options, p fault.Plan) *trial {
	s.t.Helper()
	tr := &trial{s: s, plan: p}
	tr.before = s.requireServing(s.number, s.version)
	tr.unit = s.Show(service, lasting...)
	// One that is among those that are asked for later: journalctl of systemd 252
	// would leave out the first of these.
	entries, err := s.Journal("--unit="+service, "--lines=1")
	require.NoError(s.t, err)
	require.NotEmpty(s.t, entries)
	tr.cursor = entries[0].Cursor
	tr.load = s.startLoad(o)
	tr.label = s.install(p)
	return tr
}

// upgrade tries it, and returns when the caller of the upgrade has its answer. via is
// hdctl or systemctl.
func (tr *trial) upgrade(via string) {
	tr.s.t.Helper()
	tr.answer(tr.s.Run(context.Background(), tr.commandLine(via)...))
}

func (tr *trial) commandLine(via string) []string {
	if via == control.ViaSystemctl {
		return []string{"systemctl", "reload", service}
	}
	return []string{"hdctl", "upgrade", "-o", "json", "demo"}
}

// answer is what the caller of the upgrade was told.
func (tr *trial) answer(r testbed.Result) {
	tr.s.t.Helper()
	tr.command = r
	if r.Args[0] == "hdctl" {
		tr.result = upgradeResult(tr.s.t, r)
		return
	}
	// Of systemctl it is no more than the exit status.
	st := tr.s.status()
	require.NotNil(tr.s.t, st.Last)
	tr.result = st.Last.Result
}

// end ends the load, collects the rest, and adds a line to the table of trials: what
// went wrong, and what became of it.
func (tr *trial) end() {
	t := tr.s.t
	t.Helper()
	tr.report = tr.load.Stop()
	tr.after = tr.s.status()
	if tr.plan.Fault != "" && tr.struck().IsZero() {
		tr.waitMessage("faulty: " + string(tr.plan.Fault) + strikes)
	}
	if tr.result.Error != nil {
		tr.waitMessage(tr.result.Error.Message)
	}
	for _, e := range tr.journal() {
		tr.messages = append(tr.messages, e.Message)
	}
	gap, back := tr.report.Arrivals.Longest(), "never"
	if at := tr.struck(); !at.IsZero() {
		gap = tr.report.Arrivals.Around(at, 50*time.Millisecond)
		if a, ok := tr.report.Arrivals.Next(at, tr.before.Main); ok {
			back = a.End().Sub(at).Round(100 * time.Microsecond).String()
		}
	}
	t.Logf("TRIAL | %v | exit %d, %s | failed %v of %d | gap %v (%d to %d), old answers after %s | %d -> %d, client %v late",
		cmp.Or(tr.deed, tr.plan.String()), tr.command.ExitCode, tr.result.Outcome, tr.report.Arrivals.Failed(), len(tr.report.Arrivals),
		gap.Length().Round(100*time.Microsecond), gap.Before, gap.After, back, tr.before.Main, tr.after.Main,
		tr.report.Arrivals.Late().Round(time.Millisecond))
}

// journal is what the journal has of the service since it began.
func (tr *trial) journal() []testbed.JournalEntry {
	tr.s.t.Helper()
	entries, err := tr.s.Journal("--unit="+service, "--after-cursor="+tr.cursor)
	require.NoError(tr.s.t, err)
	return entries
}

// waitMessage waits until the journal has a message that contains the text.
func (tr *trial) waitMessage(text string) {
	tr.s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := tr.s.WaitJournal(ctx, func(e testbed.JournalEntry) bool {
		return strings.Contains(e.Message, text)
	}, "--unit="+service, "--after-cursor="+tr.cursor)
	require.NoError(tr.s.t, err, "%q in the journal", text)
}

// strikes is what the service says, between the fault and the time, when it comes.
const strikes = ", now: "

// struck is when the fault came, by the service's own words unless it was our deed;
// zero if it did not come.
func (tr *trial) struck() time.Time {
	if !tr.done.IsZero() {
		return tr.done
	}
	for _, line := range append(tr.result.Output, tr.messages...) {
		if _, text, found := strings.Cut(line, strikes); found && strings.HasPrefix(line, "faulty: ") {
			at, err := time.Parse(time.RFC3339Nano, text)
			require.NoError(tr.s.t, err)
			return at
		}
	}
	return time.Time{}
}

// told is how an upgrade ended, in the words of one of those who can be asked.
type told struct {
	outcome, via   string
	from, to       int // generations
	fromPID, toPID int
	message        string // of the error; of a success: none
}

func tell(r control.Result) told {
	t := told{r.Outcome, r.Trigger.Via, r.From, r.To, r.FromPID, r.ToPID, ""}
	if r.Error != nil {
		t.message = r.Error.Message
	}
	return t
}

// assertTold asserts that status, history and journal tell the same of the upgrade,
// and that the status text of the unit does not hide it: its endings, the latest
// first, which are returned as the history has them.
func (tr *trial) assertTold(endings ...control.Result) []control.Entry {
	t := tr.s.t
	t.Helper()
	var want []told
	for _, r := range endings {
		want = append(want, tell(r))
	}
	require.NotNil(t, tr.after.Last)
	assert.Equal(t, want[0], tell(tr.after.Last.Result), "status")

	var entries []control.Entry
	tr.s.WaitFor(t, "the history", func() bool { // it is written a moment later
		entries = tr.s.history("-n", strconv.Itoa(len(want)))
		return len(entries) == len(want) && entries[0].Time.Equal(tr.after.Last.Time)
	})
	var got []told
	for _, e := range entries {
		got = append(got, tell(e.Result))
	}
	assert.Equal(t, want, got, "history")

	got = nil
	for _, e := range slices.Backward(tr.journal()) {
		if id := e.Fields["MESSAGE_ID"]; id != upgradedID && id != failedID {
			continue
		}
		r := told{outcome: e.Fields["HANDOFF_OUTCOME"], via: e.Fields["HANDOFF_TRIGGER"]}
		for field, number := range map[string]*int{
			"HANDOFF_FROM": &r.from, "HANDOFF_TO": &r.to, "HANDOFF_FROM_PID": &r.fromPID, "HANDOFF_TO_PID": &r.toPID,
		} {
			var err error
			*number, err = strconv.Atoi(e.Fields[field])
			require.NoError(t, err, field)
		}
		if r.outcome != control.OutcomeConfirmed { // then what it printed is there, too
			r.message, _, _ = strings.Cut(e.Fields["HANDOFF_REASON"], "; it printed: ")
		}
		got = append(got, r)
	}
	assert.Equal(t, want, got, "journal")

	text := tr.s.unit()["StatusText"]
	assert.Contains(t, text, fmt.Sprintf("generation %d ", tr.after.Main))
	assert.Contains(t, text, want[0].message)
	return entries
}

// requireNoRestart asserts that for systemd nothing has happened to the unit.
func (tr *trial) requireNoRestart() {
	tr.s.t.Helper()
	require.Equal(tr.s.t, tr.unit, tr.s.Show(service, lasting...), "systemd has not started it again")
}

// assertAnswered asserts that no connection was refused, and none failed, but for
// those that had been accepted by a process that died (dead).
func (tr *trial) assertAnswered(dead bool) {
	t := tr.s.t
	t.Helper()
	failed := tr.report.Arrivals.Failed()
	assert.Zero(t, failed[load.Refused], "%v", tr.report)
	if dead {
		delete(failed, load.Reset)
		delete(failed, load.EOF)
	}
	assert.Empty(t, failed, "%v", tr.report)
	assert.NotEmpty(t, tr.report.Arrivals)
}

// assertServedOnce asserts that from the moment on at which the old generation has
// answered again, after the fault, nobody else has accepted anything.
func (tr *trial) assertServedOnce() {
	t := tr.s.t
	t.Helper()
	first, ok := tr.report.Arrivals.Next(tr.struck(), tr.before.Main)
	if !assert.True(t, ok, "the old generation serves again") {
		return
	}
	for _, a := range tr.report.Arrivals {
		if a.Due.After(first.End()) && a.Answered > 0 {
			require.Equal(t, tr.before.Main, a.Generation, "%+v, after %+v", a, first)
		}
	}
}

// afterwards asserts that the generation that serves is the one that is said to, in
// the eyes of a client, of the service and of systemd, and that the next good version
// takes over.
func (s *trials) afterwards() {
	t := s.t
	t.Helper()
	s.requireServing(s.number, s.version)
	require.Equal(t, strconv.Itoa(s.MainPID(service)), s.get("/").header("X-Handoff-Pid"))
	s.noZombies()

	version := s.install(s.good)
	r := s.hdctl("upgrade", "-o", "json", "demo")
	require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	result := upgradeResult(t, r)
	require.Equal(t, control.OutcomeConfirmed, result.Outcome)
	s.number, s.version = result.To, version
	s.requireServing(s.number, s.version)
	require.Equal(t, result.ToPID, s.MainPID(service))
}
