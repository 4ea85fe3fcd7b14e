package upgrade_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

// hold opens a connection with a request that lasts, so that the generation that has
// it drains. The result ends it.
func (p *process) hold() (release func()) {
	p.t.Helper()
	c, err := net.Dial("tcp", p.address)
	require.NoError(p.t, err)
	_, err = io.WriteString(c, "GET /sleep?d=1h HTTP/1.1\r\nHost: test\r\n\r\n")
	require.NoError(p.t, err)
	require.Eventually(p.t, func() bool {
		st, err := p.client.Status(p.t.Context())
		return err == nil && st.Generations[len(st.Generations)-1].Conns.Active > 0
	}, time.Minute, time.Millisecond, "the request")
	release = func() { _ = c.Close() }
	p.t.Cleanup(release)
	return release
}

// status is that of the service, as main sees it.
func (p *process) status() *control.Status {
	p.t.Helper()
	st, err := p.client.Status(p.t.Context())
	require.NoError(p.t, err)
	return st
}

// waitStatus waits until the status is as it should.
func (p *process) waitStatus(what string, ok func(*control.Status) bool) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		st, err := p.client.Status(p.t.Context())
		return err == nil && ok(st)
	}, 10*time.Second, time.Millisecond, what)
}

// TestOneSuccessorWhenMainDiesInProbation kills the main generation while its
// successor is on probation and its predecessor still drains. Each of the two could
// take its place; exactly one does.
func TestOneSuccessorWhenMainDiesInProbation(t *testing.T) {
	p := start(t)
	p.hold() // by the first generation
	second, err := p.upgrade()
	require.NoError(t, err)
	// The probation that counts is that of the one that starts an upgrade: stop the
	// third generation short of its confirm by holding it on stage, and promote it.
	staged, err := p.client.Upgrade(t.Context(), control.UpgradeRequest{Stage: 50}, nil)
	require.NoError(t, err)
	require.Equal(t, control.OutcomeStaged, staged.Outcome)

	require.NoError(t, syscall.Kill(second.ToPID, syscall.SIGKILL))
	select {
	case err := <-p.exited: // it cannot take back, and is nobody's drainer
		assert.Error(t, err)
		p.exited <- err
	case <-time.After(time.Minute):
		t.Fatal("the first generation lives on")
	}
	st := p.waitMain(3)
	assert.Equal(t, staged.ToPID, st.Generations[0].PID)
	assert.Equal(t, 3, p.get().Generation)
}

// TestRollbackOfAChangedFile overwrites the file of the previous version, which no
// process runs any more: it is run as it was.
func TestRollbackOfAChangedFile(t *testing.T) {
	p := start(t, "HANDOFF_ALLOW_BINARY=on")
	self, err := os.Executable()
	require.NoError(t, err)
	other := filepath.Join(filepath.Dir(p.program), "other")
	require.NoError(t, exec.Command("cp", self, other).Run())

	r, err := p.client.Upgrade(t.Context(), control.UpgradeRequest{Binary: other}, nil)
	require.NoError(t, err)
	require.Equal(t, other, r.Binary)
	p.waitMain(2)
	_, err = p.upgrade()
	require.NoError(t, err)
	st := p.waitMain(3)
	require.NotNil(t, st.Previous)
	require.Equal(t, other, st.Previous.Path)
	require.NotEmpty(t, st.Previous.Digest)
	require.Eventually(t, func() bool { return hasCopy(st.Generations[0].PID) }, time.Minute, time.Millisecond, "a copy")

	require.NoError(t, exec.Command("cp", "/bin/true", other).Run(), "nobody runs it any more")
	r, err = p.client.Rollback(t.Context(), control.RollbackRequest{}, nil)
	require.NoError(t, err)
	assert.Equal(t, control.OutcomeConfirmed, r.Outcome)
	assert.Equal(t, st.Previous.Digest, r.ToDigest)
	assert.Equal(t, 4, p.get().Generation)
}

