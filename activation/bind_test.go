package activation_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/activation"
	"github.com/hdctl/handoff/test/leak"
)

func TestBind(t *testing.T) {
	tests := []struct {
		network, address string // "" for a path
		described        string // by Describe
		kind             activation.Kind
	}{
		{"tcp", "127.0.0.1:0", "tcp", activation.Stream},
		{"tcp4", "127.0.0.1:0", "tcp", activation.Stream},
		{"tcp6", "[::1]:0", "tcp", activation.Stream},
		{"tcp", ":0", "tcp", activation.Stream},
		{"unix", "", "unix", activation.Stream},
		{"unix", "@", "unix", activation.Stream},
		{"unixpacket", "", "unixpacket", activation.Seqpacket},
		{"udp", "127.0.0.1:0", "udp", activation.Packet},
		{"udp6", "[::1]:0", "udp", activation.Packet},
		{"unixgram", "", "unixgram", activation.Packet},
		{"unixgram", "@", "unixgram", activation.Packet},
	}
	for _, tt := range tests {
		t.Run(tt.network+tt.address, func(t *testing.T) {
			leak.Check(t)
			address := func() string {
				switch tt.address {
				case "":
					return tempSocket(t)
				case "@":
					return abstractSocket()
				default:
					return tt.address
				}
			}
			s := new(activation.Sockets)
			addr := address()
			if tt.kind == activation.Packet {
				conns, err := s.ListenPacket(t.Context(), "listen", tt.network, addr)
				require.NoError(t, err)
				require.Len(t, conns, 1)
				assert.NoError(t, conns[0].Close())
			} else {
				lns, err := s.Listen(t.Context(), "listen", tt.network, addr)
				require.NoError(t, err)
				require.Len(t, lns, 1)
				assert.NoError(t, lns[0].Close())
				if tt.address == "" {
					assert.NoFileExists(t, addr)
				}
			}

			addr = address()
			fds, err := s.ClaimFDs(t.Context(), "claim", tt.network, addr)
			require.NoError(t, err)
			require.Len(t, fds, 1)
			assert.Equal(t, activation.FD{Name: "claim", FD: fds[0].FD, Kind: tt.kind}, fds[0])
			assert.True(t, nonblocking(t, fds[0].FD))
			assert.True(t, closeOnExec(t, fds[0].FD))
			assert.Equal(t, 1, countFDs(t, fds[0].FD), "no listener waits for the garbage collector")
			network, described, err := activation.Describe(fds[0].FD)
			require.NoError(t, err)
			assert.Equal(t, tt.described, network)
			if strings.HasSuffix(addr, ":0") {
				_, port, err := net.SplitHostPort(described)
				require.NoError(t, err)
				assert.NotEqual(t, "0", port)
			} else {
				assert.Equal(t, addr, described)
			}

			_, err = s.ClaimFDs(t.Context(), "claim", tt.network, addr)
			assert.ErrorIs(t, err, activation.ErrClaimed)
			closeFDs(t, fds)
			if tt.address == "" {
				assert.FileExists(t, addr, "nobody removes it")
			}
			assert.Empty(t, s.All(), "which lists what was passed")
		})
	}
}

