package watch_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/watch"
)

// childEnv makes this test binary the process that is watched.
const childEnv = "WATCH_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		serve()
		return
	}
	leak.Main(m)
}

// patience is for what must come. Nothing waits that long in a run that passes.
const patience = 20 * time.Second

// service is a process that accepts, and does what it is told.
type service struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    *os.File
	out   *bufio.Reader
	page  *pulse.Page
	ln    net.Listener
	fd    int // a duplicate of its socket, not in the netpoller
	pidfd int
}

// slot is that of the service's socket.
const slot = 3

func startService(t *testing.T) *service {
	t.Helper()
	s := &service{t: t}
	var err error
	s.page, err = pulse.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.page.Close()) })
	s.ln, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { s.ln.Close() })
	lnFile, err := s.ln.(*net.TCPListener).File()
	require.NoError(t, err)
	defer lnFile.Close()
	s.fd, err = unix.FcntlInt(lnFile.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, unix.Close(s.fd)) })

	inR, inW, err := os.Pipe()
	require.NoError(t, err)
	outR, outW, err := os.Pipe()
	require.NoError(t, err)
	s.in, s.out = inW, bufio.NewReader(outR)
	s.cmd = exec.Command("/proc/self/exe")
	s.cmd.Env = append(os.Environ(), childEnv+"=1", "GORACE=atexit_sleep_ms=0")
	s.cmd.ExtraFiles = []*os.File{lnFile, s.page.File()}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = inR, outW, os.Stderr
	require.NoError(t, s.cmd.Start())
	inR.Close()
	outW.Close()
	s.pidfd, err = unix.PidfdOpen(s.pid(), 0)
	require.NoError(t, err)
	t.Cleanup(func() {
		s.kill(unix.SIGKILL)
		s.cmd.Wait()
		unix.Close(s.pidfd)
		inW.Close()
		outR.Close()
	})
	s.tell("hello")
	return s
}

func (s *service) pid() int { return s.cmd.Process.Pid }

// tell has the service do something, and waits until it is done.
func (s *service) tell(format string, args ...any) {
	s.t.Helper()
	_, err := fmt.Fprintf(s.in, format+"\n", args...)
	require.NoError(s.t, err)
	answer, err := s.out.ReadString('\n')
	require.NoError(s.t, err, format)
	require.Equal(s.t, "ok\n", answer)
}

// kill sends a signal; the process may have ended.
func (s *service) kill(sig unix.Signal) {
	s.t.Helper()
	if err := unix.PidfdSendSignal(s.pidfd, sig, nil, 0); !errors.Is(err, unix.ESRCH) {
		require.NoError(s.t, err)
	}
}

// dial has a client come, which waits until the end of the test.
func (s *service) dial() {
	s.t.Helper()
	c, err := net.Dial("tcp", s.ln.Addr().String())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
}

// awaitAccepts waits until n clients have been accepted in all.
func (s *service) awaitAccepts(n uint64) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return s.page.Slot(slot).Accepts() == n }, patience, time.Millisecond)
}

func (s *service) target() watch.Target {
	return watch.Target{
		PID:     s.pid(),
		Page:    s.page,
		Sockets: []watch.Socket{{Slot: slot, FD: s.fd, Name: "http"}},
	}
}

// findings is what a watcher has reported.
type findings struct {
	t  *testing.T
	w  *watch.Watcher
	ch chan watch.Finding
}

const interval = 2 * time.Millisecond

func observe(t *testing.T, target watch.Target, l watch.Limits) *findings {
	t.Helper()
	f := &findings{t: t, ch: make(chan watch.Finding, 100)}
	f.w = watch.Start(target, l, interval, func(x watch.Finding) { f.ch <- x })
	t.Cleanup(f.w.Stop)
	return f
}

// next waits for the next finding.
func (f *findings) next() watch.Finding {
	f.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case x := <-f.ch:
		return x
	case <-timer.C:
		require.FailNow(f.t, "nothing was found")
		return watch.Finding{}
	}
}

// none checks that nothing has been found by the time that a watcher with the same
// pace finds what goes on twice as long as the limit.
func (f *findings) none(limit time.Duration) {
	f.t.Helper()
	page, err := pulse.New()
	require.NoError(f.t, err)
	defer page.Close()
	page.Slot(0).SetWaiting(1)
	control := observe(f.t, watch.Target{
		PID:     os.Getpid(),
		Page:    page,
		Sockets: []watch.Socket{{FD: -1}},
	}, watch.Limits{Stalled: 2 * limit})
	require.Equal(f.t, watch.Stalled, control.next().Kind)
	control.w.Stop()
	select {
	case x := <-f.ch:
		assert.Fail(f.t, "found", "%+v", x)
	default:
	}
}

// serve is the process of startService.
func serve() {
	lnFile, pageFile := os.NewFile(3, "socket"), os.NewFile(4, "page")
	page := must(pulse.Open(pageFile))
	own := page.Slot(slot)
	ln := must(net.FileListener(lnFile)).(*net.TCPListener)
	lnFile.Close()
	pageFile.Close()

	var accepting sync.WaitGroup
	accept := func() {
		ln.SetDeadline(time.Time{})
		accepting.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				own.Accepted()
				go func() { _, _ = io.Copy(io.Discard, c) }() // the clients stay
			}
		})
	}
	accept()

	var memory []byte
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		command, arg, _ := strings.Cut(in.Text(), " ")
		n := 0
		fmt.Sscan(arg, &n)
		switch command {
		case "hello":
		case "hang":
			ln.SetDeadline(time.Unix(1, 0))
			accepting.Wait()
		case "accept":
			accept()
		case "busy":
			own.SetBusy(n != 0)
		case "waiting":
			own.SetWaiting(n)
		case "accepted":
			own.Accepted()
		case "touch": // MiB
			memory = make([]byte, n<<20)
			for i := 0; i < len(memory); i += 4096 {
				memory[i] = 1
			}
		case "exit":
			os.Exit(n)
		default:
			panic(command)
		}
		fmt.Println("ok")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
