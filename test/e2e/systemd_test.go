package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// TestSystemdsViewIsRight compares systemd's view with the service's own at each
// step: main PID, state, status text, and no restart that nobody asked for.
func TestSystemdsViewIsRight(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{probation: 2 * time.Second})
	check := func(number, serves int, text string) {
		t.Helper()
		unit, st := s.unit(), s.status()
		assert.Equal(t, "active", unit["ActiveState"])
		assert.Equal(t, fmt.Sprint(generation(t, st, number).PID), unit["MainPID"])
		assert.Contains(t, unit["StatusText"], text)
		assert.Equal(t, "0", unit["NRestarts"])
		assert.Equal(t, fmt.Sprint(serves), s.get("/").header("X-Handoff-Generation"))
	}
	check(1, 1, "generation 1 (v1) serving")
	s.deploy("demo-v2")
	up := s.inBackground("hdctl", "upgrade", "demo")
	s.waitPhase(control.PhaseProbation)
	check(1, 2, "generation 1 (v1) serving") // until the confirm the old one is main
	require.NoError(t, (<-up).Err())
	check(2, 2, "generation 2 (v2) serving")
	s.deployFaulty("exit1")
	require.Equal(t, 1, s.Systemctl("reload", service).ExitCode)
	check(2, 2, "exit status 1")
	assert.Equal(t, "running", s.unit()["SubState"], "not reloading")

	// Once the old one is gone, the new one is systemd's own child: it is noticed
	// when it dies.
	s.WaitFor(t, "the end of generation 1", func() bool { return len(s.status().Generations) == 1 })
	s.deploy("demo-v3")
	s.kill(s.MainPID(service), syscall.SIGKILL)
	s.WaitFor(t, "the restart", func() bool { return s.unit()["NRestarts"] == "1" && s.unit()["ActiveState"] == "active" })
}

// TestWatchdogSurvivesUpgradesAndCatchesAHang runs with WatchdogSec=2: ten
// upgrades are no reason to bark, a main process that is stopped is one.
func TestWatchdogSurvivesUpgradesAndCatchesAHang(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{unit: func(u *units.Service) { u.Watchdog = 2 * time.Second }})
	held := s.openEcho()
	require.Equal(t, "1: a", held.say("a"))
	for n := 2; n <= 11; n++ {
		s.reload()
		s.requireServing(n, "v1")
	}
	// Longer than the watchdog, by systemd's own clock: the pings go on.
	seen := s.watchdogTime()
	s.WaitFor(t, "four more seconds of pings", func() bool { return s.watchdogTime() > seen+4*time.Second })
	s.requireServing(11, "v1")
	assert.Equal(t, "1: b", held.say("b"))
	assert.Equal(t, "0", s.unit()["NRestarts"])

	s.kill(s.MainPID(service), syscall.SIGSTOP)
	s.WaitFor(t, "the watchdog", func() bool { return s.unit()["NRestarts"] == "1" && s.unit()["ActiveState"] == "active" })
	s.requireServing(1, "v1")
}

// watchdogTime is when systemd last heard a ping, on the monotonic clock.
func (s *site) watchdogTime() time.Duration {
	var usec int64
	_, _ = fmt.Sscan(s.Show(service, "WatchdogTimestampMonotonic")["WatchdogTimestampMonotonic"], &usec)
	return time.Duration(usec) * time.Microsecond
}

// TestDaemonReloadAndReexecChangeNothing has systemd read its units again, and
// execute itself again, in the middle of an upgrade and of a drain.
func TestDaemonReloadAndReexecChangeNothing(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"daemon-reload", "daemon-reexec"} {
		t.Run(verb, func(t *testing.T) {
			s := newSite(t, options{probation: 2 * time.Second})
			held := s.openEcho()
			require.Equal(t, "1: a", held.say("a"))
			l := s.startLoad(mixedLoad())

			s.deploy("demo-v2")
			up := s.inBackground("hdctl", "upgrade", "demo")
			s.waitPhase(control.PhaseProbation)
			s.MustSystemctl(t, verb)
			require.NoError(t, (<-up).Err())
			s.requireServing(2, "v2")

			s.waitDrainingEcho(1)
			s.MustSystemctl(t, verb)
			s.requireServing(2, "v2")
			assert.Equal(t, "1: b", held.say("b"))
			s.deploy("demo-v3")
			s.reload()
			s.requireServing(3, "v3")
			assert.Equal(t, "1: c", held.say("c"))
			requireNoFailure(t, l)
		})
	}
}

// waitDrainingEcho waits until a generation drains with an echo connection.
func (s *site) waitDrainingEcho(number int) {
	s.t.Helper()
	s.WaitFor(s.t, "a held connection", func() bool {
		g := generation(s.t, s.status(), number)
		return g.State == control.StateDraining && g.Conns.Stream >= 1
	})
}

// TestStartWithoutSocketsFailsLoudly starts the service as systemd allows it when
// nothing requires the sockets: it does not bind by itself, and says what is wrong.
func TestStartWithoutSocketsFailsLoudly(t *testing.T) {
	s := newSite(t, options{stopped: true})
	require.NoError(t, s.Install("bare.service", "[Service]\nType=notify\nExecStart="+program+"\n"))
	r := s.Systemctl("start", "bare.service")
	assert.Equal(t, 1, r.ExitCode)
	s.waitRecord("_SYSTEMD_UNIT=bare.service")
	text := s.journalText()
	assert.Contains(t, text, `"http"`)
	assert.Contains(t, text, ".socket")
}

// TestUnclaimedSocketIsReported passes a socket that the service does not know:
// it is kept for a version that does, and status says so.
func TestUnclaimedSocketIsReported(t *testing.T) {
	s := newSite(t, options{unit: func(u *units.Service) { u.Sockets = append(u.Sockets, socket(t, "admin", "9999")) }})
	s.reload()
	st := s.status()
	require.Len(t, st.Sockets, 4)
	for _, sock := range st.Sockets {
		assert.Equal(t, sock.Name != "admin", sock.Claimed, "%+v", sock)
	}
	r := s.hdctl("status", "demo")
	assert.Contains(t, r.Stdout+r.Stderr, "admin")
}

// TestSandbox runs the service as a hardened unit would, DynamicUser included: an
// upgrade by reload, and by hdctl as root.
func TestSandbox(t *testing.T) {
	s := newSite(t, options{
		unit: func(u *units.Service) { u.DynamicUser = true },
		dropIn: "ProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\nNoNewPrivileges=yes\nPrivateDevices=yes\n" +
			"RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\nSystemCallFilter=@system-service\nCapabilityBoundingSet=\n" +
			"ProtectProc=invisible\nProcSubset=pid\nMemoryDenyWriteExecute=yes\nLockPersonality=yes\nRestrictNamespaces=yes\n",
	})
	s.deploy("demo-v2")
	s.reload()
	s.requireServing(2, "v2")
	s.deploy("demo-v3")
	r := s.hdctl("upgrade", "demo")
	require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	s.requireServing(3, "v3")
}
