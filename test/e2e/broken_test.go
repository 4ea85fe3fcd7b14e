package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// TestOldKeepsServingUntilNewIsReady installs each kind of bad version and reloads, under load:
// the reload fails and says why, nothing has changed, and the next good version
// takes over at once.
func TestOldKeepsServingUntilNewIsReady(t *testing.T) {
	t.Parallel()
	write := func(content []byte, mode os.FileMode) func(*site) {
		return func(s *site) { require.NoError(s.t, s.WriteFile(program, content, mode)) }
	}
	faulty := func(mode string) func(*site) { return func(s *site) { s.deployFaulty(mode) } }
	foreign := func(s *site) { // an executable for another architecture, by its header
		elf, err := os.ReadFile(binaries.path(s.t, "demo-v2"))
		require.NoError(s.t, err)
		elf[0x12], elf[0x13] = 0xf3, 0 // e_machine: RISC-V
		require.NoError(s.t, s.WriteFile(program, elf, 0o755))
	}
	cut := func(s *site) { // half a file, as of a copy that still goes on
		elf, err := os.ReadFile(binaries.path(s.t, "demo-v2"))
		require.NoError(s.t, err)
		require.NoError(s.t, s.WriteFile(program, elf[:len(elf)/2], 0o755))
	}
	kill := func(phase string) func(*site) {
		return func(s *site) { s.kill(s.waitPhase(phase).Upgrade.PID, syscall.SIGKILL) }
	}

	tests := []struct {
		name    string
		deploy  func(*site)
		during  func(*site) // while it is tried
		message string      // in the error
		output  string      // of the new process, in the answer
		exit    int         // of hdctl
		outcome string
	}{
		{"missing", func(s *site) { s.MustRun(t, "rm", program) }, nil, "does not exist", "", 1, control.OutcomeFailed},
		{"not executable", func(s *site) { s.MustRun(t, "chmod", "644", program) }, nil, "may not be executed", "", 1, control.OutcomeFailed},
		{"a directory", func(s *site) { s.MustRun(t, "sh", "-c", "rm "+program+" && mkdir "+program) }, nil, "is no regular file", "", 1, control.OutcomeFailed},
		{"another architecture", foreign, nil, "another architecture", "", 1, control.OutcomeFailed},
		{"cut short", cut, nil, "is cut short", "", 1, control.OutcomeFailed},
		{"empty", write(nil, 0o755), nil, "is empty", "", 1, control.OutcomeFailed},
		{"random bytes", write([]byte("\x8d\x01 this is no program \x00"), 0o755), nil, "exec format error", "", 1, control.OutcomeFailed},
		{"script without interpreter", write([]byte("#!/no/such/interpreter\n"), 0o755), nil, "interpreter /no/such/interpreter", "", 1, control.OutcomeFailed},
		{"script that fails", write([]byte("#!/bin/sh\necho cannot go on >&2\nexit 4\n"), 0o755), nil, "exit status 4", "cannot go on", 1, control.OutcomeFailed},
		{"exits early", faulty("early"), nil, "exit status 3", "cannot read my configuration", 1, control.OutcomeFailed},
		{"exits 0", faulty("exit0"), nil, "exit status 0 before it served", "going to exit0", 1, control.OutcomeFailed},
		{"exits 1", faulty("exit1"), nil, "exit status 1", "the database is away", 1, control.OutcomeFailed},
		{"panics", faulty("panic"), nil, "exit status 2", "panic: faulty: this cannot be", 1, control.OutcomeFailed},
		{"never ready", faulty("hang"), nil, "not ready within", "going to hang", 6, control.OutcomeTimedOut},
		{"never says hello", faulty("mute"), nil, "not ready within", "going to mute", 6, control.OutcomeTimedOut},
		{"lies to systemd", faulty("notify"), nil, "exit status 1", "told 0 lies", 1, control.OutcomeFailed},
		{"killed before ready", faulty("hang"), kill(control.PhaseReady), "killed by SIGKILL", "going to hang", 1, control.OutcomeFailed},
		{"killed in probation", faulty("serve"), kill(control.PhaseProbation), "killed by SIGKILL", "going to serve", 1, control.OutcomeFellBack},
		{"panics while it serves", faulty("panic-serving"), nil, "exit status 2", "going to panic-serving", 1, control.OutcomeFellBack},
		{"exits 0 while it serves", faulty("exit-serving"), nil, "exit status 0", "going to exit-serving", 1, control.OutcomeFellBack},
	}

	s := newSite(t, options{unit: func(u *units.Service) {
		u.ReadyTimeout = 3 * time.Second
		u.Probation = time.Second
	}})
	main, number, version := 1, 2, "v1"
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.t = t
			pid := s.requireServing(main, version).Generations[0].PID
			l := s.startLoad(mixedLoad())
			tt.deploy(s)
			reload := s.inBackground("systemctl", "reload", service)
			if tt.during != nil {
				tt.during(s)
			}
			r := <-reload
			assert.Equal(t, 1, r.ExitCode, "systemctl reload: %s%s", r.Stdout, r.Stderr)
			number++

			// Nothing has changed: the same process is main, and it serves.
			st := s.requireServing(main, version)
			assert.Equal(t, pid, mainOf(t, st).PID)
			for _, g := range st.Generations {
				assert.LessOrEqual(t, g.Number, main, "nothing is left of it")
			}
			require.NotNil(t, st.Last)
			assert.Equal(t, tt.outcome, st.Last.Outcome)
			assert.Contains(t, st.Last.Error.Message, tt.message)
			assert.Contains(t, strings.Join(st.Last.Output, "\n"), tt.output)
			assert.Equal(t, control.ViaSystemctl, st.Last.Trigger.Via)
			if tt.output != "" {
				assert.NotZero(t, st.Last.ToPID)
			}
			s.noZombies()
			assert.Contains(t, s.unit()["StatusText"], tt.message, "systemctl status tells it")

			// hdctl says the same, with its own exit status.
			up := s.inBackground("hdctl", "upgrade", "demo")
			if tt.during != nil {
				tt.during(s)
			}
			r = <-up
			number++
			assert.Equal(t, tt.exit, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
			assert.Contains(t, r.Stderr, tt.message)
			assert.Contains(t, r.Stderr, tt.output)

			// And the next one succeeds.
			s.MustRun(t, "rm", "-rf", program)
			version = versions[main%len(versions)]
			s.deploy("demo-" + version)
			s.reload()
			main = number
			number++
			s.requireServing(main, version)

			switch rep := l.Stop(); tt.outcome {
			case control.OutcomeFellBack: // what was in the dead process is lost, no more
				t.Logf("%v", rep)
				for _, f := range rep.Failures {
					assert.NotEqual(t, "dial", string(f.Phase), "%v", f)
				}
			default:
				require.NoError(t, rep.Err())
			}
		})
	}
}

