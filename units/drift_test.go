package units_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/units"
)

// service is a process, and what systemd says of the unit that it is of.
type service struct {
	cmd     *exec.Cmd
	unit    map[string]string
	manager string
}

// startService starts a process, and returns it with a unit that says the same.
func startService(t *testing.T, change func(*exec.Cmd)) *service {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "1000", "2000")
	cmd.Env = []string{
		"PATH=/bin", "INVOCATION_ID=0123", "LISTEN_PID=12", "FROM_MANAGER=x y",
		"A=1", "B=two words", "SECRET=swordfish",
	}
	if change != nil {
		change(cmd)
	}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	s := &service{cmd: cmd, manager: `LANG=C "FROM_MANAGER=x y" PATH=/manager`, unit: map[string]string{
		"LoadState":        "loaded",
		"NeedDaemonReload": "no",
		"ExecStart":        "{ path=/bin/sleep ; argv[]=/bin/sleep 1000 2000 ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }",
		"Environment":      `A=1 "B=two words" SECRET=swordfish`,
		"User":             "",
		"Group":            "",
		"DynamicUser":      "no",
		"UID":              "[not set]",
	}}
	if change == nil { // of another user nobody may change it
		require.NoError(t, unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 200}, nil))
		s.unit["LimitNOFILESoft"], s.unit["LimitNOFILE"] = "100", "200"
	}
	return s
}

func (s *service) show(_ context.Context, unit string, properties ...string) (map[string]string, error) {
	if unit == "" {
		return map[string]string{"Environment": s.manager}, nil
	}
	if unit != "app.service" {
		return nil, errors.New("no such unit")
	}
	values := make(map[string]string)
	for _, property := range properties {
		if value, ok := s.unit[property]; ok {
			values[property] = value
		}
	}
	return values, nil
}

// drift returns the findings by name.
func (s *service) drift(t *testing.T) map[string]units.Finding {
	t.Helper()
	list, err := units.Drift(t.Context(), "app.service", s.cmd.Process.Pid, s.show)
	require.NoError(t, err)
	findings := make(map[string]units.Finding)
	for _, f := range list {
		findings[f.Name] = f
		assert.Contains(t, []string{units.FindingOK, units.FindingWarning}, f.Result)
		assert.NotContains(t, f.Message+f.Hint, "swordfish", "values may be secrets")
	}
	assert.Len(t, findings, 5)
	return findings
}

