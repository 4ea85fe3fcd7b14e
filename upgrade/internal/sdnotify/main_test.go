package sdnotify_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify/sdnotifytest"
)

// childEnv makes the test binary a service with that notify socket.
const childEnv = "SDNOTIFY_TEST_CHILD"

func TestMain(m *testing.M) {
	if address := os.Getenv(childEnv); address != "" {
		if err := service(address); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	leak.Main(m)
}

// service runs out of descriptors, and says that it lives.
func service(address string) error {
	// The runtime's poller, which every service has, cannot start without.
	r, w, err := os.Pipe()
	if err := errors.Join(err, r.Close(), w.Close()); err != nil {
		return err
	}
	n := sdnotify.New(address)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{}); err != nil {
		return err
	}
	if f, err := os.Open(os.DevNull); err == nil {
		return fmt.Errorf("open %s succeeded", f.Name())
	}
	return n.Send(sdnotify.Watchdog)
}

// start returns a fake systemd and a Notifier that talks to it.
func start(t *testing.T) (*sdnotify.Notifier, *sdnotifytest.Recorder) {
	t.Helper()
	systemd := sdnotifytest.New(t)
	n := sdnotify.New(systemd.Address())
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n, systemd
}

// next returns the datagram that must come now.
func next(t *testing.T, systemd *sdnotifytest.Recorder) sdnotifytest.Datagram {
	t.Helper()
	d, err := systemd.Next(t.Context())
	require.NoError(t, err)
	return d
}
