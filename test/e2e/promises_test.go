package e2e

// The promises, each with the test that has its name:
//
//  1. systemd owns the sockets             TestSystemdOwnsTheSockets
//  2. always somebody at the door          TestAlwaysSomebodyAtTheDoor
//  3. old keeps serving until new is ready TestOldKeepsServingUntilNewIsReady (broken_test.go)
//  4. the answer is the truth              TestTheAnswerIsTheTruth
//  5. fall back                            TestFallBack; in each way, at each moment:
//     until the confirm                    TestBadVersionsBeforeConfirm, TestHangsInProbation (badversions_test.go)
//     while systemd is told of it          TestFaultsWhileSystemdIsTold (notifying_test.go)
//     as long as the old one drains        TestLateFallBack (latefallback_test.go)
//     and if it cannot take a drain back   TestIrreversibleServersAfterTheConfirm (irreversible_test.go)
//     but not for nothing                  TestWhatIsNoHang, TestAHangAfterTheConfirmIsReported (nohang_test.go)
//  6. no connection is closed unannounced  TestNoConnectionIsClosedUnannounced
//  7. upgrades do not wait for drains      TestUpgradesDoNotWaitForDrains
//  8. systemd's view is right              TestSystemdsViewIsRight (systemd_test.go)
//  9. everything is visible                TestEverythingIsVisible
// 10. nobody else commands it              TestNobodyElseCommandsIt
// 11. without systemd it works too         TestWithoutSystemdItWorksToo (bare_test.go)
// 12. a stop is a stop                     TestAStopIsAStop (stop_test.go)
//     in every order                       TestStopIsNeverAFallBack (stoporder_test.go)

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// TestSystemdOwnsTheSockets looks at the sockets from outside: through upgrades, a
// failed one and a crash of the service they are the same, by inode, and systemd
// never had to make them again.
func TestSystemdOwnsTheSockets(t *testing.T) {
	s := newSite(t, options{unit: func(u *units.Service) {
		l, err := units.ParseListen("/run/demo.sock")
		require.NoError(t, err)
		u.Sockets[0].Listen = append(u.Sockets[0].Listen, l)
	}})
	look := func() string {
		return s.MustRun(t, "sh", "-c",
			`stat -c %i /run/demo.sock; awk '$4=="0A" {print $2, $10}' /proc/net/tcp6; awk '{print $2, $10}' /proc/net/udp6`).Stdout
	}
	before := look()
	require.Contains(t, before, ":1F90 ", "8080 is there")
	s.deploy("demo-v2")
	s.reload()
	s.deployFaulty("exit1")
	require.Equal(t, 1, s.Systemctl("reload", service).ExitCode)
	s.deploy("demo-v3")
	s.reload()
	assert.Equal(t, before, look())

	s.kill(s.status().Generations[0].PID, syscall.SIGKILL)
	s.WaitFor(t, "the restart", func() bool { return s.unit()["NRestarts"] == "1" && s.unit()["ActiveState"] == "active" })
	assert.Equal(t, before, look())
	assert.Equal(t, "active", s.Show("demo.socket", "ActiveState")["ActiveState"])
}

// TestAlwaysSomebodyAtTheDoor connects without a pause while the service is
// upgraded, fails to be, loses a new version in probation, crashes and restarts:
// no connection is ever refused.
func TestAlwaysSomebodyAtTheDoor(t *testing.T) {
	s := newSite(t, options{unit: func(u *units.Service) { u.Probation = 500 * time.Millisecond }})
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	dials := 0
	wg.Go(func() {
		for ctx.Err() == nil {
			c, err := s.Dial(context.Background(), "tcp", address)
			if !assert.NoError(t, err, "dial %d", dials) {
				return
			}
			c.Close()
			dials++
		}
	})
	for _, v := range []string{"demo-v2", "demo-v3", "demo-v1"} {
		s.deploy(v)
		s.reload()
	}
	s.deployFaulty("exit1")
	require.Equal(t, 1, s.Systemctl("reload", service).ExitCode)
	s.deployFaulty("serve")
	up := s.inBackground("systemctl", "reload", service)
	s.kill(s.waitPhase(control.PhaseProbation).Upgrade.PID, syscall.SIGKILL)
	require.Equal(t, 1, (<-up).ExitCode)
	s.deploy("demo-v2")
	s.reload()
	s.MustSystemctl(t, "restart", service)
	s.kill(s.MainPID(service), syscall.SIGKILL)
	s.WaitFor(t, "the restart", func() bool { return s.unit()["NRestarts"] == "1" && s.unit()["ActiveState"] == "active" })
	s.requireServing(1, "v2")
	stop()
	wg.Wait()
	t.Logf("%d connections, none refused", dials)
}