func TestDrift(t *testing.T) {
	leak.Check(t)
	files := t.TempDir()
	envFile := func(name, content string) string {
		path := filepath.Join(files, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	execStart := func(path, argv string) string {
		return "{ path=" + path + " ; argv[]=" + argv + " ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }"
	}
	me, err := user.Current()
	require.NoError(t, err)
	more := envFile("1.env", "FROM_FILE=x\nA=1\n")
	envFile("2.env", "# nothing\nA='1'\n")

	tests := []struct {
		name   string
		unit   map[string]string // what is different
		want   string            // name of the finding that is a warning, or ""
		text   string            // in the message of that one
		result string            // of that one, if not a warning
	}{
		{name: "nothing"},
		{name: "not loaded", unit: map[string]string{"NeedDaemonReload": "yes"}, want: "unit", text: "has not loaded them"},
		{
			name: "files changed", unit: map[string]string{"InactiveExitTimestampMonotonic": "1", "FragmentPath": "/no/such", "DropInPaths": more + " /no/such"},
			want: "unit", text: "but " + more + " changed after the service was started (", result: "ok",
		},
		{
			name: "variable added", unit: map[string]string{"Environment": `A=1 "B=two words" SECRET=swordfish NEW=swordfish`},
			want: "environment", text: "has; added: NEW",
		},
		{
			name: "variables changed", unit: map[string]string{"Environment": `A=2 "B=two  words" SECRET=swordfish2`},
			want: "environment", text: "has; changed: A, B, SECRET",
		},
		{
			name: "variables removed", unit: map[string]string{"Environment": `A=1 NEW=x`},
			want: "environment", text: "has; added: NEW; removed: B, SECRET",
		},
		{
			name: "what systemd sets itself", unit: map[string]string{"Environment": `A=1 "B=two words" SECRET=swordfish PATH=/opt`},
			want: "environment", text: "has; changed: PATH",
		},
		{
			name: "variable from a file", unit: map[string]string{"EnvironmentFiles": "/no/such (ignore_errors=yes)\n" + filepath.Join(files, "*.env") + " (ignore_errors=no)"},
			want: "environment", text: "has; added: FROM_FILE",
		},
		{
			name: "file goes before", unit: map[string]string{
				"Environment": `A=other "B=two words" SECRET=swordfish`, "EnvironmentFiles": filepath.Join(files, "2.env") + " (ignore_errors=no)",
			},
		},
		{
			name: "file missing", unit: map[string]string{"EnvironmentFiles": "/no/such.env (ignore_errors=no)"},
			want: "environment", text: "that is not there: open /no/such.env",
		},
		{
			name: "variables unset", unit: map[string]string{"UnsetEnvironment": "A B=other SECRET=swordfish"},
			want: "environment", text: "has; removed: A, SECRET",
		},
		{
			name: "variables passed on", unit: map[string]string{"Environment": "A=1 SECRET=swordfish", "PassEnvironment": "OTHER B"},
		},
		{name: "PAM adds some", unit: map[string]string{"Environment": "A=1", "PAMName": "login"}},
		{
			name: "limits raised", unit: map[string]string{"LimitNOFILE": "300", "LimitNOFILESoft": "150"},
			want: "limits", text: "app.service says LimitNOFILE=150:300, the process has 100:200",
		},
		{
			name: "limits lowered", unit: map[string]string{"LimitNOFILE": "90", "LimitNOFILESoft": "90"},
			want: "limits", text: "app.service says LimitNOFILE=90:90, the process has 100:200",
		},
		{
			name: "soft limit raised", unit: map[string]string{"LimitNOFILESoft": "150"},
			want: "limits", text: "app.service says LimitNOFILE=150:200, the process has 100:200",
		},
		{name: "soft limit raised by the program", unit: map[string]string{"LimitNOFILESoft": "50"}},
		{name: "limit not known", unit: map[string]string{"LimitNOFILE": "[not set]"}},
		{
			name: "program", unit: map[string]string{"ExecStart": execStart("/opt/app", "/opt/app 1000 2000")},
			want: "program", text: "starts /opt/app, process",
		},
		{
			name: "arguments", unit: map[string]string{"ExecStart": execStart("/bin/sleep", "/bin/sleep 1000 2000 3000")},
			want: "program", text: "other arguments",
		},
		{
			name: "argument less", unit: map[string]string{"ExecStart": execStart("/bin/sleep", "/bin/sleep 1000")},
			want: "program", text: "other arguments",
		},
		{
			name: "secret argument", unit: map[string]string{"ExecStart": execStart("/bin/sleep", "/bin/sleep 1000 swordfish")},
			want: "program", text: "other arguments",
		},
		{
			name: "path in a directory", unit: map[string]string{"ExecStart": execStart("sleep", "sleep 1000 2000")},
		},
		{name: "other name", unit: map[string]string{"ExecStart": execStart("/bin/sleep", "my own sleep 1000 2000")}},
		{
			name: "other name and argument", unit: map[string]string{"ExecStart": execStart("/bin/sleep", "my own sleep 1000 3000")},
			want: "program", text: "other arguments",
		},
		{
			name: "variables in arguments", unit: map[string]string{
				"ExecStart":   execStart("/bin/sleep", "/bin/sleep ${A}000 $NONE ${NONE} $B"),
				"Environment": `A=1 B=2000 SECRET=swordfish`,
			},
			want: "environment", text: "changed: B",
		},
		{name: "no ExecStart", unit: map[string]string{"ExecStart": ""}},
		{
			name: "several", unit: map[string]string{"ExecStart": execStart("/bin/true", "/bin/true") + "\n" + execStart("/bin/sleep", "/bin/sleep")},
		},
		{name: "this user", unit: map[string]string{"User": me.Username, "Group": me.Gid}},
		{name: "this user by number", unit: map[string]string{"User": me.Uid}},
		{
			name: "another user", unit: map[string]string{"User": "12345"},
			want: "user", text: "says User=12345, process",
		},
		{
			name: "another group", unit: map[string]string{"User": me.Uid, "Group": "12345"},
			want: "user", text: "says Group=12345, process",
		},
		{
			name: "unknown user", unit: map[string]string{"User": "no such user"},
			want: "user", text: "says User=no such user: user: unknown user",
		},
		{
			name: "a dynamic user", unit: map[string]string{"DynamicUser": "yes", "User": "app-of-nobody"},
			want: "user", text: "says DynamicUser=yes, process",
		},
	}
	s := startService(t, nil)
	same := maps.Clone(s.unit)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s.unit = maps.Clone(same)
			maps.Copy(s.unit, test.unit)
			for name, f := range s.drift(t) {
				want := units.FindingOK
				if name == test.want {
					assert.Contains(t, f.Message, test.text)
					assert.NotEmpty(t, f.Hint)
					if want = units.FindingWarning; test.result != "" {
						want = test.result
					}
				}
				assert.Equal(t, want, f.Result, "%s: %s", name, f.Message)
			}
		})
	}
}

