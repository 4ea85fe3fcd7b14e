package activation_test

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/activation"
	"github.com/hdctl/handoff/test/leak"
)

func TestTakeTellsEveryKind(t *testing.T) {
	leak.Check(t)
	type kind = activation.Socket
	var fds []int
	var names []string
	var want []kind
	pass := func(fd int, s kind) {
		fds, names, want = append(fds, fd), append(names, s.Name), append(want, s)
	}

	fd, addr := systemdSocket(t, "tcp", "127.0.0.1:0")
	pass(fd, kind{Name: "http", Network: "tcp", Address: addr, Kind: activation.Stream})
	fd, addr = systemdSocket(t, "tcp", "[::]:0")
	pass(fd, kind{Name: "http", Network: "tcp", Address: addr, Index: 1, Kind: activation.Stream})
	fd, addr = systemdSocket(t, "udp", "127.0.0.1:0")
	pass(fd, kind{Name: "dns", Network: "udp", Address: addr, Kind: activation.Packet})
	fd, addr = systemdSocket(t, "unix", tempSocket(t))
	pass(fd, kind{Name: "http", Network: "unix", Address: addr, Index: 2, Kind: activation.Stream})
	fd, addr = systemdSocket(t, "unixpacket", tempSocket(t))
	pass(fd, kind{Name: "seq", Network: "unixpacket", Address: addr, Kind: activation.Seqpacket})
	fd, addr = systemdSocket(t, "unixgram", tempSocket(t))
	pass(fd, kind{Name: "log", Network: "unixgram", Address: addr, Kind: activation.Packet})
	fd, addr = systemdSocket(t, "unix", abstractSocket())
	pass(fd, kind{Name: "app.socket", Network: "unix", Address: addr, Kind: activation.Stream})
	fd, addr = connection(t)
	pass(fd, kind{Name: "connection", Network: "tcp", Address: addr, Kind: activation.Connection})
	fd, addr = fifo(t)
	pass(fd, kind{Name: "fifo", Network: "fifo", Address: addr})
	pass(netlink(t), kind{Name: "udev", Network: "netlink", Address: "kobject-uevent 1"})
	pass(open(t, "/dev/null"), kind{Name: "special", Network: "char", Address: "/dev/null"})
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	pass(open(t, file), kind{Name: "stored", Network: "file", Address: file})

	var got taken
	systemd{child: "take", fds: fds, env: passing(names...)}.run(t, &got)
	assert.Empty(t, got.Err)
	assert.True(t, got.Activated)
	assert.Equal(t, want, got.All)
	assert.Empty(t, got.Environ)
	assert.Equal(t, []bool{true, true, true}, got.CloseExec)
}

func TestTakeNames(t *testing.T) {
	tests := []struct {
		name  string
		env   []string
		names []string
	}{
		{"all named", passing("a", "b", "c"), []string{"a", "b", "c"}},
		{"no variable", []string{"LISTEN_PID=" + self, "LISTEN_FDS=3"}, []string{"unknown", "unknown", "unknown"}},
		{"fewer names", []string{"LISTEN_PID=" + self, "LISTEN_FDS=3", "LISTEN_FDNAMES=a:b"}, []string{"a", "b", "unknown"}},
		{"empty name", []string{"LISTEN_PID=" + self, "LISTEN_FDS=3", "LISTEN_FDNAMES=a::c"}, []string{"a", "unknown", "c"}},
		{"nothing is escaped", passing(`a\x3ab`, "b c", "%41"), []string{`a\x3ab`, "b c", "%41"}},
		{"fewer descriptors than open", []string{"LISTEN_PID=" + self, "LISTEN_FDS=2", "LISTEN_FDNAMES=a:b"}, []string{"a", "b"}},
	}
	fd, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leak.Check(t)
			var got taken
			systemd{child: "take", fds: []int{fd, fd, fd}, env: tt.env}.run(t, &got)
			require.Empty(t, got.Err)
			var names []string
			for _, s := range got.All {
				names = append(names, s.Name)
			}
			assert.Equal(t, tt.names, names)
			assert.True(t, got.Activated)
			assert.True(t, got.NameError, got.Bind)
		})
	}
}