// hasCopy tells whether a process has a copy of a program in memory, which is sealed
// when it is complete.
func hasCopy(pid int) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if target, _ := os.Readlink(fd); !strings.Contains(target, "memfd:previous") {
			continue
		}
		if f, err := os.Open(fd); err == nil {
			defer f.Close()
			if seals, _ := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); seals&unix.F_SEAL_WRITE != 0 {
				return true
			}
		}
	}
	return false
}

// slowCheck makes the preflight of upgrades wait until release is called.
func slowCheck(t *testing.T) (env string, release func()) {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	return "HANDOFF_CHECK=/bin/cat " + fifo, func() {
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
}

// TestQueueDoesNotWaitForADecision has a request wait for an upgrade in progress that
// turns out to be one on which somebody has to decide.
func TestQueueDoesNotWaitForADecision(t *testing.T) {
	env, release := slowCheck(t)
	p := start(t, env)
	staged, queued := make(chan *control.Result, 1), make(chan *control.Result, 1)
	go func() {
		r, _ := p.client.Upgrade(t.Context(), control.UpgradeRequest{Stage: 50}, nil)
		staged <- r
	}()
	p.waitStatus("preflight", func(st *control.Status) bool { return st.Upgrade != nil })
	go func() {
		r, _ := p.client.Upgrade(t.Context(), control.UpgradeRequest{Queue: true}, nil)
		queued <- r
	}()
	p.waitStatus("queued", func(st *control.Status) bool { return st.Upgrade != nil && st.Upgrade.Queued == 1 })
	release()
	r := <-staged
	require.NotNil(t, r)
	require.Equal(t, control.OutcomeStaged, r.Outcome)
	r = <-queued
	require.NotNil(t, r)
	assert.Equal(t, control.OutcomeRefused, r.Outcome)
	assert.Equal(t, control.CodeInProgress, r.Error.Code)
}

// TestStageOfAnOperatorHasATimeLimit: also if an automatic upgrade has begun it.
func TestStageOfAnOperatorHasATimeLimit(t *testing.T) {
	p := start(t)
	done := make(chan *control.Result, 1)
	go func() {
		r, _ := p.client.Upgrade(t.Context(), control.UpgradeRequest{
			Auto: &control.Auto{Steps: []control.Step{{Share: 5, Time: 3600}}},
		}, nil)
		done <- r
	}()
	p.waitStatus("on stage", func(st *control.Status) bool { return st.Upgrade != nil && st.Upgrade.Stage != nil })
	assert.Zero(t, p.status().Upgrade.Stage.Deadline, "it ends by itself")
	r, err := p.client.Promote(t.Context(), control.PromoteRequest{Share: 50}, nil)
	require.NoError(t, err)
	require.Equal(t, control.OutcomeStaged, r.Outcome)
	r = <-done
	require.NotNil(t, r)
	assert.Equal(t, control.OutcomeStaged, r.Outcome, "who has asked is not kept waiting")
	st := p.status()
	require.NotNil(t, st.Upgrade)
	require.NotNil(t, st.Upgrade.Stage)
	assert.Equal(t, 50.0, st.Upgrade.Stage.Share)
	assert.NotZero(t, st.Upgrade.Stage.Deadline)
}

// TestUpgradeAfterARollbackThatHangs stops a generation that was rolled back, in its
// drain. There can be one child only, so the next upgrade must not wait for it.
func TestUpgradeAfterARollbackThatHangs(t *testing.T) {
	p := start(t, "HANDOFF_READY_TIMEOUT=4s")
	staged, err := p.client.Upgrade(t.Context(), control.UpgradeRequest{Stage: 100}, nil)
	require.NoError(t, err)
	c, err := net.Dial("tcp", p.address) // all go to the new one
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET /sleep?d=1h HTTP/1.1\r\nHost: test\r\n\r\n")
	require.NoError(t, err)
	p.waitStatus("it has that one", func(st *control.Status) bool {
		g := st.Generations[0]
		return g.State == control.StateStaged && g.Conns.Total == 1
	})
	r, err := p.client.Rollback(t.Context(), control.RollbackRequest{}, nil)
	require.NotNil(t, r, "%v", err)
	require.Equal(t, control.OutcomeRolledBack, r.Outcome)
	p.waitStatus("it drains", func(st *control.Status) bool {
		return len(st.Generations) == 2 && st.Generations[0].State == control.StateDraining && st.Generations[0].Conns.Total == 1
	})
	require.NoError(t, syscall.Kill(staged.ToPID, syscall.SIGSTOP))
	r, err = p.upgrade()
	require.NoError(t, err)
	assert.Equal(t, 3, r.To)
}

// TestPauseSurvivesTheDeathOfMain kills a generation after an operator has paused, and
// after one has resumed: who takes over knows.
func TestPauseSurvivesTheDeathOfMain(t *testing.T) {
	p := start(t, "HANDOFF_STATE_DIR="+t.TempDir())
	p.hold()
	second, err := p.upgrade()
	require.NoError(t, err)
	_, err = p.client.Pause(t.Context(), control.PauseRequest{Reason: "a freeze"})
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(second.ToPID, syscall.SIGKILL))
	p.waitStatus("paused", func(st *control.Status) bool { return st.Main == 1 && st.Paused != nil })

	r, _ := p.upgrade()
	require.NotNil(t, r)
	assert.Equal(t, control.CodePaused, r.Error.Code)
	_, err = p.client.Pause(t.Context(), control.PauseRequest{Undo: true})
	require.NoError(t, err)

	staged, err := p.client.Upgrade(t.Context(), control.UpgradeRequest{Stage: 100}, nil)
	require.NoError(t, err)
	_, err = p.client.Pause(t.Context(), control.PauseRequest{Reason: "another one"})
	require.NoError(t, err)
	require.NoError(t, p.cmd.Process.Kill())
	p.waitStatus("paused", func(st *control.Status) bool { return st.Main == staged.To && st.Paused != nil })
}

