package testbed_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { leak.Main(m) }

// sleeper is a service that does nothing, in three processes.
const sleeper = `[Service]
ExecStart=/bin/sh -c 'sleep infinity & sleep infinity & wait'
`

// Most tests share a testbed: what they do inside does not disturb the others.
func TestTestbed(t *testing.T) {
	tb := testbed.Boot(t)
	for name, test := range map[string]func(*testing.T, *testbed.Testbed){
		"Systemctl":     testSystemctl,
		"Run":           testRun,
		"RunKilled":     testRunKilled,
		"CommandKilled": testCommandKilled,
		"DBus":          testDBus,
		"Dial":          testDial,
		"HTTP":          testHTTP,
		"Kill":          testKill,
		"Pids":          testPids,
		"DaemonReexec":  testDaemonReexec,
		"Journal":       testJournal,
		"WaitJournal":   testWaitJournal,
		"Files":         testFiles,
		"Links":         testLinks,
		"CopyFile":      testCopyFile,
		"Share":         testShare,
		"ReadOnlySys":   testReadOnlySys,
	} {
		t.Run(name, func(t *testing.T) { test(t, tb) })
	}
}

func testSystemctl(t *testing.T, tb *testbed.Testbed) {
	assert.GreaterOrEqual(t, tb.Version(), 252)
	require.NoError(t, tb.Install("sleeper.service", sleeper))
	tb.MustSystemctl(t, "start", "sleeper.service")
	show := tb.Show("sleeper.service", "ActiveState", "MainPID", "Description")
	assert.Len(t, show, 3)
	assert.Equal(t, "active", show["ActiveState"])
	assert.Equal(t, fmt.Sprint(tb.MainPID("sleeper.service")), show["MainPID"])

	// Nothing has failed while booting, and nothing is left to do.
	assert.Equal(t, "running\n", tb.MustSystemctl(t, "is-system-running").Stdout)

	tb.MustSystemctl(t, "stop", "sleeper.service")
	r := tb.Systemctl("is-active", "sleeper.service")
	assert.Equal(t, 3, r.ExitCode)
	assert.Equal(t, "inactive\n", r.Stdout)
	assert.Equal(t, "not-found", tb.Show("nonsense.service", "LoadState")["LoadState"])
}

func testRun(t *testing.T, tb *testbed.Testbed) {
	r := tb.Run(t.Context(), "sh", "-c", "echo out; echo err >&2; exit 7")
	assert.Equal(t, "out\n", r.Stdout)
	assert.Equal(t, "err\n", r.Stderr)
	assert.Equal(t, 7, r.ExitCode)
	assert.EqualError(t, r.Err(), "sh -c echo out; echo err >&2; exit 7: exit code 7\nout\nerr\n")

	assert.Equal(t, 127, tb.Run(t.Context(), "no-such-program").ExitCode)
	assert.Equal(t, 128+9, tb.Run(t.Context(), "sh", "-c", "kill -9 $$").ExitCode)

	// It is really inside: the host name, the directory, a process of few.
	assert.Equal(t, tb.Name()+"\n", tb.MustRun(t, "uname", "-n").Stdout)
	assert.Equal(t, "/\n", tb.MustRun(t, "pwd").Stdout)
	assert.Contains(t, tb.MustRun(t, "cat", "/proc/1/comm").Stdout, "systemd")
	assert.Contains(t, tb.MustRun(t, "cat", "/proc/self/cgroup").Stdout, "0::/commands\n")
}

// A command that is cut short leaves no process behind.
func testRunKilled(t *testing.T, tb *testbed.Testbed) {
	ctx, cancel := context.WithCancelCause(t.Context())
	started := make(chan struct{})
	go func() {
		<-started
		cancel(assert.AnError)
	}()
	name := fmt.Sprint(1e9 + float64(os.Getpid())) // of seconds: found in its command line
	go func() {
		defer close(started)
		tb.WaitFor(t, "the command", func() bool { return running(t, tb, "sleep", name) })
	}()
	r := tb.Run(ctx, "sleep", name)
	assert.Equal(t, -1, r.ExitCode)
	assert.ErrorIs(t, r.Err(), assert.AnError)
	tb.WaitFor(t, "the end of the command", func() bool { return !running(t, tb, "sleep", name) })
}