func TestTakeErrors(t *testing.T) {
	env := func(fds, names string) []string {
		return []string{"LISTEN_PID=" + self, "LISTEN_FDS=" + fds, "LISTEN_FDNAMES=" + names}
	}
	tests := []struct {
		name  string
		child string
		env   []string
		want  string
	}{
		{"garbage", "take", env("two", ""), `LISTEN_FDS="two" is not a number of descriptors`},
		{"negative", "take", env("-1", ""), `LISTEN_FDS="-1" is not a number of descriptors`},
		{"too large for a descriptor", "take", env("2147483647", ""), `LISTEN_FDS="2147483647" is not a number of descriptors`},
		{"too large for an int", "take", env("99999999999999999999", ""), `LISTEN_FDS="99999999999999999999" is not a number of descriptors`},
		{"more names than descriptors", "take", env("1", "a:b"), `LISTEN_FDNAMES="a:b" has 2 names for 1 descriptors`},
		{"pid is garbage", "take", []string{"LISTEN_PID=auto", "LISTEN_FDS=1"}, `LISTEN_PID="auto" is not a number`},
		{"pidfd id is garbage", "take", append(env("1", "a"), "LISTEN_PIDFDID=x"), `LISTEN_PIDFDID="x" is not a number`},
		{"taken by another library", "take late", env("1", "a"), `descriptor 3 ("a") was opened by this process or taken by another library`},
	}
	fd, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leak.Check(t)
			var got taken
			systemd{child: tt.child, fds: []int{fd}, env: tt.env}.run(t, &got)
			assert.Contains(t, got.Err, "take sockets from systemd: "+tt.want)
			assert.Empty(t, got.Environ)
		})
	}

	// Whether the number behind the last one is closed or one of the Go runtime's
	// own is up to the runtime.
	t.Run("more than are open", func(t *testing.T) {
		for _, count := range []string{"2", "3", "100000", "2147483644"} {
			var got taken
			systemd{child: "take", fds: []int{fd}, env: env(count, "a:b")}.run(t, &got)
			assert.Regexp(t, `^take sockets from systemd: descriptor 4 \("b"\) (is not open|was opened by this process .*), but LISTEN_FDS=`+
				count+` announces 3 to `, got.Err)
			assert.True(t, got.CloseExec[0], "the one that is there does not leak")
		}
	})
}

func TestTakeLeavesTheSocketsOfOthersAlone(t *testing.T) {
	tests := []struct {
		name string
		env  []string
	}{
		{"other PID", []string{"LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=a"}},
		{"no such PID", []string{"LISTEN_PID=" + someoneID, "LISTEN_FDS=1"}},
		{"no PID", []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=a", "LISTEN_PIDFDID=7"}},
		{"empty PID", []string{"LISTEN_PID=", "LISTEN_FDS=1"}},
		{"stale SYSTEMD_EXEC_PID", []string{"LISTEN_PID=1", "SYSTEMD_EXEC_PID=1", "LISTEN_FDS=1"}},
		{"garbage count for another", []string{"LISTEN_PID=1", "LISTEN_FDS=many", "LISTEN_FDNAMES=:::"}},
	}
	fd, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leak.Check(t)
			var got taken
			systemd{child: "take", fds: []int{fd}, env: tt.env}.run(t, &got)
			assert.Empty(t, got.Err)
			assert.False(t, got.Activated)
			assert.Empty(t, got.All)
			assert.Empty(t, got.Environ, "stale variables are removed")
			assert.False(t, got.CloseExec[0], "the descriptor is not touched")
			assert.Empty(t, got.Bind, "it binds")
		})
	}
}

func TestTakePidfdID(t *testing.T) {
	leak.Check(t)
	fd, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	run := func(id string) (got taken) {
		systemd{child: "take", fds: []int{fd}, env: []string{
			"LISTEN_PID=" + self, "LISTEN_PIDFDID=" + id, "LISTEN_FDS=1", "LISTEN_FDNAMES=http",
		}}.run(t, &got)
		return got
	}

	got := run(pidfdID)
	assert.Empty(t, got.Err)
	assert.True(t, got.Activated)
	assert.Len(t, got.All, 1)
	assert.Empty(t, got.Environ)

	got = run(otherID)
	assert.Empty(t, got.Err)
	assert.Empty(t, got.Environ)
	if activation.OwnPidfdID() == 0 {
		// This kernel has no such numbers: the PID has to do.
		assert.Len(t, got.All, 1)
		return
	}
	assert.Empty(t, got.All, "they were for an earlier process with this PID")
	assert.False(t, got.Activated)
	assert.False(t, got.CloseExec[0])
}

