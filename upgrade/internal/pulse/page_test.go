package pulse_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
)

func newPage(t testing.TB) *pulse.Page {
	t.Helper()
	p, err := pulse.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close()) })
	return p
}

// reopen opens p as the other process does, by a descriptor of its own.
func reopen(t testing.TB, p *pulse.Page) *pulse.Page {
	t.Helper()
	fd, err := unix.FcntlInt(p.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), "page")
	defer f.Close()
	q, err := pulse.Open(f)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, q.Close()) })
	return q
}

func TestBothSidesSeeTheSame(t *testing.T) {
	leak.Check(t)
	p := newPage(t)
	q := reopen(t, p)
	assert.Nil(t, q.File())

	last := pulse.Slots - 1
	for _, i := range []int{0, 1, last} {
		for range i + 1 {
			q.Slot(i).Accepted()
		}
		q.Slot(i).SetWaiting(100 + i)
		assert.EqualValues(t, i+1, p.Slot(i).Accepts())
		assert.Equal(t, 100+i, p.Slot(i).Waiting())
		assert.False(t, p.Slot(i).Busy())
		q.Slot(i).SetBusy(true)
		assert.True(t, p.Slot(i).Busy())
		q.Slot(i).SetBusy(false)
		assert.False(t, p.Slot(i).Busy())
	}
	assert.Zero(t, p.Slot(2).Accepts(), "a neighbour")
	assert.Zero(t, p.Slot(last-1).Waiting(), "a neighbour")
	assert.Zero(t, p.Sample(), "slots are not health")

	q.Observe(30*time.Millisecond, false)
	q.Observe(10*time.Millisecond, true)
	s := p.Sample()
	assert.EqualValues(t, 2, s.Requests)
	assert.EqualValues(t, 1, s.Errors)
	assert.Equal(t, 40*time.Millisecond, s.Latency)
	assert.Equal(t, 20*time.Millisecond, s.Mean())
	assert.EqualValues(t, 1, p.Slot(0).Accepts(), "health is not slots")
}

func TestSlotOutOfRange(t *testing.T) {
	p := newPage(t)
	for _, i := range []int{-1, pulse.Slots, math.MaxInt, math.MinInt} {
		assert.Nil(t, p.Slot(i), "slot %d", i)
	}
}

// useAll calls every method.
func useAll(p *pulse.Page) {
	for _, s := range []*pulse.Slot{p.Slot(0), p.Slot(pulse.Slots - 1), p.Slot(-1)} {
		s.Accepted()
		s.Accepts()
		s.SetWaiting(3)
		s.Waiting()
		s.SetBusy(true)
		s.Busy()
	}
	p.Observe(time.Millisecond, true)
	s := p.Sample()
	s.Mean()
	s.Quantile(0.99)
}

func TestNilAndClosedCountNothing(t *testing.T) {
	leak.Check(t)
	closed, err := pulse.New()
	require.NoError(t, err)
	slot := closed.Slot(3)
	useAll(closed)
	require.NoError(t, closed.Close())
	require.NoError(t, closed.Close(), "again")
	slot.Accepted()
	slot.SetWaiting(3)
	slot.SetBusy(true)
	assert.Zero(t, slot.Accepts())
	assert.Zero(t, slot.Waiting())
	assert.False(t, slot.Busy())

	var none *pulse.Page
	assert.Nil(t, none.File())
	assert.Nil(t, none.Slot(0))
	for name, p := range map[string]*pulse.Page{"nil": none, "closed": closed} {
		useAll(p)
		p.Report(3, 2, time.Second)
		assert.Zero(t, p.Sample(), name)
		assert.Zero(t, p.Slot(0).Accepts(), name)
		assert.NoError(t, p.Close(), name)
	}
}

