package watch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
)

func TestParseStat(t *testing.T) {
	const rest = " 1 2 3 4 5 %d 7 8 9\n"
	for _, tt := range []struct {
		name  string
		comm  string
		state string
		flags uint64
		want  condition
	}{
		{"sleeps", "app", "S", 0x400040, running},
		{"runs", "app", "R", 0, running},
		{"waits for a disk", "app", "D", 0, running},
		{"parentheses", "(a) (b", "T", 0, stopped},
		{"looks like the end", "x) Z 1 2 3", "S", 0, running},
		{"looks like dying", "x) S 1 2 3 4 5 4 ", "S", 0, running},
		{"newline", "a\nb", "S", 0, running},
		{"empty", "", "S", 0, running},
		{"debugger", "app", "t", 0, traced},
		{"zombie", "app", "Z", 0, dying},
		{"dead", "app", "X", 0, dying},
		{"exiting", "app", "R", 0x40404c, dying},
		{"exiting while it waits", "app", "D", pfExiting, dying},
		{"killed, core is dumped", "app", "S", 0x400440, dying},
		{"stopped, and killed", "app", "T", pfExiting, dying},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, ok := parseStat(fmt.Appendf(nil, "42 (%s) %s"+rest, tt.comm, tt.state, tt.flags))
			require.True(t, ok)
			assert.Equal(t, stat{tt.state[0], tt.flags}, s)
			got, detail := s.condition()
			assert.Equal(t, tt.want, got)
			assert.Equal(t, got == dying, detail != "")
		})
	}
	for _, bad := range []string{
		"", "42", "42 (app", "42 (app)", "42 (app) ", "42 (app) S", "42 (app) S 1 2 3 4 5", "42 (app) S 1 2 3 4 5 ",
		"42 (app) S 1 2 3 4 5 x", "42 (app) SS 1 2 3 4 5 6", "42 (app) S 1 2 3 4 5 -6",
	} {
		_, ok := parseStat([]byte(bad))
		assert.False(t, ok, "%q", bad)
	}
}

func FuzzParseStat(f *testing.F) {
	self, err := os.ReadFile("/proc/self/stat")
	require.NoError(f, err)
	f.Add(self)
	f.Add([]byte("1 (a) b) S 1 2 3 4 5 6 7"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := parseStat(b)
		if !ok {
			assert.Zero(t, s)
		}
		parseTracer(b)
		parseCgroup(b)
	})
}

func TestParseTracer(t *testing.T) {
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	require.Contains(t, string(status), "TracerPid:")
	assert.Equal(t, 0, parseTracer(status), "of these tests")
	assert.Equal(t, 77, parseTracer([]byte("Name:\tTracerPid:\t5\nPid:\t3\nTracerPid:\t77\nUid:\t0\n")))
	assert.Equal(t, 0, parseTracer([]byte("Name:\tapp\n")))
}

func TestProcessReadsItself(t *testing.T) {
	leak.Check(t)
	p := openProcess(os.Getpid())
	defer p.close()
	for range 3 {
		got, detail := p.read()
		assert.Equal(t, running, got)
		assert.Empty(t, detail)
	}
	assert.False(t, p.traced())
}

func TestProcessThatIsNot(t *testing.T) {
	leak.Check(t)
	pid := 1<<22 + 1 // above the greatest that the kernel gives
	p := openProcess(pid)
	defer p.close()
	got, detail := p.read()
	assert.Equal(t, dying, got)
	assert.Equal(t, "gone", detail)
}

func TestParseCgroup(t *testing.T) {
	for _, tt := range []struct{ content, want string }{
		{"0::/system.slice/app.service\n", "/system.slice/app.service"},
		{"12:cpu,cpuacct:/v1\n1:name=systemd:/x\n0::/unified\n", "/unified"},
		{"0::/\n", "/"},
		{"0::/../sibling\n", "/sibling"},
		{"0::/a b:c\n", "/a b:c"},
	} {
		got, ok := parseCgroup([]byte(tt.content))
		assert.True(t, ok)
		assert.Equal(t, tt.want, got)
	}
	_, ok := parseCgroup([]byte("12:cpu,cpuacct:/v1\n"))
	assert.False(t, ok)
}

// quota is a tree of control groups like the one that this process is in.
type quota struct {
	t    *testing.T
	root string
	dir  string // of this process
}

func newQuota(t *testing.T) quota {
	t.Helper()
	data, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	group, ok := parseCgroup(data)
	if !ok {
		t.Skip("no cgroup v2 here")
	}
	root := t.TempDir()
	q := quota{t: t, root: root, dir: filepath.Join(root, group)}
	require.NoError(t, os.MkdirAll(q.dir, 0o700))
	return q
}

func (q quota) set(periods, usec int) {
	q.t.Helper()
	q.write(fmt.Sprintf("usage_usec 77\nnr_periods 100\nnr_throttled %d\nthrottled_usec %d\nnr_bursts 3\n", periods, usec))
}

func (q quota) write(content string) {
	q.t.Helper()
	require.NoError(q.t, os.WriteFile(filepath.Join(q.dir, "cpu.stat"), []byte(content), 0o600))
}

func TestThrottle(t *testing.T) {
	leak.Check(t)
	q := newQuota(t)
	q.set(10, 5000)
	throttle := newThrottle(os.Getpid())
	throttle.root = q.root
	defer throttle.close()

	assert.Zero(t, throttle.since(), "what was before the first call")
	assert.Zero(t, throttle.since())
	q.set(12, 7000)
	assert.Equal(t, 2*time.Millisecond, throttle.since())
	assert.Zero(t, throttle.since())
	q.set(13, 7000)
	assert.EqualValues(t, 1, throttle.since(), "it has begun")
	q.set(14, 9000)
	throttle.forget()
	assert.Zero(t, throttle.since())
	q.set(1, 2)
	assert.EqualValues(t, 1, throttle.since(), "backwards")
	q.write("")
	throttle.since()
	assert.Zero(t, throttle.since())
}