// systemd starts a service whose sockets are not active, if the unit lets it.
func TestStartedBySystemdWithoutSockets(t *testing.T) {
	leak.Check(t)
	var got taken
	systemd{child: "take", env: []string{"SYSTEMD_EXEC_PID=" + self}}.run(t, &got)
	assert.True(t, got.Activated)
	assert.True(t, got.NameError)
	assert.Equal(t, `activation: no socket named "not passed" was passed, nor any other: the service was started without its .socket unit;`+
		` give the service Requires= and After= that unit, with FileDescriptorName=not passed in it, and start both again`, got.Bind)

	// A count of nothing is the same.
	systemd{child: "take", env: []string{"LISTEN_PID=" + self, "LISTEN_FDS=0"}}.run(t, &got)
	assert.True(t, got.Activated)
	assert.True(t, got.NameError)
}

func TestTakeOnce(t *testing.T) {
	tests := []struct {
		name, order string
		env         []string
		want        []string
	}{
		{"take twice", "take take", passing("http"), []string{"ok", "taken"}},
		{"take, then listen", "take listen listen", passing("http"), []string{"ok", "taken", "taken"}},
		{"listen, then take", "listen take", passing("http"), []string{"ok", "taken"}},
		{"listen twice", "listen listen", passing("http"), []string{"ok", "claimed"}},
		{"bound twice", "listen listen", nil, []string{"ok", "claimed"}},
		{
			"after a failure", "take take",
			[]string{"LISTEN_PID=" + self, "LISTEN_FDS=x"},
			[]string{`error: take sockets from systemd: LISTEN_FDS="x" is not a number of descriptors`, "taken"},
		},
		{
			"listen keeps failing", "listen listen take",
			[]string{"LISTEN_PID=" + self, "LISTEN_FDS=x"},
			[]string{
				`error: take sockets from systemd: LISTEN_FDS="x" is not a number of descriptors`,
				`error: take sockets from systemd: LISTEN_FDS="x" is not a number of descriptors`,
				"taken",
			},
		},
	}
	fd, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leak.Check(t)
			var got []string
			systemd{child: "order", fds: []int{fd}, env: append(tt.env, "ORDER="+tt.order)}.run(t, &got)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestListenSharesOneSet(t *testing.T) {
	leak.Check(t)
	tcp, tcpAddr := systemdSocket(t, "tcp", "127.0.0.1:0")
	unix, unixAddr := systemdSocket(t, "unix", tempSocket(t))
	udp, udpAddr := systemdSocket(t, "udp", "127.0.0.1:0")
	var got map[string]string
	systemd{child: "listen", fds: []int{unix, tcp, udp}, env: passing("admin", "http", "dns")}.run(t, &got)
	assert.Equal(t, map[string]string{
		"http": "", "http address": "tcp " + tcpAddr,
		"admin": "", "admin address": "unix " + unixAddr,
		"dns": "", "dns address": "udp " + udpAddr,
	}, got)
	assert.FileExists(t, unixAddr)
}

func TestListenBindsWithoutSystemd(t *testing.T) {
	leak.Check(t)
	path := tempSocket(t)
	var got map[string]string
	systemd{child: "listen", env: []string{"ADMIN=" + path}}.run(t, &got)
	assert.Empty(t, got["http"])
	assert.Regexp(t, `^tcp 127\.0\.0\.1:[1-9]`, got["http address"])
	assert.Equal(t, "unix "+path, got["admin address"])
	assert.Regexp(t, `^udp 127\.0\.0\.1:[1-9]`, got["dns address"])
	assert.NoFileExists(t, path, "bound here: removed at Close, as package net does")
}

func TestListenTakesExactlyOne(t *testing.T) {
	leak.Check(t)
	a, addrA := systemdSocket(t, "tcp", "127.0.0.1:0")
	b, addrB := systemdSocket(t, "tcp", "127.0.0.1:0")
	var got []string
	systemd{child: "order", fds: []int{a, b}, env: append(passing("http", "http"), "ORDER=listen listen")}.run(t, &got)
	want := `error: claim socket "http": 2 sockets have this name, from ` + addrA + " to " + addrB +
		", and the program takes one: use Take and the methods of Sockets, or a socket unit for each"
	assert.Equal(t, []string{want, want}, got, "and claims none")
}

// The environment of systemd's child reaches its descendants. Descriptors must not.
func TestCloseOnExec(t *testing.T) {
	leak.Check(t)
	a, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	b, _ := systemdSocket(t, "unixgram", tempSocket(t))
	var got inherits
	systemd{child: "helper", fds: []int{a, b}, env: passing("http", "log")}.run(t, &got)
	for _, fd := range []int{a, b} {
		assert.Contains(t, got.Before, inode(t, fd), "or this test sees nothing")
		assert.NotContains(t, got.After, inode(t, fd))
	}
	assert.GreaterOrEqual(t, len(got.After), 3, "stdin, stdout, stderr")
}

// systemd owns the sockets: nothing that a service does with them takes them away
// from the next one.
func TestSystemdOwnsTheSockets(t *testing.T) {
	leak.Check(t)
	names := []string{"tcp", "unix", "abstract", "seqpacket", "udp", "unixgram", "fifo", "tcp"}
	networks := []string{"tcp", "unix", "unix", "unixpacket", "udp", "unixgram", "fifo", "tcp"}
	addresses := []string{"127.0.0.1:0", tempSocket(t), abstractSocket(), tempSocket(t), "127.0.0.1:0", tempSocket(t), "", "[::1]:0"}
	fds := make([]int, len(names))
	for i, network := range networks {
		if network == "fifo" {
			fds[i], addresses[i] = fifo(t)
		} else {
			fds[i], addresses[i] = systemdSocket(t, network, addresses[i])
		}
	}
	files := make(map[string]os.FileInfo)
	for _, i := range []int{1, 3, 5, 6} {
		info, err := os.Stat(addresses[i])
		require.NoError(t, err)
		files[addresses[i]] = info
	}

	// Three times the same service, and clients in between: they are in the backlog
	// when it starts.
	for range 3 {
		tcp := dial(t, "tcp", addresses[0])
		p := systemd{child: "serve", fds: fds, env: passing(names...)}.start(t)
		assert.Equal(t, "tcp 0\n", tcp())
		assert.Equal(t, "unix 0\n", dial(t, "unix", addresses[1])())
		assert.Equal(t, "abstract 0\n", dial(t, "unix", addresses[2])())
		assert.Equal(t, "seqpacket 0\n", dial(t, "unixpacket", addresses[3])())
		assert.Equal(t, "udp\n", ask(t, "udp", addresses[4]))
		assert.Equal(t, "unixgram\n", ask(t, "unixgram", addresses[5]))
		assert.Equal(t, "tcp 1\n", dial(t, "tcp", addresses[7])())
		require.NoError(t, os.WriteFile(addresses[6], []byte("through the fifo\n"), 0))
		var line string
		p.wait(t, &line)
		assert.Equal(t, "through the fifo\n", line)
		for path, info := range files {
			now, err := os.Stat(path)
			if assert.NoError(t, err) {
				assert.True(t, os.SameFile(info, now), path)
			}
		}
	}
}

// patience ends a test that would wait for ever, since a backlog has no end.
const patience = 20 * time.Second

// dial connects, which the backlog answers, and returns a function that reads the
// first line from whoever accepts.
func dial(t *testing.T, network, address string) func() string {
	t.Helper()
	c, err := net.Dial(network, address)
	require.NoError(t, err)
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return func() string {
		defer c.Close()
		line, err := bufio.NewReader(c).ReadString('\n')
		assert.NoError(t, err)
		return line
	}
}

// ask sends a datagram and returns the answer.
func ask(t *testing.T, network, address string) string {
	t.Helper()
	var c net.Conn
	var err error
	if network == "unixgram" {
		local := abstractSocket()
		c, err = net.DialUnix(network, &net.UnixAddr{Name: local, Net: network}, &net.UnixAddr{Name: address, Net: network})
	} else {
		c, err = net.Dial(network, address)
	}
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, err = c.Write([]byte("question"))
	require.NoError(t, err)
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	require.NoError(t, err)
	return string(buf[:n])
}

// The parent is systemd's child and did not exec.
func TestWrapperThatDoesNotExec(t *testing.T) {
	leak.Check(t)
	fd, addr := systemdSocket(t, "tcp", "127.0.0.1:0")
	var got map[string]string
	systemd{child: "wrapped", fds: []int{fd}, env: []string{"LISTEN_PID=" + strconv.Itoa(os.Getpid()), "LISTEN_FDS=1", "ADDRESS=" + addr}}.run(t, &got)
	assert.Contains(t, got["err"], "systemd passed sockets to process "+strconv.Itoa(os.Getpid())+
		", the parent of this one; it has to exec this program, not to start it")
	assert.Contains(t, got["err"], "address already in use")
}