// TestDriftBelowManager is about a manager that has no right to more than it has,
// like one of a user.
func TestDriftBelowManager(t *testing.T) {
	leak.Check(t)
	dir, err := os.MkdirTemp("", "units")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	shell, err := filepath.EvalSymlinks("/bin/sh")
	require.NoError(t, err)
	out, err := exec.Command("cp", shell, filepath.Join(dir, "systemd")).CombinedOutput()
	require.NoError(t, err, "%s", out)

	started, w, err := os.Pipe()
	require.NoError(t, err)
	defer started.Close()
	s := startService(t, func(cmd *exec.Cmd) {
		cmd.Path = filepath.Join(dir, "systemd")
		cmd.Args = []string{cmd.Path, "-c", "sh -c 'ulimit -Sn 50; sleep 1000 & echo $!; wait'; :"}
		cmd.Stdout = w
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if os.Geteuid() == 0 {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 61234, Gid: 61234}
		}
	})
	t.Cleanup(func() { unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL) })
	w.Close()
	var pid int
	_, err = fmt.Fscan(started, &pid)
	require.NoError(t, err)
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	require.NoError(t, err)
	_, line, _ := strings.Cut(string(limits), "Max open files")
	var soft, most int
	_, err = fmt.Sscan(line, &soft, &most)
	require.NoError(t, err)
	require.Equal(t, 50, soft)
	hard, less := strconv.Itoa(most), strconv.Itoa(most-1)
	for _, test := range []struct{ soft, hard, want string }{
		{"50", hard, "ok"},
		{"50", "infinity", "ok"},
		{"60", "infinity", "warning"},
		{"50", less, "warning"},
		{"infinity", "infinity", "warning"},
	} {
		s.unit["LimitNOFILESoft"], s.unit["LimitNOFILE"] = test.soft, test.hard
		list, err := units.Drift(t.Context(), "app.service", pid, s.show)
		require.NoError(t, err)
		assert.Equal(t, "limits", list[3].Name)
		assert.Equal(t, test.want, list[3].Result, "%s:%s: %s", test.soft, test.hard, list[3].Message)
	}
}

// TestDriftOfScript is about a program of which the kernel has made an argument.
func TestDriftOfScript(t *testing.T) {
	leak.Check(t)
	path := filepath.Join(t.TempDir(), "app")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh -u\nread line\n"), 0o755))
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	s := startService(t, func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args, cmd.Stdin = path, []string{path, "a", "b c"}, r
	})
	s.unit["ExecStart"] = "{ path=" + path + " ; argv[]=" + path + " a b c ; ignore_errors=no ; pid=0 }"
	assert.Equal(t, "ok", s.drift(t)["program"].Result)
	s.unit["ExecStart"] = "{ path=" + path + " ; argv[]=" + path + " a b d ; ignore_errors=no ; pid=0 }"
	assert.Equal(t, "warning", s.drift(t)["program"].Result)
}

// TestDriftOfOpenFile is about a program that has no path, after a rollback.
func TestDriftOfOpenFile(t *testing.T) {
	leak.Check(t)
	s := startService(t, func(cmd *exec.Cmd) { cmd.Args[0] = "/proc/self/fd/1234" })
	assert.Equal(t, "ok", s.drift(t)["program"].Result)
}

// TestDriftOfUser is about a process that has the user of a unit that has none now.
func TestDriftOfUser(t *testing.T) {
	leak.Check(t)
	if os.Geteuid() != 0 {
		t.Skip("only root may start a process of another user")
	}
	s := startService(t, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61234, Gid: 61234}}
	})
	assert.Equal(t, "ok", s.drift(t)["user"].Result, "it may have changed by itself")
	s.unit["UID"] = "61234"
	assert.Equal(t, "app.service says User=, process "+fmt.Sprint(s.cmd.Process.Pid)+" runs as 61234", s.drift(t)["user"].Message)
	s.unit["DynamicUser"] = "yes"
	assert.Equal(t, "ok", s.drift(t)["user"].Result)
}

// TestDriftUnseen is about a process into which the caller must not look.
func TestDriftUnseen(t *testing.T) {
	const env = "UNITS_TEST_DRIFT_PID"
	if pid := os.Getenv(env); pid != "" {
		var n int
		_, err := fmt.Sscan(pid, &n)
		require.NoError(t, err)
		s := &service{unit: map[string]string{"LoadState": "loaded"}}
		list, err := units.Drift(t.Context(), "app.service", n, s.show)
		require.NoError(t, err)
		assert.Equal(t, "environment", list[2].Name)
		assert.Equal(t, "warning", list[2].Result)
		assert.Contains(t, list[2].Message, "not compared: open /proc/")
		return
	}
	leak.Check(t)
	if os.Geteuid() != 0 {
		t.Skip("only root may start a process of another user")
	}
	s := startService(t, nil)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestDriftUnseen$")
	cmd.Env = []string{env + "=" + fmt.Sprint(s.cmd.Process.Pid)}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61234, Gid: 61234}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestDriftErrors(t *testing.T) {
	leak.Check(t)
	s := startService(t, nil)
	_, err := units.Drift(t.Context(), "other.service", s.cmd.Process.Pid, s.show)
	assert.EqualError(t, err, "ask systemd about other.service: no such unit")
	s.unit["LoadState"] = "not-found"
	_, err = units.Drift(t.Context(), "app.service", s.cmd.Process.Pid, s.show)
	assert.EqualError(t, err, "systemd does not know app.service")
	s.unit["LoadState"] = "loaded"
	_, err = units.Drift(t.Context(), "app.service", 1<<22+1, s.show)
	assert.ErrorContains(t, err, "look at process 4194305")
	assert.ErrorIs(t, err, os.ErrNotExist)
}
