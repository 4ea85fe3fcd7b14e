package upgrade

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Whether bytes go by sendfile(2) and splice(2) cannot be seen from the outside, and
// whether a connection has the right methods does not prove it. So a process of its
// own forbids itself the system call, which then fails with an error of its own
// (seccomp(2)), and does the transfer: it must fail, and must not fail where the
// methods are hidden.

// forbid has a system call fail with EBADMSG in all threads of this process, for
// ever.
func forbid(number uint32) error {
	const (
		offsetNumber = 0 // of nr in struct seccomp_data
		load         = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jumpEqual    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		answer       = unix.BPF_RET | unix.BPF_K
	)
	filter := []unix.SockFilter{
		{Code: load, K: offsetNumber},
		{Code: jumpEqual, K: number, Jf: 1},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EBADMSG)},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	r, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	if r != 0 {
		return fmt.Errorf("seccomp: thread %d keeps out of it", r)
	}
	return nil
}

// withoutMethods hides all but those of net.Conn.
type withoutMethods struct{ net.Conn }

type hidingListener struct{ net.Listener }

func (l hidingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return withoutMethods{c}, err
}

const transferred = 9<<20 + 123 // more than two pieces, see copyPiece

// bigFile makes a file of that size.
func bigFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(size))
	require.NoError(t, f.Close())
	return path
}

// download serves a file by HTTP, and returns how much of it arrives.
func download(t *testing.T, _ string, hide bool) int64 {
	path := bigFile(t, transferred)
	server := HTTP(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })})
	if hide {
		server = &hidingServer{server}
	}
	k := listenOn(t, server).dial()
	_, err := io.WriteString(k, getA)
	require.NoError(t, err)
	r, err := http.ReadResponse(k.br, nil)
	if err != nil {
		return 0
	}
	n, _ := io.Copy(io.Discard, r.Body)
	return n
}

type hidingServer struct{ Server }

func (s *hidingServer) Serve(ln net.Listener) error {
	return s.Server.Serve(hidingListener{ln})
}

// relay copies between a connection of ours and another one, from or to it, and
// returns how much arrives.
func relay(t *testing.T, how string, hide bool) int64 {
	network, toOurs := "tcp", true
	switch how {
	case "from tcp to ours":
	case "from ours to tcp":
		toOurs = false
	case "from unix to ours":
		network = "unix"
	case "from ours to unix":
		network, toOurs = "unix", false
	}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "socket")
	}
	ln, err := net.Listen(network, address)
	require.NoError(t, err)
	defer ln.Close()
	s := listenOn(t, TCP(func(_ context.Context, c *Conn) {
		backend, err := net.Dial(network, ln.Addr().String())
		if !assert.NoError(t, err) {
			return
		}
		defer backend.Close()
		var ours net.Conn = c
		if hide {
			ours, backend = withoutMethods{c}, withoutMethods{backend}
		}
		if toOurs {
			_, _ = io.Copy(ours, backend)
		} else {
			_, _ = io.Copy(backend, ours)
		}
	}))
	var from, to net.Conn = s.dial(), nil
	to, err = ln.Accept()
	require.NoError(t, err)
	defer to.Close()
	if toOurs {
		from, to = to, from
	}
	go func() {
		_, _ = from.Write(make([]byte, transferred))
		_ = from.Close()
	}()
	n, _ := io.Copy(io.Discard, to)
	return n
}

// relayUnix copies from a connection of ours that is a unix socket to a TCP one.
func relayUnix(t *testing.T, _ string, hide bool) int64 {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	require.NoError(t, err)
	defer ln.Close()
	client, err := net.Dial("unix", ln.Addr().String())
	require.NoError(t, err)
	accepted, err := ln.Accept()
	require.NoError(t, err)
	ours := newListener("unix", nil, new(goodbyes), newPlaces()).admit(accepted)
	defer ours.Close()
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer backend.Close()
	to, err := net.Dial("tcp", backend.Addr().String())
	require.NoError(t, err)
	arrived, err := backend.Accept()
	require.NoError(t, err)
	defer arrived.Close()
	if hide {
		ours, to = withoutMethods{ours}, withoutMethods{to}
	}
	go func() {
		_, _ = client.Write(make([]byte, transferred))
		_ = client.Close()
	}()
	go func() {
		_, _ = io.Copy(to, ours)
		_ = ours.Close() // the client may still write
		_ = to.Close()
	}()
	n, _ := io.Copy(io.Discard, arrived)
	return n
}

