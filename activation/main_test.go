package activation_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
)

// Variables of the child processes, which are this test binary again.
const (
	childVar = "ACTIVATION_TEST_CHILD" // name in children
	stageVar = "ACTIVATION_TEST_STAGE" // set before the execve that systemd would do
)

// Values of systemd's variables that only the child can know.
const (
	self      = "@self@"        // its PID
	pidfdID   = "@pidfdid@"     // the inode number of its pidfd
	otherID   = "@otherid@"     // another one
	someoneID = "@not-a-pid@"   // the PID of nobody
	maxPID    = 4 * 1024 * 1024 // PID_MAX_LIMIT, proc_sys_kernel(5)
)

func TestMain(m *testing.M) {
	if os.Getenv(stageVar) != "" {
		activateSelf()
	}
	if name := os.Getenv(childVar); name != "" {
		runChild(name)
	}
	leak.Main(m)
}

// activateSelf does what systemd does between fork and exec: it writes the PID of
// the process into its environment. It does not return.
func activateSelf() {
	id := inodeOfPidfd()
	replace := strings.NewReplacer(
		self, strconv.Itoa(os.Getpid()),
		someoneID, strconv.Itoa(maxPID+1),
		pidfdID, strconv.FormatUint(id, 10),
		otherID, strconv.FormatUint(id+1, 10),
	)
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, stageVar+"=") {
			env = append(env, replace.Replace(kv))
		}
	}
	exe, err := os.Executable()
	must(err)
	must(syscall.Exec(exe, os.Args, env))
}

func inodeOfPidfd() uint64 {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	must(err)
	defer unix.Close(fd)
	var st unix.Stat_t
	must(unix.Fstat(fd, &st))
	return st.Ino
}

func runChild(name string) {
	result := children[name]()
	must(json.NewEncoder(os.Stdout).Encode(result))
	os.Exit(0)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// systemd starts a child with sockets.
type systemd struct {
	child string
	fds   []int    // passed as 3, 4, ...; they stay open here, as they do in PID 1
	env   []string // for LISTEN_PID and so on
}

// passing returns the usual environment for sockets of these names.
func passing(names ...string) []string {
	return []string{
		"SYSTEMD_EXEC_PID=" + self,
		"LISTEN_PID=" + self,
		"LISTEN_FDS=" + strconv.Itoa(len(names)),
		"LISTEN_FDNAMES=" + strings.Join(names, ":"),
	}
}

// process is a running child.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser // children that wait, wait for its end
	stdout bytes.Buffer
	stderr bytes.Buffer
}

func (s systemd) start(t *testing.T) *process {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	p := &process{cmd: exec.Command(exe)}
	p.cmd.Env = append([]string{
		stageVar + "=1",
		childVar + "=" + s.child,
		"PATH=" + os.Getenv("PATH"),
		"GORACE=atexit_sleep_ms=0", // the race detector's default is to spend a second at exit
	}, s.env...)
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		p.cmd.Env = append(p.cmd.Env, "GOCOVERDIR="+dir)
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	for _, fd := range s.fds {
		d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		require.NoError(t, err)
		f := os.NewFile(uintptr(d), fmt.Sprint(fd))
		defer f.Close()
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, f)
	}
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.cmd.Process.Kill()
			p.cmd.Wait()
		}
	})
	return p
}

// wait lets the child end and decodes its result.
func (p *process) wait(t *testing.T, result any) {
	t.Helper()
	p.stdin.Close()
	err := p.cmd.Wait()
	require.NoError(t, err, "child: %s", p.stderr.String())
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), result), "child: %s", p.stdout.String())
}

func (s systemd) run(t *testing.T, result any) {
	t.Helper()
	s.start(t).wait(t, result)
}