// TestTheAnswerIsTheTruth compares what is answered with what is, for hdctl and
// for systemctl, good and bad; and an upgrade that was answered as failed does not
// happen later.
func TestTheAnswerIsTheTruth(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{unit: func(u *units.Service) { u.Probation = 500 * time.Millisecond }})
	s.deploy("demo-v2")
	r := s.hdctl("upgrade", "demo")
	require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	s.requireServing(2, "v2") // at once, with no wait

	// Too little time: with the probation to come it cannot be in time.
	s.deploy("demo-v3")
	r = s.hdctl("upgrade", "--timeout", "300ms", "demo")
	assert.Equal(t, 6, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	st := s.requireServing(2, "v2")
	assert.Nil(t, st.Upgrade)
	assert.Equal(t, control.OutcomeTimedOut, st.Last.Outcome)
	for _, g := range st.Generations {
		assert.LessOrEqual(t, g.Number, 2, "the one that was given up is gone")
	}

	// Somebody else's process is killed as the answer is awaited.
	s.deployFaulty("hang")
	up := s.inBackground("hdctl", "upgrade", "demo")
	s.kill(s.waitPhase(control.PhaseReady).Upgrade.PID, syscall.SIGKILL)
	r = <-up
	assert.Equal(t, 1, r.ExitCode)
	assert.Contains(t, r.Stderr, "SIGKILL")
	s.requireServing(2, "v2")

	// The one that answers dies: the outcome is not invented.
	up = s.inBackground("hdctl", "upgrade", "demo")
	s.waitPhase(control.PhaseReady)
	s.kill(s.MainPID(service), syscall.SIGKILL)
	r = <-up
	assert.Contains(t, []int{9, 10}, r.ExitCode, "%s%s", r.Stdout, r.Stderr)

	assert.Equal(t, 4, s.hdctl("upgrade", "nosuch").ExitCode)
	assert.Equal(t, 2, s.hdctl("upgrade", "--nosuch").ExitCode)
	s.MustSystemctl(t, "stop", "demo.socket", "demo-echo.socket", "demo-dgram.socket", service)
	assert.Equal(t, 3, s.hdctl("status", "demo").ExitCode)
	assert.Equal(t, 3, s.hdctl("upgrade", "demo").ExitCode)
}