// Nor does one that is cut short when it has hardly begun: nsenter has a child,
// which is not yet what it is to be.
func testCommandKilled(t *testing.T, tb *testbed.Testbed) {
	name := fmt.Sprint(2e9 + float64(os.Getpid()))
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		command := tb.Command(ctx, "sleep", name)
		require.NoError(t, command.Start())
		children := fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", command.Process.Pid)
		for {
			list, err := os.ReadFile(children)
			require.NoError(t, err)
			if len(list) > 0 {
				break
			}
		}
		cancel()
		assert.Error(t, command.Wait())
	}
	tb.WaitFor(t, "the end of the commands", func() bool { return !running(t, tb, "sleep", name) })
}

// running tells whether a process with that command line runs inside.
func running(t *testing.T, tb *testbed.Testbed, args ...string) bool {
	all := tb.MustRun(t, "sh", "-c", "cat /proc/[0-9]*/cmdline; true").Stdout
	return strings.Contains(all, strings.Join(args, "\x00")+"\x00")
}

// The system bus is started by its first client, and systemd answers on it.
func testDBus(t *testing.T, tb *testbed.Testbed) {
	tb.WaitFor(t, "systemd to be on the bus", func() bool {
		r := tb.Run(t.Context(), "busctl", "--system", "get-property", "org.freedesktop.systemd1",
			"/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "Version")
		return r.ExitCode == 0 && strings.Contains(r.Stdout, fmt.Sprint(tb.Version()))
	})
	// Not being root, systemctl has no other way.
	r := tb.MustRun(t, "setpriv", "--reuid=65534", "systemctl", "show", "--property=Version")
	assert.Contains(t, r.Stdout, fmt.Sprint(tb.Version()))
}

func testKill(t *testing.T, tb *testbed.Testbed) {
	require.NoError(t, tb.Install("kill.service", sleeper))
	tb.MustSystemctl(t, "start", "kill.service")
	pid := tb.MainPID("kill.service")
	require.NotZero(t, pid)

	host, err := tb.HostPID(pid)
	require.NoError(t, err)
	assert.NotEqual(t, pid, host)
	tb.WaitFor(t, "the process to be the shell", func() bool { // still systemd's for a moment
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", host))
		return err == nil && strings.Contains(string(cmdline), "sleep infinity")
	})

	require.NoError(t, tb.Kill(pid, unix.SIGKILL))
	tb.WaitFor(t, "the service to fail", func() bool {
		return tb.Show("kill.service", "Result")["Result"] == "signal"
	})
	assert.Equal(t, "9", tb.Show("kill.service", "ExecMainStatus")["ExecMainStatus"])

	tb.WaitFor(t, "the process to be reaped", func() bool { _, err := tb.HostPID(pid); return err != nil })
	assert.ErrorIs(t, tb.Kill(pid, unix.SIGKILL), os.ErrNotExist)
	tb.MustSystemctl(t, "reset-failed", "kill.service")
	_, err = tb.HostPID(1 << 30)
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func testPids(t *testing.T, tb *testbed.Testbed) {
	require.NoError(t, tb.Install("pids.service", sleeper))
	pids, err := tb.Pids("pids.service")
	require.NoError(t, err)
	assert.Empty(t, pids)

	tb.MustSystemctl(t, "start", "pids.service")
	tb.WaitFor(t, "three processes", func() bool {
		pids, err = tb.Pids("pids.service")
		require.NoError(t, err)
		return len(pids) == 3
	})
	assert.Equal(t, tb.MainPID("pids.service"), pids[0])
	tb.MustSystemctl(t, "stop", "pids.service")
}

func testDaemonReexec(t *testing.T, tb *testbed.Testbed) {
	require.NoError(t, tb.Install("survivor.service", sleeper))
	tb.MustSystemctl(t, "start", "survivor.service")
	pid := tb.MainPID("survivor.service")
	tb.MustSystemctl(t, "daemon-reexec")
	tb.WaitFor(t, "systemd to answer", func() bool { return tb.Systemctl("is-active", "survivor.service").ExitCode == 0 })
	assert.Equal(t, pid, tb.MainPID("survivor.service"))
	_, err := tb.WaitJournal(t.Context(), func(entry testbed.JournalEntry) bool {
		return strings.HasPrefix(entry.Message, "Reexecuting")
	}, "_PID=1")
	require.NoError(t, err)
}

func testJournal(t *testing.T, tb *testbed.Testbed) {
	require.NoError(t, tb.Install("talker.service", `[Service]
Type=oneshot
SyslogIdentifier=talker
ExecStart=/bin/echo plain
ExecStart=/bin/echo <4>careful
ExecStart=/usr/bin/printf %%b 'not \\377 UTF-8\\n'
ExecStart=/bin/echo last
`))
	before := time.Now()
	tb.MustSystemctl(t, "start", "talker.service")
	last, err := tb.WaitJournal(t.Context(), func(entry testbed.JournalEntry) bool { return entry.Message == "last" }, "--unit=talker.service")
	require.NoError(t, err)

	entries, err := tb.Journal("--identifier=talker")
	require.NoError(t, err)
	require.Len(t, entries, 4)
	assert.Equal(t, "plain", entries[0].Message)
	assert.Equal(t, 6, entries[0].Priority)
	assert.Equal(t, "talker.service", entries[0].Unit)
	assert.Equal(t, "talker", entries[0].Fields["SYSLOG_IDENTIFIER"])
	assert.Positive(t, entries[0].PID)
	assert.WithinRange(t, entries[0].Time, before, time.Now())
	assert.Equal(t, "careful", entries[1].Message)
	assert.Equal(t, 4, entries[1].Priority)
	assert.Equal(t, "not \xff UTF-8", entries[2].Message)
	assert.Equal(t, last.Cursor, entries[3].Cursor)

	none, err := tb.Journal("--identifier=nobody")
	require.NoError(t, err)
	assert.Empty(t, none)
	_, err = tb.Journal("--nonsense")
	assert.ErrorContains(t, err, "nonsense")
}

func testWaitJournal(t *testing.T, tb *testbed.Testbed) {
	type result struct {
		entry testbed.JournalEntry
		err   error
	}
	found := make(chan result, 1)
	seen := make(chan struct{}, 1)
	go func() {
		entry, err := tb.WaitJournal(t.Context(), func(entry testbed.JournalEntry) bool {
			select {
			case seen <- struct{}{}: // it is past the start of the journal
			default:
			}
			return entry.Message == "the news"
		})
		found <- result{entry, err}
	}()
	<-seen
	tb.MustRun(t, "systemd-cat", "--identifier=herald", "echo", "the news")
	r := <-found
	require.NoError(t, r.err)
	assert.Equal(t, "herald", r.entry.Fields["SYSLOG_IDENTIFIER"])

	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := tb.WaitJournal(ctx, func(testbed.JournalEntry) bool {
		cancel(assert.AnError)
		return false
	})
	assert.ErrorIs(t, err, assert.AnError)
}

func TestParseField(t *testing.T) {
	for field, want := range map[string]string{
		`"text"`:            "text",
		`[104, 105, 255]`:   "hi\xff",
		`["one", "two"]`:    "one",
		`[[104, 105], "x"]`: "hi",
		`null`:              "",
		`[]`:                "",
		`{}`:                "",
	} {
		assert.Equal(t, want, testbed.ParseField(json.RawMessage(field)), field)
	}
}

func TestNameOf(t *testing.T) {
	for name, want := range map[string]string{
		"":                                 "testbed",
		"TestUpgrade":                      "upgrade",
		"TestUpgrade/with_ünïcode":         "upgrade-with--n",
		"TestAVeryLongNameThatGoesOnAndOn": "averylongnametha",
		"///":                              "testbed",
	} {
		assert.Equal(t, want, testbed.NameOf(name))
	}
}
