package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/upgrade/control"
)

// restartWith restarts the service with other environment variables.
func (s *site) restartWith(variables ...string) {
	s.t.Helper()
	lines := "[Service]\n"
	for _, v := range variables {
		lines += "Environment=\"" + strings.ReplaceAll(v, "%", "%%") + "\"\n" // no specifiers: systemd.unit(5)
	}
	require.NoError(s.t, s.Install(service+".d/variables.conf", lines))
	s.MustSystemctl(s.t, "restart", service)
}

// digest returns the SHA-256 of a file inside.
func (s *site) digest(path string) string {
	s.t.Helper()
	return strings.Fields(s.MustRun(s.t, "sha256sum", path).Stdout)[0]
}

// overwrite writes a program into a file that is there, as cp(1) does, which nobody
// may be running.
func (s *site) overwrite(path, name string) {
	s.t.Helper()
	const draft = "/tmp/draft"
	require.NoError(s.t, s.CopyFile(binaries.path(s.t, name), draft))
	s.MustRun(s.t, "cp", "--no-target-directory", draft, path)
}

// upgradeTo upgrades to what is on disk, which must be the given version, and returns
// when nothing else is left.
func (s *site) upgradeTo(generation int, version string) {
	s.t.Helper()
	s.mustHdctl("upgrade", "--wait", "drained", "demo")
	s.requireServing(generation, version)
}

// TestRollbackRunsThePreviousVersion runs the previous version again, whatever has
// become of its file.
func TestRollbackRunsThePreviousVersion(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{probation: 50 * time.Millisecond})
	step := func(name string, do func(t *testing.T)) {
		require.True(t, t.Run(name, func(t *testing.T) {
			s.t = t
			do(t)
		}))
		s.t = t
	}

	step("there is none", func(t *testing.T) {
		assertRefused(t, s.hdctl("rollback", "demo"), "there is nothing to roll back to", "hdctl upgrade demo")
		assert.Nil(t, s.status().Previous)
		s.requireServing(1, "v1")
	})

	first := s.digest(program)
	step("its file was removed", func(t *testing.T) {
		s.deploy("demo-v2")
		s.upgradeTo(2, "v2")
		s.MustRun(t, "rm", program)
		assert.Equal(t, &control.Program{Generation: 1, Version: "v1", Path: program, Digest: first}, s.status().Previous)

		r := s.hdctl("rollback", "demo", "--reason", "slow", "--wait", "drained")
		require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
		assert.Contains(t, r.Stdout, "rolled back 2 (v2) -> 3 (v1)")
		assert.Contains(t, r.Stdout, program+" is MISSING")
		assert.Contains(t, r.Stderr, "install -T /proc/")
		st := s.requireServing(3, "v1")
		assert.Equal(t, control.DiskMissing, st.Disk.State)
		assert.True(t, st.Last.Rollback)
		assert.Equal(t, first, st.Last.ToDigest)
		assert.Equal(t, "v2", st.Previous.Version)
		require.NotEqual(t, 0, s.hdctl("upgrade", "demo").ExitCode, "there is nothing to upgrade to")
		s.requireServing(3, "v1")
	})

	step("a rollback is rolled back", func(t *testing.T) {
		out := s.mustHdctl("rollback", "demo", "--wait", "drained")
		assert.Contains(t, out, "rolled back 3 (v1) -> ")
		st := s.status()
		s.requireServing(st.Main, "v2")
		assert.Equal(t, "v1", st.Previous.Version)
	})

	step("another file is in its place", func(t *testing.T) {
		s.deploy("demo-v2")
		s.overwrite(program, "demo-v3") // nobody runs it
		r := s.hdctl("rollback", "demo", "--wait", "drained")
		require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
		st := s.status()
		s.requireServing(st.Main, "v1")
		assert.Equal(t, control.DiskDiffers, st.Disk.State)
		// It is an exception for one time: who comes next is what is on disk.
		s.upgradeTo(st.Main+1, "v3")
	})

	step("it is put back", func(t *testing.T) {
		s.MustRun(t, "chown", "1:1", program)
		s.MustRun(t, "chmod", "0750", program)
		r := s.hdctl("rollback", "demo", "--install", "--wait", "drained")
		require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
		st := s.status()
		s.requireServing(st.Main, "v1")
		assert.Equal(t, control.DiskSame, st.Disk.State)
		assert.Equal(t, first, s.digest(program))
		assert.Equal(t, "1:1 750\n", s.MustRun(t, "stat", "--format=%u:%g %a", program).Stdout)

		s.MustSystemctl(t, "restart", service)
		s.requireServing(1, "v1")
		assertRefused(t, s.hdctl("rollback", "demo"), "there is nothing to roll back to", "hdctl upgrade demo")
	})

	step("a symbolic link is put back", func(t *testing.T) {
		s.MustRun(t, "mkdir", "/opt/demo")
		for _, v := range []string{"v1", "v2"} {
			require.NoError(t, s.CopyFile(binaries.path(t, "demo-"+v), "/opt/demo/"+v))
		}
		s.MustRun(t, "ln", "--symbolic", "--force", "/opt/demo/v1", program)
		s.upgradeTo(2, "v1")
		s.MustRun(t, "ln", "--symbolic", "--force", "/opt/demo/v2", program)
		s.upgradeTo(3, "v2")
		r := s.hdctl("rollback", "demo", "--install", "--wait", "drained")
		require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
		s.requireServing(4, "v1")
		assert.Equal(t, "/opt/demo/v1\n", s.MustRun(t, "readlink", program).Stdout)
		assert.Equal(t, control.DiskSame, s.status().Disk.State)
	})

	step("its file has become another one", func(t *testing.T) {
		before := s.status().Previous
		s.WaitFor(t, "a copy", func() bool {
			return strings.Contains(s.MustRun(t, "ls", "-l", fmt.Sprintf("/proc/%d/fd", s.MainPID(service))).Stdout, "/memfd:previous")
		})
		s.overwrite(before.Path, "demo-v3") // nobody runs it
		require.NotEqual(t, before.Digest, s.digest(before.Path))
		s.mustHdctl("rollback", "demo", "--wait", "drained")
		assert.Equal(t, before.Digest, s.requireServing(5, "v2").Last.ToDigest)
		assert.Equal(t, before.Path, s.status().Last.Binary)
		s.upgradeTo(6, "v1") // what is on disk, also after that
	})
}