// TestCloseUnderUse has the page closed, and the garbage collected, while it is
// used: an access to memory that was unmapped would end this process.
func TestCloseUnderUse(t *testing.T) {
	leak.Check(t)
	for range 5 {
		p, err := pulse.New()
		require.NoError(t, err)
		var users sync.WaitGroup
		started := make(chan struct{}, 2)
		stop := make(chan struct{})
		for range 2 {
			users.Go(func() {
				useAll(p)
				started <- struct{}{}
				for {
					select {
					case <-stop:
						return
					default:
						useAll(p)
					}
				}
			})
		}
		for range 2 {
			<-started
		}
		require.NoError(t, p.Close())
		runtime.GC()
		close(stop)
		users.Wait()
	}
	mappings := func() int {
		runtime.GC()
		maps, err := os.ReadFile("/proc/self/maps")
		require.NoError(t, err)
		return strings.Count(string(maps), "handoff-pulse")
	}
	assert.Eventually(t, func() bool { return mappings() == 0 }, 20*time.Second, time.Millisecond,
		"what is closed and not used is unmapped")
}

// memfd makes a file for Open to judge. It begins like a page, unless other
// content is given.
func memfd(t *testing.T, length int64, seals int, head ...uint64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), "memfd")
	t.Cleanup(func() { f.Close() })
	if head == nil {
		good := make([]byte, 16)
		_, err := newPage(t).File().ReadAt(good, 0)
		require.NoError(t, err)
		head = []uint64{binary.NativeEndian.Uint64(good), binary.NativeEndian.Uint64(good[8:])}
	}
	var content []byte
	for _, n := range head {
		content = binary.NativeEndian.AppendUint64(content, n)
	}
	_, err = f.WriteAt(content, 0)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(length))
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	require.NoError(t, err)
	return f
}

func TestOpenRefuses(t *testing.T) {
	leak.Check(t)
	good := memfd(t, pulse.Size, pulse.Seal)
	p, err := pulse.Open(good)
	require.NoError(t, err, "the other rows differ from this in one thing")
	require.NoError(t, p.Close())
	raw := make([]byte, 16)
	_, err = good.ReadAt(raw, 0)
	require.NoError(t, err, "it was only borrowed")
	magic, version := binary.NativeEndian.Uint64(raw), binary.NativeEndian.Uint64(raw[8:])

	regular, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	defer regular.Close()
	require.NoError(t, regular.Truncate(pulse.Size))
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	closed := memfd(t, pulse.Size, pulse.Seal)
	require.NoError(t, closed.Close())
	readOnly, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", good.Fd()))
	require.NoError(t, err)
	defer readOnly.Close()

	for _, tt := range []struct {
		name string
		file *os.File
		want string
	}{
		{"not sealed", memfd(t, pulse.Size, 0), "not sealed"},
		{"may shrink", memfd(t, pulse.Size, unix.F_SEAL_GROW|unix.F_SEAL_SEAL), "not sealed"},
		{"may grow", memfd(t, pulse.Size, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL), "not sealed"},
		{"may get seals", memfd(t, pulse.Size, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW), "not sealed"},
		{"cannot be written", memfd(t, pulse.Size, pulse.Seal|unix.F_SEAL_WRITE), "mmap: operation not permitted"},
		{"is empty", memfd(t, 0, pulse.Seal), "0 bytes"},
		{"is short", memfd(t, pulse.Size-1, pulse.Seal), "4095 bytes"},
		{"is long", memfd(t, pulse.Size+1, pulse.Seal), "4097 bytes"},
		{"is something else", memfd(t, pulse.Size, pulse.Seal, magic+1, version), "it begins with"},
		{"is zero", memfd(t, pulse.Size, pulse.Seal, 0, 0), "it begins with"},
		{"is newer", memfd(t, pulse.Size, pulse.Seal, magic, version+1), "layout version"},
		{"is older", memfd(t, pulse.Size, pulse.Seal, magic, version-1), "layout version"},
		{"is a file", regular, ""},
		{"is a pipe", r, "not a memfd"},
		{"is read-only", readOnly, "mmap: permission denied"},
		{"is closed", closed, "use of closed file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := pulse.Open(tt.file)
			require.Error(t, err)
			assert.Nil(t, p)
			assert.Contains(t, err.Error(), "open a pulse page: ")
			assert.Contains(t, err.Error(), tt.want)
		})
	}
}

