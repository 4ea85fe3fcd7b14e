package transfer_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// childEnv makes the test binary a taker. Its value is how many descriptors the
// taker has left, or one of these.
const (
	childEnv = "TRANSFER_TEST_CHILD"

	plenty   = "plenty"
	dropping = "dropping" // plenty, and it closes at once what it has adopted
)

// child adopts what comes over descriptor 3, and writes to descriptor 4 what it
// has committed. It ends when its input does.
func child(free string) {
	if err := take(free); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func take(free string) error {
	conn, err := link.NewFD(3)
	if err != nil {
		return err
	}
	before := len(leak.FDs()) // with those of the netpoller, that came with the link
	log := os.NewFile(4, "log")
	defer log.Close()
	restore := func() {}
	if n, err := strconv.Atoi(free); err == nil {
		if restore, err = exhaust(n); err != nil {
			return err
		}
	}
	h := newHouse()
	r := transfer.Receive(conn, 4, func(o link.Offer, files []*os.File) (transfer.Adoption, error) {
		if free == dropping {
			c, err := net.FileConn(files[0])
			return closing{c}, err
		}
		a, err := h.adopt(o, files)
		if err != nil {
			return nil, err
		}
		return &logged{a, o.Label, log}, nil
	})
	if free == dropping {
		fmt.Fprintln(log, "ready")
	}
	<-r.Done()
	fmt.Fprintln(log, "done")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	h.serving.Wait()
	restore()
	if after := leak.FDs(); len(after) != before-1 { // the link is closed
		return fmt.Errorf("%d descriptors before, now %s", before, strings.Join(after, "\n"))
	}
	return nil
}

// exhaust leaves this process n descriptors, and no more.
func exhaust(n int) (restore func(), err error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	limit.Cur = 256 // soon reached
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	var fds []int
	for {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		if errors.Is(err, unix.EMFILE) {
			break
		}
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	for range n {
		unix.Close(fds[0])
		fds = fds[1:]
	}
	return func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}, nil
}

type logged struct {
	transfer.Adoption
	label string
	log   *os.File
}

func (l *logged) Commit() {
	fmt.Fprintln(l.log, l.label)
	l.Adoption.Commit()
}

// A process is a taker in a process of its own.
type process struct {
	cmd   *exec.Cmd
	input io.Closer
	log   *bufio.Scanner
	far   *os.File // the taker's end of the link

	committed map[string]int
}

func start(t testing.TB, free string, window int) (*process, *sender) {
	t.Helper()
	ours, theirs, err := link.Pair()
	require.NoError(t, err)
	conn, err := link.New(ours)
	require.NoError(t, err)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+free)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs, w}
	input, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	require.NoError(t, w.Close())
	p := &process{cmd, input, bufio.NewScanner(r), theirs, map[string]int{}}
	t.Cleanup(func() {
		p.far.Close()
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return p, newSender(conn, window)
}

// await waits until the taker has committed n more, or says that it is done, or
// is dead.
func (p *process) await(n int) {
	for range n {
		if !p.log.Scan() || p.log.Text() == "done" {
			return
		}
		p.committed[p.log.Text()]++
	}
}

const all = 1 << 30

// end has the taker end when its clients have gone. It complains if it has
// leaked a descriptor.
func (p *process) end(t testing.TB) {
	t.Helper()
	require.NoError(t, p.input.Close())
	require.NoError(t, p.cmd.Wait())
}

func TestGiveToProcess(t *testing.T) {
	leak.Check(t)
	clients := dialAll(t, 300)
	p, s := start(t, plenty, 32)
	require.NoError(t, p.far.Close())
	served := giveAll(t, s, clients)()
	require.NoError(t, s.Close())
	p.await(all)
	assert.Equal(t, len(clients), requireOneOwner(t, clients, p.committed))
	served()
	p.end(t)
}

// What a killed receiver had answered dies with it; all the rest goes on here.
func TestReceiverIsKilled(t *testing.T) {
	for _, test := range []struct {
		name     string
		copyOpen bool // a third process has the receiver's end open: there is no end of file
	}{{"and its end closed", false}, {"and its end stays open", true}} {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			clients := dialAll(t, 400)
			p, s := start(t, plenty, 64)
			if !test.copyOpen {
				require.NoError(t, p.far.Close())
			}
			wait := giveAll(t, s, clients)
			p.await(150)
			require.NoError(t, p.cmd.Process.Kill())
			require.Error(t, p.cmd.Wait())
			if test.copyOpen {
				s.Withdraw(errors.New("it is dead"))
			}
			<-s.Done()
			served := wait()
			p.await(all)

			died := 0
			for i, c := range clients {
				if c.given == nil {
					died++
					owner, err := c.ask()
					if err == nil { // the first line, while the receiver lived
						require.Equal(t, taker, owner)
						_, err = c.ask()
					}
					require.Error(t, err, "connection %d was given to a dead process, and is served", i)
					continue
				}
				require.ErrorIs(t, c.given, transfer.ErrWithdrawn)
				require.Zero(t, p.committed[strconv.Itoa(i)])
				c.requireOwner(t, giver)
			}
			t.Logf("%d died with the receiver, which had committed %d; %d stayed", died, len(p.committed), len(clients)-died)
			require.GreaterOrEqual(t, died, 150)
			require.Less(t, died, len(clients))
			served()
		})
	}
}