// TestRollbackInProbation takes back an upgrade that has begun to serve: the
// generation that stands by goes on, and nobody notices.
func TestRollbackInProbation(t *testing.T) {
	s := newSite(t, options{probation: time.Minute})
	pid := s.MainPID(service)
	l := s.startLoad(load.MixWithPool())
	s.deploy("demo-v2")
	upgrade := s.inBackground("hdctl", "upgrade", "demo")
	s.waitPhase(control.PhaseProbation)
	answered := l.Report().Answered(2)
	s.WaitFor(t, "answers of the new one", func() bool { return l.Report().Answered(2) > answered+20 })

	r := s.hdctl("rollback", "demo", "--reason", "slow")
	require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	assert.Contains(t, r.Stdout, "rolled back 1 -> 2 (v2): generation 1 (v1) serves all")
	u := <-upgrade
	assert.Equal(t, 1, u.ExitCode)
	assert.Contains(t, u.Stderr, "slow")
	st := s.requireServing(1, "v1")
	assert.Equal(t, pid, mainOf(t, st).PID)
	assert.Equal(t, control.OutcomeRolledBack, st.Last.Outcome)
	answered = l.Report().Answered(1)
	s.WaitFor(t, "answers of the old one", func() bool { return l.Report().Answered(1) > answered+100 })
	requireNoFailure(t, l)
	s.waitOnly(1)
	assertRefused(t, s.hdctl("rollback", "demo"), "there is nothing to roll back to", "hdctl upgrade demo")
}
