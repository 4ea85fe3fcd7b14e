package link_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
)

// childEnv makes the test binary the other generation; its end is descriptor 3.
const childEnv = "LINK_TEST_CHILD"

// child introduces itself, is introduced to a third generation, speaks to it,
// says its last words, and waits to be killed.
func child() {
	if err := successor(); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func successor() error {
	conn, err := link.NewFD(3)
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	self := os.NewFile(uintptr(fd), "pidfd")
	err = conn.Send(link.Hello{Min: link.MinVersion, Max: link.MaxVersion, PID: os.Getpid()}, self)
	if err != nil {
		return err
	}
	m, files, err := conn.Receive()
	if err != nil {
		return err
	}
	if _, ok := m.(link.Meet); !ok {
		return fmt.Errorf("got %v", m)
	}
	third, err := link.New(files[0])
	if err != nil {
		return err
	}
	if err := third.Send(link.Report{PID: os.Getpid(), State: "draining"}); err != nil {
		return err
	}
	if err := conn.Send(link.Stopping{Reason: "last words"}); err != nil {
		return err
	}
	_, _, err = conn.Receive()
	return fmt.Errorf("should be dead: %w", err)
}

func TestTwoProcesses(t *testing.T) {
	leak.Check(t)
	ours, theirs, err := link.Pair()
	require.NoError(t, err)
	conn, err := link.New(ours)
	require.NoError(t, err)
	defer conn.Close()

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	require.NoError(t, cmd.Start())
	// theirs stays open here: so there is no end of file when the child dies.
	defer theirs.Close()

	m, files := next(t, conn)
	hello := m.(link.Hello)
	assert.Equal(t, cmd.Process.Pid, hello.PID)
	require.Len(t, files, 1)
	pidfd := files[0]
	defer pidfd.Close()

	near, far, err := link.Pair()
	require.NoError(t, err)
	third, err := link.New(near)
	require.NoError(t, err)
	defer third.Close()
	require.NoError(t, conn.Send(link.Meet{Generation: 3, PID: os.Getpid()}, far, pidfd))
	require.NoError(t, far.Close())
	m, _ = next(t, third)
	assert.Equal(t, link.Report{PID: hello.PID, State: "draining"}, m)
	m, _ = next(t, conn)
	assert.Equal(t, link.Stopping{Reason: "last words"}, m)

	raw, err := pidfd.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		assert.NoError(t, unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0))
	}))
	require.Error(t, cmd.Wait())
	assert.Equal(t, syscall.SIGKILL, cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())

	// The only copy of the other end of third was the child's.
	_, _, err = third.Receive()
	require.ErrorIs(t, err, io.EOF)

	received := make(chan error)
	go func() {
		_, _, err := conn.Receive()
		received <- err
	}()
	conn.Finish()
	require.ErrorIs(t, <-received, io.EOF)
}