func TestThrottleWithoutQuota(t *testing.T) {
	leak.Check(t)
	q := newQuota(t)
	for _, content := range []string{"", "usage_usec 77\nuser_usec 7\n"} {
		if content != "" {
			q.write(content)
		}
		throttle := newThrottle(os.Getpid())
		throttle.root = q.root
		assert.Zero(t, throttle.since())
		assert.Empty(t, throttle.files)
		throttle.close()
	}
}

// TestSamplerAsksOnlyIfSomethingIsWrong: the kernel makes the sum of all CPUs for a
// cpu.stat, which is nothing to ask for at each look.
func TestSamplerAsksOnlyIfSomethingIsWrong(t *testing.T) {
	leak.Check(t)
	q := newQuota(t)
	q.set(10, 5000)
	page, err := pulse.New()
	require.NoError(t, err)
	defer page.Close()
	s := newSampler(Target{PID: os.Getpid(), Page: page, Sockets: []Socket{{Slot: 2, FD: -1}}})
	s.throttle.root = q.root
	defer s.close()
	limits := Limits{Stopped: time.Second, Stalled: time.Second}

	look := func() reading { return s.read(limits) }
	assert.Equal(t, running, look().process)
	assert.False(t, s.throttle.found)

	page.Slot(2).SetWaiting(1)
	assert.Zero(t, look().throttled)
	assert.True(t, s.throttle.found)
	q.set(11, 8000)
	r := look()
	assert.Equal(t, 3*time.Millisecond, r.throttled)
	assert.Equal(t, []socketReading{{pending: true}}, r.sockets)

	page.Slot(2).Accepted()
	q.set(12, 9000)
	r = look()
	assert.Zero(t, r.throttled, "it moves")
	assert.Equal(t, []socketReading{{pending: true, accepts: 1}}, r.sockets)
	assert.Zero(t, look().throttled, "the first look at what may be an episode")
}

// TestSamplerAsksAboutAStoppedProcess: this is an episode as well.
func TestSamplerAsksAboutAStoppedProcess(t *testing.T) {
	leak.Check(t)
	q := newQuota(t)
	q.set(10, 5000)
	cmd := exec.Command("sleep", "1000")
	require.NoError(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	require.NoError(t, cmd.Process.Signal(unix.SIGSTOP))
	s := newSampler(Target{PID: cmd.Process.Pid})
	s.throttle.root = q.root
	defer s.close()
	limits := Limits{Stopped: time.Second}
	require.Eventually(t, func() bool { return s.read(limits).process == stopped }, 20*time.Second, time.Millisecond)
	q.set(11, 8000)
	assert.Equal(t, 3*time.Millisecond, s.read(limits).throttled)
}

func TestSamplerPolls(t *testing.T) {
	leak.Check(t)
	page, err := pulse.New()
	require.NoError(t, err)
	defer page.Close()
	var target Target
	target.PID, target.Page = os.Getpid(), page
	var writers []*os.File
	for i := range 3 {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		defer r.Close()
		defer w.Close()
		writers = append(writers, w)
		target.Sockets = append(target.Sockets, Socket{Slot: i, FD: int(r.Fd())})
	}
	s := newSampler(target)
	defer s.close()
	pending := func(l Limits) (p []bool) {
		for _, socket := range s.read(l).sockets {
			p = append(p, socket.pending)
		}
		return p
	}
	all, queue := Limits{Stalled: time.Second}, Limits{Stalled: time.Second, Queue: true}
	assert.Equal(t, []bool{false, false, false}, pending(all))
	_, err = writers[1].WriteString("x")
	require.NoError(t, err)
	_, err = writers[2].WriteString("x")
	require.NoError(t, err)
	require.NoError(t, writers[2].Close())
	assert.Equal(t, []bool{false, true, false}, pending(all), "the last was shut down")
	assert.Equal(t, []bool{false, false, false}, pending(queue))
	page.Slot(0).SetWaiting(1)
	assert.Equal(t, []bool{true, false, false}, pending(queue))
	assert.Equal(t, []bool{true, true, false}, pending(all))
}

func BenchmarkLook(b *testing.B) {
	for _, sockets := range []int{1, 8} {
		b.Run(fmt.Sprintf("sockets=%d", sockets), func(b *testing.B) {
			benchmarkLook(b, sockets, 0)
		})
		b.Run(fmt.Sprintf("sockets=%d/suspect", sockets), func(b *testing.B) {
			benchmarkLook(b, sockets, 1)
		})
	}
}

func benchmarkLook(b *testing.B, sockets, waiting int) {
	page, err := pulse.New()
	require.NoError(b, err)
	defer page.Close()
	r, w, err := os.Pipe()
	require.NoError(b, err)
	defer r.Close()
	defer w.Close()
	target := Target{PID: os.Getpid(), Page: page}
	for i := range sockets {
		target.Sockets = append(target.Sockets, Socket{Slot: i, FD: int(r.Fd())})
	}
	page.Slot(0).SetWaiting(waiting)
	s := newSampler(target)
	defer s.close()
	e := newEpisodes(len(s.sockets))
	limits := Limits{Stopped: time.Hour, Stalled: time.Hour}
	b.ReportAllocs()
	for b.Loop() {
		e.step(s.read(limits), limits, interval)
	}
}