// TestFallBack has the new generation die in its probation: the old one accepts
// again, under the same PID, and can be upgraded again. If the new one dies after
// it was confirmed, the old one ends at once, systemd starts the service again,
// and who connects waits in the backlog.
func TestFallBack(t *testing.T) {
	s := newSite(t, options{unit: func(u *units.Service) { u.Probation = 10 * time.Second }})
	pid := s.MainPID(service)
	for range 3 {
		up := s.inBackground("hdctl", "upgrade", "demo")
		st := s.waitPhase(control.PhaseProbation)
		require.Equal(t, control.StateParked, generation(t, st, 1).State)
		s.kill(st.Upgrade.PID, syscall.SIGKILL)
		r := <-up
		assert.Equal(t, 1, r.ExitCode)
		assert.Contains(t, r.Stderr, "fell back")
		st = s.requireServing(1, "v1")
		assert.Equal(t, pid, mainOf(t, st).PID)
		assert.Equal(t, control.OutcomeFellBack, st.Last.Outcome)
		assert.Equal(t, "SIGKILL", st.Last.Signal)
		s.noZombies()
	}

	s = newSite(t, options{})
	held := s.openEcho() // so that the old one lives on
	require.Equal(t, "1: a", held.say("a"))
	s.deploy("demo-v2")
	s.reload()
	st := s.requireServing(2, "v2")
	require.Len(t, st.Generations, 2)
	pid = generation(t, st, 1).PID
	s.kill(st.Generations[0].PID, syscall.SIGKILL)
	s.WaitFor(t, "the old one to be main again", func() bool { return s.MainPID(service) == pid })
	s.WaitFor(t, "the story", func() bool { return s.status().Last.Outcome == control.OutcomeFellBack })
	st = s.requireServing(1, "v1")
	assert.Equal(t, pid, mainOf(t, st).PID)
	assert.Equal(t, "SIGKILL", st.Last.Signal)
	assert.Equal(t, "1: b", held.say("b"), "nothing has happened to it")
	s.deploy("demo-v3")
	s.reload()
	s.requireServing(3, "v3")
	assert.Equal(t, "1: c", held.say("c"))

	require.NoError(t, held.c.Close())
	s.waitOnly(3)
	s.kill(s.MainPID(service), syscall.SIGKILL)
	s.WaitFor(t, "the restart", func() bool { return s.unit()["NRestarts"] == "1" && s.unit()["ActiveState"] == "active" })
	s.requireServing(1, "v3")
}

// TestNoConnectionIsClosedUnannounced has connections of each kind open at an
// upgrade: those of HTTP go on with the new generation as soon as they have no
// request, a stream is told, others live on, and only the deadline cuts, which is
// counted by kind.
func TestNoConnectionIsClosedUnannounced(t *testing.T) {
	s := newSite(t, options{unit: func(u *units.Service) { u.DrainTimeout = 4 * time.Second }})
	idle, fresh, slow := s.connect(), s.connect(), s.connect()
	idle.get("/")
	slow.send("/sleep?ms=1000")
	held := s.openEcho()
	require.Equal(t, "1: a", held.say("a"))
	events := s.openStream()
	s.WaitFor(t, "the request of the slow one", func() bool { return working(mainOf(t, s.status())) >= 2 })

	s.deploy("demo-v2")
	up := s.inBackground("hdctl", "upgrade", "--wait=drained", "demo")
	s.WaitFor(t, "the confirm", func() bool { return s.status().Main == 2 })

	assert.True(t, events.goodbye(), "a stream is told to go")
	a := slow.receive()
	assert.Equal(t, "1", a.header("X-Handoff-Generation"))
	assert.False(t, a.Close)
	s.WaitFor(t, "the connections to have moved", func() bool {
		return s.status().Last.Migrated == 4 // that of the stream as well
	})
	for name, c := range map[string]*client{"idle": idle, "fresh": fresh, "slow": slow} {
		a := c.get("/")
		assert.Equal(t, "2", a.header("X-Handoff-Generation"), name)
		assert.False(t, a.Close, name)
	}
	assert.Equal(t, "1: b", held.say("b"), "lives on")
	r := <-up
	assert.Equal(t, 8, r.ExitCode, "upgraded, but connections were cut: %s%s", r.Stdout, r.Stderr)
	assert.Contains(t, r.Stderr, "1 connection was cut")
	assert.Empty(t, held.say("c"), "cut at the deadline")
	e := s.waitRecord("MESSAGE_ID=" + drainedID)
	assert.Equal(t, "1", e.Fields["HANDOFF_CUT"], "%s", e.Message)
	assert.Equal(t, "4", e.Fields["HANDOFF_MIGRATED"], "%s", e.Message)
	last := s.status().Last
	assert.Equal(t, control.Counts{Total: 1, Stream: 1}, last.Cut)
}