func TestSendfileAndSpliceArePreserved(t *testing.T) {
	const forbidden, hidden = "UPGRADE_TEST_FORBIDDEN", "UPGRADE_TEST_HIDDEN"
	for _, tt := range []struct {
		name     string
		how      string
		number   uint32
		transfer func(t *testing.T, how string, hide bool) int64
	}{
		{"file", "", unix.SYS_SENDFILE, download},
		{"from TCP", "from tcp to ours", unix.SYS_SPLICE, relay},
		{"to TCP", "from ours to tcp", unix.SYS_SPLICE, relay},
		{"from a unix socket", "from unix to ours", unix.SYS_SPLICE, relay},
		{"to a unix socket", "from ours to unix", unix.SYS_SPLICE, relay},
		{"from a unix socket of ours", "", unix.SYS_SPLICE, relayUnix},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if os.Getenv(forbidden) != "" { // the process of its own
				require.NoError(t, forbid(tt.number))
				n := tt.transfer(t, tt.how, os.Getenv(hidden) != "")
				fmt.Printf("arrived: %d\n", n)
				return
			}
			arrives := func(env string) string {
				cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
				cmd.Env = append(os.Environ(), forbidden+"=1", env)
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s", out)
				return string(out)
			}
			assert.EqualValues(t, transferred, tt.transfer(t, tt.how, false))
			all := fmt.Sprintf("arrived: %d\n", transferred)
			out := arrives("")
			assert.NotContains(t, out, all, "it goes without the system call")
			assert.Contains(t, out, "arrived: ")
			assert.Contains(t, arrives(hidden+"=1"), all, "otherwise it would")
		})
	}
}

// TestADownloadIsCountedWhileItGoesOn: who looks at a long one sees it move.
func TestADownloadIsCountedWhileItGoesOn(t *testing.T) {
	const size = 64 << 20
	path := bigFile(t, size)
	s := serveHTTP(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })})
	k := s.dial()
	_, err := io.WriteString(k, getA)
	require.NoError(t, err)
	r, err := http.ReadResponse(k.br, nil)
	require.NoError(t, err)
	c := s.ln.conns.All()[0]
	out := func() int64 {
		_, n := c.entry.Bytes()
		return n
	}
	read := int64(0)
	for _, part := range []int64{16 << 20, 16 << 20} {
		n, err := io.CopyN(io.Discard, r.Body, part)
		require.NoError(t, err)
		read += n
		require.Eventually(t, func() bool { return out() >= read-copyPiece }, time.Minute, time.Millisecond)
		assert.Less(t, out(), int64(size))
	}
	n, err := io.Copy(io.Discard, r.Body)
	require.NoError(t, err)
	assert.EqualValues(t, size, read+n)
	require.Eventually(t, func() bool { return out() > size && out() < size+1000 }, time.Minute, time.Millisecond, "the file and a header")
}

// TestARelayIsCountedWhileItGoesOn: a copy that need not end for hours, from
// something that is not a socket.
func TestARelayIsCountedWhileItGoesOn(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	s := listenOn(t, TCP(func(_ context.Context, c *Conn) { _, _ = io.Copy(c, r) }))
	k := s.dial()
	for i := range int64(3) {
		_, err := io.WriteString(w, "hello\n")
		require.NoError(t, err)
		_, err = k.br.ReadString('\n')
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			_, out := s.ln.conns.All()[0].entry.Bytes()
			return out == 6*(i+1)
		}, 5*time.Second, time.Millisecond)
	}
}