// TestNobodyCanTakeTheMemoryAway does what a broken process could do with its
// descriptor of the page.
func TestNobodyCanTakeTheMemoryAway(t *testing.T) {
	p := newPage(t)
	p.Slot(0).Accepted()
	fd := int(p.File().Fd())
	assert.ErrorIs(t, unix.Ftruncate(fd, 0), unix.EPERM)
	assert.ErrorIs(t, unix.Ftruncate(fd, 1<<20), unix.EPERM)
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
	assert.ErrorIs(t, err, unix.EPERM)
	assert.EqualValues(t, 1, p.Slot(0).Accepts())

	// This it can do: the page reads as zero then.
	require.NoError(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, pulse.Size))
	useAll(p)
	assert.EqualValues(t, 1, p.Slot(0).Accepts())
}

// TestAnyContent reads pages that a broken process has written all over.
func TestAnyContent(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	fill := func(f func(i int) byte) []byte {
		b := make([]byte, pulse.Size)
		for i := range b {
			b[i] = f(i)
		}
		return b
	}
	contents := map[string][]byte{
		"ones":    fill(func(int) byte { return 0xff }),
		"largest": fill(func(i int) byte { return [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}[i%8] }),
		"least":   fill(func(i int) byte { return [8]byte{7: 0x80}[i%8] }),
		"zeros":   fill(func(int) byte { return 0 }),
		"random":  fill(func(int) byte { return byte(random.Uint32()) }),
	}
	var samples []pulse.Sample
	for name, content := range contents {
		for _, reported := range []bool{false, true} {
			p := newPage(t)
			if reported {
				p.Report(0, 0, 0)
			}
			_, err := p.File().WriteAt(content, 0)
			require.NoError(t, err)
			for i := range pulse.Slots {
				assert.GreaterOrEqual(t, p.Slot(i).Waiting(), 0, name)
				assert.LessOrEqual(t, p.Slot(i).Waiting(), math.MaxInt32, name)
				p.Slot(i).Accepts()
				p.Slot(i).Busy()
			}
			samples = append(samples, p.Sample())
			useAll(p)
			samples = append(samples, p.Sample())
		}
	}
	for _, a := range samples {
		for _, b := range samples {
			d := a.Minus(b)
			assert.LessOrEqual(t, d.Requests, a.Requests)
			assert.LessOrEqual(t, d.Errors, d.Requests)
			assert.GreaterOrEqual(t, d.Latency, time.Duration(0))
			assert.LessOrEqual(t, d.Latency, a.Latency)
			assert.GreaterOrEqual(t, d.Mean(), time.Duration(0))
			for _, q := range []float64{0, 0.5, 0.999, 1} {
				assert.GreaterOrEqual(t, d.Quantile(q), time.Duration(0))
				assert.LessOrEqual(t, d.Quantile(q), pulse.Upper(pulse.NBuckets-1))
			}
		}
	}
}

const countPerProcess = 20_000

// count is the other process of TestTwoProcessesCount: it gets the page as its
// first extra file.
func count() {
	f := os.NewFile(3, "page")
	p, err := pulse.Open(f)
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	f.Close()
	os.Stdout.WriteString("mapped\n")
	bufio.NewReader(os.Stdin).ReadString('\n')
	countOn(p)
}

// countOn counts with two goroutines.
func countOn(p *pulse.Page) {
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range countPerProcess / 2 {
				p.Slot(7).Accepted()
				p.Observe(time.Microsecond, i%10 == 0)
			}
		})
	}
	wg.Wait()
}

func TestTwoProcessesCount(t *testing.T) {
	leak.Check(t)
	p := newPage(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = []*os.File{p.File()}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "mapped\n", line)
	require.NoError(t, in.Close())
	countOn(p)
	require.NoError(t, cmd.Wait())

	assert.EqualValues(t, 2*countPerProcess, p.Slot(7).Accepts())
	s := p.Sample()
	assert.EqualValues(t, 2*countPerProcess, s.Requests)
	assert.EqualValues(t, 2*countPerProcess/10, s.Errors)
	assert.Equal(t, 2*countPerProcess*time.Microsecond, s.Latency)
}