// TestUpgradesDoNotWaitForDrains holds a connection in each of many generations:
// all drain at once, up to MaxDraining, when the oldest is hurried.
func TestUpgradesDoNotWaitForDrains(t *testing.T) {
	t.Parallel()
	const most = 3
	s := newSite(t, options{unit: func(u *units.Service) { u.MaxDraining = most }})
	var held []*hold
	for n := 1; n <= most; n++ {
		h := s.openEcho()
		require.Equal(t, fmt.Sprintf("%d: hi", n), h.say("hi"))
		held = append(held, h)
		s.reload()
	}
	s.requireServing(most+1, "v1")
	for n, h := range held {
		assert.Equal(t, fmt.Sprintf("%d: there", n+1), h.say("there"))
	}
	s.waitDraining(most)

	// One more: the oldest gets five seconds, its connection is cut and counted.
	held = append(held, s.openEcho())
	require.Equal(t, fmt.Sprintf("%d: hi", most+1), held[most].say("hi"))
	s.reload()
	s.requireServing(most+2, "v1")
	s.WaitFor(t, "a hurried drain", func() bool {
		st := s.status()
		oldest := st.Generations[len(st.Generations)-1]
		return oldest.Number == 1 && time.Until(oldest.Deadline) < 6*time.Second
	})
	st := s.waitDraining(most)
	assert.Equal(t, 2, st.Generations[len(st.Generations)-1].Number)
	assert.Empty(t, held[0].say("?"))
	for n, h := range held[1:] {
		assert.Equal(t, fmt.Sprintf("%d: still", n+2), h.say("still"))
	}
	e := s.waitRecord("HANDOFF_CUT=1")
	assert.Equal(t, "1", e.Fields["HANDOFF_GENERATION"])
}

// waitDraining waits until so many generations drain, each of them with one
// connection.
func (s *site) waitDraining(n int) control.Status {
	s.t.Helper()
	var st control.Status
	s.WaitFor(s.t, fmt.Sprintf("%d draining generations", n), func() bool {
		st = s.status()
		draining := 0
		for _, g := range st.Generations {
			if g.State == control.StateDraining && g.Conns.Stream == 1 {
				draining++
			}
		}
		return draining == n && len(st.Generations) == n+1
	})
	return st
}

// TestEverythingIsVisible reads the table that an operator reads: each generation
// until its process is gone, with what it holds; what is on disk; what failed; and
// something useful if main hangs.
func TestEverythingIsVisible(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{})
	held := s.openEcho()
	require.Equal(t, "1: a", held.say("a"))
	s.deploy("demo-v2")
	s.reload()
	s.waitDraining(1)
	idle := s.connect()
	idle.get("/")
	s.deployFaulty("exit1")
	require.Equal(t, 1, s.Systemctl("reload", service).ExitCode)

	r := s.hdctl("status", "demo")
	require.Equal(t, 0, r.ExitCode)
	t.Logf("\n%s", r.Stdout)
	for _, want := range []string{
		"serving generation 2 (v2), 1 draining", "http tcp [::]:8080", "echo tcp [::]:7777", "dgram udp [::]:7778",
		"via systemctl", "FAILED", "exit status 1", "on disk", "DEADLINE", "STREAM",
	} {
		assert.Contains(t, r.Stdout, want)
	}
	r = s.hdctl("status", "-o", "wide", "demo")
	assert.Contains(t, r.Stdout, "http tcp [::]:8080: 0 new, 0 active, 1 idle, 0 stream")
	st := s.status()
	old := generation(t, st, 1)
	assert.Equal(t, control.Counts{Total: 1, Stream: 1}, old.Conns)
	assert.NotZero(t, old.RSS)
	assert.WithinDuration(t, time.Now().Add(10*time.Minute), old.Deadline, time.Minute)
	assert.Equal(t, control.Counts{Total: 1, Idle: 1}, mainOf(t, st).Conns)
	assert.True(t, st.Disk.Failed)
	assert.Equal(t, control.DiskDiffers, st.Disk.State)

	// A drainer that stands still: how old is what is known of it?
	s.kill(old.PID, syscall.SIGSTOP)
	s.WaitFor(t, "a report that is old", func() bool { return generation(t, s.status(), 1).ReportAge > 2 })

	// A drainer that is killed leaves the list, with its reason.
	s.kill(old.PID, syscall.SIGKILL)
	s.WaitFor(t, "the end of generation 1", func() bool { return len(s.status().Generations) == 1 })
	e := s.waitRecord("HANDOFF_OUTCOME=died")
	assert.Contains(t, e.Message, "generation 1")
	assert.Equal(t, 3, e.Priority)

	// Main hangs.
	pid := s.MainPID(service)
	s.kill(pid, syscall.SIGSTOP)
	s.WaitFor(t, "the process to be stopped", func() bool { return s.processState(pid) == "T" })
	r = s.hdctl("status", "demo")
	s.kill(pid, syscall.SIGCONT)
	assert.Equal(t, 9, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	assert.Contains(t, r.Stdout+r.Stderr, "not answering")
	assert.Contains(t, r.Stdout, fmt.Sprint(pid))
	s.requireServing(2, "v2")
}

