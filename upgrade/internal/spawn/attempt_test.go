package spawn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
)

// fakeUpgrader is an Upgrader that does what the test says: what the real one
// does only if the moment is right.
type fakeUpgrader struct {
	calls   int
	upgrade func(call int) error // from 1
}

func (*fakeUpgrader) AddFile(string, *os.File) error { return nil }

func (f *fakeUpgrader) Upgrade() error {
	f.calls++
	return f.upgrade(f.calls)
}

func newFake(upgrade func(call int) error) (*Tableflip, *fakeUpgrader) {
	fake := &fakeUpgrader{upgrade: upgrade}
	return &Tableflip{
		logger:   slog.New(slog.DiscardHandler),
		upgrader: fake,
		path:     "/no/such/app",
		wd:       "/",
		slots:    firstSlot,
		in:       inheritance{stdout: -1, stderr: -1},
	}, fake
}

func TestRefusedIsTriedAgain(t *testing.T) {
	leak.Check(t)
	stdout := stdioLink(t)
	tf, fake := newFake(func(call int) error {
		assert.NotEqual(t, stdout, stdioLink(t))
		switch call {
		case 1, 4:
			return errors.New("process is not ready yet")
		case 2, 3:
			return errors.New("parent hasn't exited")
		default:
			return errors.New("can't start child: can't start process /no/such/app: fork/exec: argument list too long")
		}
	})
	_, err := tf.Start(t.Context(), nil, Program{})
	assert.EqualError(t, err, "start /no/such/app: argument list too long")
	assert.ErrorIs(t, err, unix.E2BIG)
	assert.Equal(t, 5, fake.calls)
	assert.Equal(t, stdout, stdioLink(t))
}

func TestRefusedForEver(t *testing.T) {
	leak.Check(t)
	stdout := stdioLink(t)
	ctx, cancel := context.WithCancel(t.Context())
	tf, _ := newFake(func(call int) error {
		if call == 3 {
			cancel()
		}
		return errors.New("process is not ready yet")
	})
	_, err := tf.Start(ctx, nil, Program{})
	assert.ErrorIs(t, err, context.Canceled)
	tf.waitFree(t)
	assert.Equal(t, stdout, stdioLink(t))
}

// TestSlowExec is about a program whose file takes its time, on a network file
// system that hangs: nobody waits for the process any more when it comes.
func TestSlowExec(t *testing.T) {
	leak.Check(t)
	stdout := stdioLink(t)
	called, goOn := make(chan struct{}), make(chan struct{})
	tf, _ := newFake(func(call int) error {
		if call > 1 {
			return errors.New("can't start child: no second time")
		}
		close(called)
		<-goOn
		// As tableflip does: with this stdout, and the sentinel.
		cmd := exec.Command("/bin/sleep", "1000")
		cmd.Env = []string{sentinelName + "=" + sentinelValue}
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			return err
		}
		err := cmd.Wait()
		return fmt.Errorf("child pid=%d exited: %w", cmd.Process.Pid, err)
	})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := tf.Start(ctx, nil, Program{})
		result <- err
	}()
	<-called
	cancel()
	assert.ErrorIs(t, <-result, context.Canceled)

	// The next one does not get in its way.
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		_, err := tf.Start(ctx, nil, Program{})
		result <- err
	}()
	cancel()
	assert.ErrorIs(t, <-result, context.Canceled)

	close(goOn)
	_, err := tf.Start(t.Context(), nil, Program{}) // waits for its end
	assert.EqualError(t, err, "start /no/such/app: no second time")
	assert.Equal(t, stdout, stdioLink(t))
	pids, err := children()
	require.NoError(t, err)
	assert.Empty(t, pids)
}

// waitFree waits until no attempt is under way.
func (t *Tableflip) waitFree(tt *testing.T) {
	t.mu.Lock()
	current := t.current
	t.mu.Unlock()
	if current != nil {
		assert.True(tt, current.isAbandoned())
		<-current.done
	}
}

func stdioLink(t *testing.T) (links [2]string) {
	for i := range links {
		var err error
		links[i], err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", i+1))
		require.NoError(t, err)
	}
	return links
}