// A stopped receiver has no say: it is decided without it, and when it goes on it
// finds out.
func TestReceiverIsStoppedAndContinued(t *testing.T) {
	leak.Check(t)
	clients := dialAll(t, 400)
	p, s := start(t, plenty, 64)
	require.NoError(t, p.far.Close())
	wait := giveAll(t, s, clients)
	p.await(150)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	require.NoError(t, unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WSTOPPED, nil))
	s.Withdraw(errors.New("it stands still"))
	served := wait()
	kept := 0
	for _, c := range clients {
		if c.given == nil {
			continue
		}
		kept++
		owner, err := c.ask()
		require.NoError(t, err)
		require.Equal(t, giver, owner)
	}
	require.NotZero(t, kept)

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	p.await(all)
	taken := requireOneOwner(t, clients, p.committed)
	t.Logf("%d were given, %d stayed", taken, kept)
	assert.Equal(t, len(clients), taken+kept)
	served()
	p.end(t)
}

// The sender ends a connection whose copy a stopped receiver has not taken yet:
// the client notices at once.
func TestEndOfAConnectionOnTheWay(t *testing.T) {
	leak.Check(t)
	clients := dialAll(t, 20)
	p, s := start(t, plenty, 20)
	require.NoError(t, p.far.Close())
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	require.NoError(t, unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WSTOPPED, nil))
	wait := giveAll(t, s, clients)
	s.Withdraw(errors.New("it stands still"))
	served := wait()
	for _, c := range clients {
		c.requireOwner(t, giver) // up to the end of file
	}
	served()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	p.await(all)
	assert.Empty(t, p.committed)
	p.end(t)
}

// Each connection for which the receiver has no descriptor is refused by itself.
func TestReceiverWithoutDescriptors(t *testing.T) {
	for _, test := range []struct {
		free string
		most int
	}{{"0", 0}, {"40", 40}} {
		t.Run(test.free+" left", func(t *testing.T) {
			leak.Check(t)
			clients := dialAll(t, 150)
			p, s := start(t, test.free, 16)
			require.NoError(t, p.far.Close())
			served := giveAll(t, s, clients)()
			for _, c := range clients {
				if c.given != nil {
					var refused *transfer.Refused
					require.ErrorAs(t, c.given, &refused)
					require.Equal(t, transfer.CodeFiles, refused.Code)
				}
			}
			require.NoError(t, s.Close())
			p.await(all)
			taken := requireOneOwner(t, clients, p.committed)
			assert.LessOrEqual(t, taken, test.most)
			assert.Equal(t, test.most > 0, taken > 0)
			t.Logf("%d were taken, %d refused", taken, len(clients)-taken)
			served()
			p.end(t)
		})
	}
}