// TestNobodyElseCommandsIt tries the control socket as another user, with garbage,
// and in a crowd.
func TestNobodyElseCommandsIt(t *testing.T) {
	s := newSite(t, options{})
	const socket = "/run/handoff/demo/control.sock"
	mode := strings.Fields(s.MustRun(t, "stat", "-c", "%a %U", socket).Stdout)
	assert.Equal(t, []string{"660", "root"}, mode)

	as := func(user string, args ...string) (int, string) {
		r := s.Run(context.Background(), append([]string{"setpriv", "--reuid=" + user, "--regid=65533", "--clear-groups"}, args...)...)
		return r.ExitCode, r.Stdout + r.Stderr
	}
	code, out := as("daemon", "hdctl", "upgrade", "demo")
	assert.Equal(t, 5, code, out)
	// Even where the file lets somebody in, the peer's credentials decide.
	s.MustRun(t, "chmod", "666", socket)
	code, out = as("daemon", "hdctl", "upgrade", "demo")
	assert.Equal(t, 5, code, out)
	code, out = as("daemon", "hdctl", "status", "demo")
	assert.Equal(t, 0, code, out)
	code, out = as("nobody", "hdctl", "upgrade", "demo")
	assert.Equal(t, 5, code, out)

	path := "unix"
	var crowd []net.Conn
	for _, garbage := range []string{
		"", "\x00\xff\xfe", "GET", "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n{",
		"POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnull", "GET / HTTP/9.9\r\n\r\n", strings.Repeat("A", 1<<16),
	} {
		for range 14 {
			c, err := s.Dial(context.Background(), path, socket)
			require.NoError(t, err)
			crowd = append(crowd, c)
			if garbage == "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnull" {
				garbage = strings.Replace(garbage, "null", "[1,2", 1)
			}
			_, _ = c.Write([]byte(garbage))
		}
	}
	for _, c := range crowd {
		c.Close()
	}
	s.WaitFor(t, "an answer after the crowd", func() bool { return s.hdctl("status", "demo").ExitCode == 0 })
	st := s.requireServing(1, "v1")
	assert.Nil(t, st.Last, "no upgrade was started")
}

// TestOperatorGroupCommands gives a group the right to command: its members may,
// others may not, and a group that the service cannot use is a warning in status.
func TestOperatorGroupCommands(t *testing.T) {
	s := newSite(t, options{unit: func(u *units.Service) { u.DynamicUser, u.OperatorGroup = true, "adm" }})
	as := func(groups ...string) (int, string) {
		r := s.Run(context.Background(), append(append([]string{"setpriv", "--reuid=daemon", "--regid=daemon"}, groups...), "hdctl", "upgrade", "demo")...)
		return r.ExitCode, r.Stdout + r.Stderr
	}
	code, out := as("--clear-groups")
	assert.Equal(t, 5, code, out)
	code, out = as("--groups=adm")
	assert.Equal(t, 0, code, out)
	st := s.requireServing(2, "v1")
	assert.Equal(t, 1, st.Last.Trigger.UID, "daemon")
	assert.Empty(t, st.Warnings)

	s = newSite(t, options{
		unit:   func(u *units.Service) { u.DynamicUser = true },
		dropIn: "Environment=HANDOFF_OPERATOR_GROUP=adm\n", // and no SupplementaryGroups=
	})
	st = s.requireServing(1, "v1")
	require.Len(t, st.Warnings, 1)
	assert.Contains(t, st.Warnings[0], "SupplementaryGroups=")
}