// TestRollbacksLeakNothing counts the descriptors and goroutines of a generation after
// staged upgrades that were rolled back, with connections that were passed on.
func TestRollbacksLeakNothing(t *testing.T) {
	p := start(t)
	round := func(n int) (fds, goroutines int) {
		for range n {
			_, err := p.client.Upgrade(t.Context(), control.UpgradeRequest{Stage: 50}, nil)
			require.NoError(t, err)
			require.NotEqual(t, p.get().Generation, p.get().Generation, "half each")
			r, err := p.client.Rollback(t.Context(), control.RollbackRequest{}, nil)
			require.NotNil(t, r, "%v", err)
			require.Equal(t, control.OutcomeRolledBack, r.Outcome)
			p.waitMain(1)
		}
		return len(p.get().FDs), p.waitMain(1).Generations[0].Goroutines
	}
	fds, goroutines := round(3)
	_, moreGoroutines := round(10)
	require.Eventually(t, func() bool { return len(p.get().FDs) <= fds }, time.Minute, 10*time.Millisecond,
		"more than %d descriptors", fds) // one that is being closed is none
	assert.LessOrEqual(t, moreGoroutines, goroutines+3)
}

// TestTakeBacksLeakNothing does the same for a generation that takes over again, after
// its successors have died, and serves as before.
func TestTakeBacksLeakNothing(t *testing.T) {
	p := start(t)
	p.hold()
	round := func(n int) (fds, goroutines int) {
		for range n {
			r, err := p.upgrade()
			require.NoError(t, err)
			require.NoError(t, syscall.Kill(r.ToPID, syscall.SIGKILL))
			st := p.waitMain(1)
			require.Zero(t, st.Generations[0].Deadline)
			require.Empty(t, st.Generations[0].Note)
			require.Eventually(t, func() bool {
				last := p.status().Last
				return last.To == r.To && last.Outcome == control.OutcomeFellBack
			}, time.Minute, time.Millisecond)
		}
		return len(p.get().FDs), p.waitMain(1).Generations[0].Goroutines
	}
	fds, goroutines := round(2)
	_, moreGoroutines := round(6)
	require.Eventually(t, func() bool { return len(p.get().FDs) <= fds }, time.Minute, 10*time.Millisecond,
		"more than %d descriptors", fds) // one that is being closed is none
	assert.LessOrEqual(t, moreGoroutines, goroutines+3)
}