// TestEachOutcomeIsInTheJournal looks for the structured records.
func TestEachOutcomeIsInTheJournal(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{})
	s.deploy("demo-v2")
	s.reload()
	s.deployFaulty("exit1")
	require.Equal(t, 1, s.Systemctl("reload", service).ExitCode)

	good := s.waitRecord("MESSAGE_ID=" + upgradedID)
	assert.Equal(t, 5, good.Priority)
	assert.Equal(t, "confirmed", good.Fields["HANDOFF_OUTCOME"])
	assert.Equal(t, "2", good.Fields["HANDOFF_GENERATION"])
	assert.Equal(t, "v2", good.Fields["HANDOFF_VERSION"])
	assert.Equal(t, "systemctl", good.Fields["HANDOFF_TRIGGER"])
	assert.Equal(t, service, good.Unit)

	bad := s.waitRecord("MESSAGE_ID=" + failedID)
	assert.Equal(t, 3, bad.Priority)
	assert.Equal(t, "failed", bad.Fields["HANDOFF_OUTCOME"])
	assert.Equal(t, "2", bad.Fields["HANDOFF_GENERATION"])
	assert.Equal(t, "3", bad.Fields["HANDOFF_TO"])
	assert.Contains(t, bad.Fields["HANDOFF_REASON"], "the database is away")
	assert.NotEmpty(t, bad.Fields["HANDOFF_TO_PID"])

	drained := s.waitRecord("MESSAGE_ID=" + drainedID)
	assert.Equal(t, "1", drained.Fields["HANDOFF_GENERATION"])
	assert.Equal(t, "drained", drained.Fields["HANDOFF_OUTCOME"])
}
