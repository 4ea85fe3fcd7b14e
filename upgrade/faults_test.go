package upgrade_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

// TestUpgradeWithoutFreeDescriptors takes all descriptors of the service away by
// idle connections: the upgrade fails, nothing else does, and when there are some
// again the next one succeeds.
func TestUpgradeWithoutFreeDescriptors(t *testing.T) {
	p := start(t)
	require.NoError(t, unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}, nil))

	first, err := net.Dial("tcp", p.address)
	require.NoError(t, err)
	defer first.Close()
	ask := func() {
		t.Helper()
		_, err := first.Write([]byte("GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n"))
		require.NoError(t, err)
		r, err := http.ReadResponse(bufio.NewReader(first), nil)
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, r.StatusCode)
		r.Body.Close()
	}
	ask()
	events := make(chan control.Event, 100)
	follow, stop := context.WithCancel(t.Context())
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		_ = p.client.Events(follow, true, func(e control.Event) error { events <- e; return nil })
	}()
	defer func() { stop(); <-followed }()
	<-events // the subscription is there: it needs a descriptor as well

	var hogs []net.Conn
	for range 80 { // more than fit; those over the limit wait in the backlog
		c, err := net.Dial("tcp", p.address)
		require.NoError(t, err)
		defer c.Close()
		hogs = append(hogs, c)
	}
	// Or they would run out in the middle of the upgrade, where nobody knows what for.
	require.Eventually(t, func() bool {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
		return err == nil && len(fds) >= 64
	}, time.Minute, time.Millisecond)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	var failed control.Event
	for failed.Phase != control.PhaseFailed {
		failed = <-events
		require.NotEqual(t, control.PhaseConfirmed, failed.Phase)
	}
	assert.Contains(t, failed.Message, "too many open files")
	ask()

	for _, c := range hogs {
		c.Close()
	}
	stop()
	<-followed
	p.waitMain(1)
	// Those that waited in the backlog have to be accepted before they are gone.
	require.Eventually(t, func() bool {
		r, err := p.upgrade()
		return err == nil && assert.Equal(t, 1, r.From)
	}, time.Minute, time.Millisecond, "the next upgrade succeeds when there are descriptors again")
}

// TestMainIsStoppedInTheMiddle has main stand still, by SIGSTOP, while its
// successor is ready: the successor waits for its word, and serves when it comes.
func TestMainIsStoppedInTheMiddle(t *testing.T) {
	p := start(t)
	result := make(chan *control.Result, 1)
	stopped := make(chan struct{})
	go func() {
		r, _ := p.client.Upgrade(t.Context(), control.UpgradeRequest{}, func(e control.Event) {
			if e.Phase == control.PhaseReady {
				_ = p.cmd.Process.Signal(syscall.SIGSTOP)
				close(stopped)
			}
		})
		result <- r
	}()
	<-stopped
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	r := <-result
	require.NotNil(t, r)
	assert.Equal(t, control.OutcomeConfirmed, r.Outcome)
	p.waitMain(2)
}

// TestNewGenerationIsStopped has the new generation stand still before it is
// ready: its time runs out, and SIGKILL works on it all the same.
func TestNewGenerationIsStopped(t *testing.T) {
	p := start(t, "HANDOFF_READY_TIMEOUT=1s")
	serving := 1
	var r *control.Result
	for { // until the signal is faster than the new generation
		var err error
		r, err = p.client.Upgrade(t.Context(), control.UpgradeRequest{}, func(e control.Event) {
			if e.Phase == control.PhaseStart && e.PID != 0 {
				_ = syscall.Kill(e.PID, syscall.SIGSTOP)
			}
		})
		if err != nil {
			break
		}
		serving = r.To
		_ = syscall.Kill(r.ToPID, syscall.SIGCONT)
		p.waitMain(serving)
	}
	assert.Equal(t, control.OutcomeTimedOut, r.Outcome)
	assert.ErrorIs(t, syscall.Kill(r.ToPID, 0), syscall.ESRCH, "it is gone and reaped")
	p.waitMain(serving)
	_, err := p.upgrade()
	require.NoError(t, err)
}

// TestStopDuringAnUpgradeIsAnswered stops the service while a new generation
// starts: who asked for the upgrade is told so, by a main that ends at once.
func TestStopDuringAnUpgradeIsAnswered(t *testing.T) {
	p := start(t)
	require.NoError(t, os.Remove(p.program))
	require.NoError(t, os.WriteFile(p.program, []byte("#!/bin/sh\nexec sleep 600\n"), 0o755))
	r, err := p.client.Upgrade(t.Context(), control.UpgradeRequest{}, func(e control.Event) {
		if e.Phase == control.PhaseStart && e.PID != 0 {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		}
	})
	require.Error(t, err)
	assert.Equal(t, control.OutcomeStopped, r.Outcome)
	assert.Equal(t, 2, r.To)
	require.Eventually(t, func() bool { return syscall.Kill(r.ToPID, 0) != nil }, time.Minute, time.Millisecond, "it goes, too")
}

// TestServerThatEndsByItself closes the HTTP server from inside: a generation that
// nobody accepts in must not seem to serve, so the process ends with an error.
func TestServerThatEndsByItself(t *testing.T) {
	p := start(t)
	if r, err := http.Get("http://" + p.address + "/close"); err == nil {
		r.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	err := <-p.exited
	p.exited <- err // for the cleanup
	require.Error(t, err)
}

// TestTwoGenerationsAnswerTogether asks both at once while one drains: a request
// that runs is finished by the old one, and the new one answers the next.
func TestTwoGenerationsAnswerTogether(t *testing.T) {
	p := start(t)
	c, err := net.Dial("tcp", p.address)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("GET /sleep?d=300ms HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		st, err := p.client.Status(t.Context())
		return err == nil && st.Generations[0].Conns.Active == 1
	}, time.Minute, time.Millisecond)
	_, err = p.upgrade()
	require.NoError(t, err)
	assert.Equal(t, 2, p.get().Generation)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	assert.Equal(t, "1\n", string(body))
	require.NoError(t, c.Close()) // idle again, and not told to go
	p.waitMain(2)
}

// BenchmarkUpgrade reports what an upgrade consists of. The old generation
// accepts all the time: none of it is a gap.
func BenchmarkUpgrade(b *testing.B) {
	p := start(b, "HANDOFF_PROBATION=-1s", "UPGRADE_TEST_QUIET=1")
	parts := make(map[string]time.Duration)
	n := 0
	for b.Loop() {
		last, phase := time.Time{}, ""
		r, err := p.client.Upgrade(b.Context(), control.UpgradeRequest{}, func(e control.Event) {
			if phase != "" {
				parts[phase] += e.Time.Sub(last)
			}
			last, phase = e.Time, e.Phase
			if e.Phase == control.PhaseStart && e.PID != 0 {
				phase = "hello"
			}
		})
		if err != nil {
			b.Fatal(err)
		}
		parts["serving"] += time.Duration(r.Serving * float64(time.Second))
		n++
	}
	for name, d := range parts {
		b.ReportMetric(float64(d.Microseconds())/float64(n)/1000, name+"-ms/op")
	}
}
