package testbed

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Dial connects to a server inside, from this process: a test puts load on a
// service without a program inside. It fits [net/http.Transport.DialContext].
//
// An internet address is one of the testbed's network, where nothing but the
// loopback interface exists; a host must be an IP address or "localhost", which
// is 127.0.0.1. The path of a unix socket is one of the inside, and need not be
// short. The connection outlives neither its peer nor the testbed.
func (tb *Testbed) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if strings.HasPrefix(network, "unix") && !strings.HasPrefix(address, "@") {
		return tb.dialPath(ctx, network, address)
	}
	if !strings.HasPrefix(network, "unix") {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", address, err)
		}
		if host == "localhost" {
			address = net.JoinHostPort("127.0.0.1", port)
		} else if _, err := netip.ParseAddr(host); err != nil {
			// A resolver would ask on another thread, in the host's network.
			return nil, fmt.Errorf("dial %s: host is not an IP address", address)
		}
	}
	var conn net.Conn
	err := tb.inNetwork(func() (err error) {
		// With a single address it creates the socket in this goroutine.
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// dialPath connects to a unix socket of the file system.
func (tb *Testbed) dialPath(ctx context.Context, network, name string) (net.Conn, error) {
	fd, err := tb.open(name, unix.O_PATH)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: &net.UnixAddr{Name: name, Net: network}, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	return new(net.Dialer).DialContext(ctx, network, fmt.Sprintf("/proc/self/fd/%d", fd))
}

// inNetwork runs f, in another goroutine, on a thread that is in the testbed's
// network namespace. A socket belongs for ever to the namespace in which it was
// created, so that f may return one.
func (tb *Testbed) inNetwork(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := func() error {
			host, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer func() { _ = host.Close() }()
			if err := unix.Setns(int(tb.init.netns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace: %w", err)
			}
			err = f()
			if back := unix.Setns(int(host.Fd()), unix.CLONE_NEWNET); back == nil {
				// Otherwise the thread stays locked, and ends with the goroutine.
				runtime.UnlockOSThread()
			}
			return err
		}()
		result <- err
	}()
	return <-result
}