// What is bound as a descriptor is the same socket as before, for a later
// generation too: it accepts.
func TestBoundFDServes(t *testing.T) {
	leak.Check(t)
	fds, err := new(activation.Sockets).ClaimFDs(t.Context(), "x", "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, addr, err := activation.Describe(fds[0].FD)
	require.NoError(t, err)
	read := dial(t, "tcp", addr)

	lns, err := newSetOf(t, fds[0]).Listen(t.Context(), "x", "", "")
	require.NoError(t, err)
	go answer(lns[0], "hello")
	assert.Equal(t, "hello\n", read())
	require.NoError(t, lns[0].Close())
}

// newSetOf is the set of a successor that was handed this descriptor.
func newSetOf(t *testing.T, fd activation.FD) *activation.Sockets {
	t.Helper()
	s, err := activation.NewSockets(true, activation.NamedFD{Name: fd.Name, FD: fd.FD})
	require.NoError(t, err)
	return s
}

func TestBindSameNameForStreamAndDatagram(t *testing.T) {
	leak.Check(t)
	s := new(activation.Sockets)
	tcp, err := s.ClaimFDs(t.Context(), "dns", "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer closeFDs(t, tcp)
	udp, err := s.ClaimFDs(t.Context(), "dns", "udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer closeFDs(t, udp)
	_, err = s.Listen(t.Context(), "dns", "tcp", "127.0.0.1:0")
	assert.ErrorIs(t, err, activation.ErrClaimed)
}

func TestBindReplacesStaleSocket(t *testing.T) {
	for _, stale := range []string{"unix", "unixpacket", "unixgram"} {
		for _, network := range []string{"unix", "unixpacket", "unixgram"} {
			t.Run(network+" over "+stale, func(t *testing.T) {
				leak.Check(t)
				fd, path := systemdSocket(t, stale, tempSocket(t))
				s := new(activation.Sockets)

				_, err := s.ClaimFDs(t.Context(), "x", network, path)
				require.ErrorIs(t, err, unix.EADDRINUSE, "its process lives")
				assert.ErrorContains(t, err, `bind socket "x": listen `+network+" "+path)

				// The process dies; nobody removes the file.
				require.NoError(t, unix.Dup3(open(t, "/dev/null"), fd, unix.O_CLOEXEC))
				fds, err := s.ClaimFDs(t.Context(), "x", network, path)
				require.NoError(t, err, "the failure has not used up the name")
				closeFDs(t, fds)
			})
		}
	}
}

// Asking whether a socket is in use must not look like a client.
func TestBindDoesNotDisturbTheLiving(t *testing.T) {
	leak.Check(t)
	for _, network := range []string{"unix", "unixpacket"} {
		ln, err := net.ListenUnix(network, &net.UnixAddr{Name: tempSocket(t), Net: network})
		require.NoError(t, err)
		defer ln.Close()
		before, err := os.Stat(ln.Addr().String())
		require.NoError(t, err)

		_, err = new(activation.Sockets).Listen(t.Context(), "x", network, ln.Addr().String())
		assert.ErrorIs(t, err, unix.EADDRINUSE)

		require.NoError(t, ln.SetDeadline(time.Unix(1, 0)))
		_, err = ln.Accept()
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded, "no connection waits")
		after, err := os.Stat(ln.Addr().String())
		require.NoError(t, err)
		assert.True(t, os.SameFile(before, after))
	}

	// A socket that is bound and does not listen yet is alive too.
	path := tempSocket(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	closeLater(t, fd)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	_, err = new(activation.Sockets).Listen(t.Context(), "x", "unix", path)
	assert.ErrorIs(t, err, unix.EADDRINUSE)
}

func TestBindRemovesNothingElse(t *testing.T) {
	leak.Check(t)
	file := tempSocket(t)
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))

	fd, stale := systemdSocket(t, "unix", tempSocket(t))
	require.NoError(t, unix.Dup3(open(t, "/dev/null"), fd, unix.O_CLOEXEC))
	link := tempSocket(t)
	require.NoError(t, os.Symlink(stale, link))

	_, pipe := fifo(t)
	for _, path := range []string{file, link, pipe} {
		before, err := os.Lstat(path)
		require.NoError(t, err)
		_, err = new(activation.Sockets).Listen(t.Context(), "x", "unix", path)
		assert.ErrorIs(t, err, unix.EADDRINUSE, path)
		after, err := os.Lstat(path)
		require.NoError(t, err)
		assert.True(t, os.SameFile(before, after))
	}
	assert.FileExists(t, stale)

	// An abstract name is not the name of a file.
	t.Chdir(filepath.Dir(stale))
	name := abstractSocket()
	require.NoError(t, os.Rename(stale, "./"+name))
	lns, err := new(activation.Sockets).Listen(t.Context(), "x", "unix", name)
	require.NoError(t, err)
	require.NoError(t, lns[0].Close())
	assert.FileExists(t, "./"+name)
}

func TestBindErrors(t *testing.T) {
	leak.Check(t)
	s := new(activation.Sockets)
	_, err := s.Listen(t.Context(), "x", "tcp", "127.0.0.1:nowhere")
	assert.ErrorContains(t, err, `bind socket "x": listen tcp: `)
	_, err = s.Listen(t.Context(), "x", "unix", "/nonexistent/s")
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = s.ClaimFDs(t.Context(), "x", "udp", "192.0.2.1:0") // TEST-NET-1, RFC 5737
	assert.ErrorIs(t, err, unix.EADDRNOTAVAIL)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Listen(ctx, "x", "tcp", "name.invalid:0") // RFC 6761: never resolves
	assert.ErrorContains(t, err, "operation was canceled")
}
