package e2e

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
)

// TestAnsible runs the example playbook as an operator does who does not know whether
// anything is to do: on a new host, again, with a new program under load, and with one
// that does not work.
func TestAnsible(t *testing.T) {
	t.Parallel()
	s := &site{Testbed: testbed.Boot(t), t: t}
	if s.Run(context.Background(), "sh", "-c", "command -v ansible-playbook").ExitCode != 0 {
		if os.Getenv("CI") != "" && os.Getenv(testbed.RootfsEnv) == "" {
			t.Fatal("ansible-playbook is not installed")
		}
		t.Skip("ansible-playbook is not installed")
	}
	require.NoError(t, s.CopyFile(binaries.path(t, "hdctl"), units.DefaultHdctl))
	require.NoError(t, s.CopyFile("../../packaging/ansible/deploy.yml", "/root/deploy.yml"))
	vars, err := json.Marshal(map[string]any{
		"service_name": "demo", "service_binary": "/root/build/demo",
		"service_listen": []string{"http=8080", "echo=7777"},
		// What the tests of this package need besides.
		"service_flags": []string{"--probation", "200ms", "--env", "GORACE=atexit_sleep_ms=0"},
	})
	require.NoError(t, err)
	play := func() (changed []string, failed string, r testbed.Result) {
		t.Helper()
		r = s.Run(context.Background(), "env", "ANSIBLE_NOCOLOR=1", "HOME=/root", "LC_ALL=C.UTF-8",
			"ansible-playbook", "-v", "-i", "localhost,", "-c", "local", "-e", string(vars), "/root/deploy.yml")
		changed, failed = tasks(r.Stdout)
		t.Logf("changed %q, failed %q", changed, failed)
		return changed, failed, r
	}
	mustPlay := func() []string {
		t.Helper()
		changed, _, r := play()
		require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%s%s", r.Stdout, r.Stderr)
			}
		})
		return changed
	}
	build := func(name string) { require.NoError(t, s.CopyFile(binaries.path(t, name), "/root/build/demo")) }
	const install, installUnits, upgrade = "Install the program", "Install the units", "Upgrade the service"

	build("demo-v1")
	assert.Equal(t, []string{install, installUnits}, mustPlay())
	s.requireServing(1, "v1")
	assert.Empty(t, mustPlay(), "nothing was to do")
	s.requireServing(1, "v1")

	l := s.startLoad(load.Options{})
	build("demo-v2")
	assert.Equal(t, []string{install, upgrade}, mustPlay())
	s.requireServing(2, "v2")

	// One that does not start: the play fails where it should, and the old version
	// serves.
	require.NoError(t, s.WriteFile(program+".mode", []byte("exit1"), 0o644))
	build("faulty")
	changed, failed, r := play()
	assert.NotZero(t, r.ExitCode)
	assert.Equal(t, []string{install}, changed)
	assert.Equal(t, upgrade, failed)
	assert.Contains(t, r.Stdout, "generation 2 still serves")
	s.requireServing(2, "v2")
	requireNoFailure(t, l)
}

// taskLine is the beginning of a task in the output of Ansible, and resultLine how it
// ended on a host.
var (
	taskLine   = regexp.MustCompile(`^TASK \[(.*)\] \**$`)
	resultLine = regexp.MustCompile(`^(ok|changed|skipping|fatal|failed): \[`)
)

// tasks returns the tasks of a play that changed something, and the one that failed.
func tasks(output string) (changed []string, failed string) {
	task := ""
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if m := taskLine.FindStringSubmatch(line); m != nil {
			task = m[1]
		}
		if m := resultLine.FindStringSubmatch(line); m != nil {
			switch m[1] {
			case "changed":
				changed = append(changed, task)
			case "fatal", "failed":
				failed = task
			}
		}
	}
	return changed, failed
}
