package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/kinds/client"
	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/control"
)

// This test binary is the service, if asked to be.
func TestMain(m *testing.M) {
	if os.Getenv("HANDOFF_KINDS_TEST") != "" {
		main()
		os.Exit(0)
	}
	leak.Main(m)
}

// running is a service that binds by itself.
type running struct {
	control   control.Client
	addresses map[string]string // of each socket
	group     int
	ended     chan error // of the first process, when no generation is left
}

// start starts the service and waits until it serves. When the test is over nothing
// of it is left.
func start(t *testing.T) *running {
	t.Helper()
	r := &running{addresses: make(map[string]string), ended: make(chan error, 1)}
	args := []string{"-name", "kinds"}
	for _, name := range []string{"http", "grpc", "raw", "session"} {
		ln, err := net.Listen("tcp", "127.0.0.1:0") // a free port
		require.NoError(t, err)
		r.addresses[name] = ln.Addr().String()
		require.NoError(t, ln.Close())
		args = append(args, "-"+name, r.addresses[name])
	}
	r.control.Socket = filepath.Join(t.TempDir(), "control.sock")
	cmd := exec.Command(os.Args[0], args...)
	// Nobody says goodbye after an upgrade before the test is over.
	cmd.Env = append(os.Environ(), "HANDOFF_KINDS_TEST=1", "HANDOFF_CONTROL="+r.control.Socket,
		"HANDOFF_PROBATION=50ms", "HANDOFF_DRAIN_DELAY=1h", "HANDOFF_DRAIN_TIMEOUT=2h")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// All generations have this pipe: its end is that of the last one.
	out, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	r.group = cmd.Process.Pid
	serving := make(chan struct{}, 100)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(t.Output(), lines.Text())
			if strings.Contains(lines.Text(), "msg=serving") {
				serving <- struct{}{}
			}
		}
		r.ended <- cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-r.group, syscall.SIGKILL) // most often nobody is left
		<-r.ended
	})
	select {
	case <-serving:
	case err := <-r.ended:
		require.Fail(t, "the service ended", "%v", err)
	}
	return r
}

// stop is what systemctl stop does, and waits for the end of all generations.
func (r *running) stop(t *testing.T) {
	t.Helper()
	kill := time.AfterFunc(20*time.Second, func() {
		t.Error("the service had to be killed")
		_ = syscall.Kill(-r.group, syscall.SIGKILL)
	})
	defer kill.Stop()
	require.NoError(t, syscall.Kill(-r.group, syscall.SIGTERM))
	assert.NoError(t, <-r.ended)
}

func (r *running) dial(kind client.Kind) client.Dial {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", r.addresses[kind.Socket()])
	}
}

func (r *running) open(t *testing.T, kind client.Kind) *client.Conn {
	t.Helper()
	c, err := client.Open(t.Context(), kind, r.dial(kind))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func (r *running) openAll(t *testing.T) []*client.Conn {
	t.Helper()
	var all []*client.Conn
	for _, kind := range client.Kinds() {
		all = append(all, r.open(t, kind))
	}
	return all
}

func (r *running) upgrade(t *testing.T) {
	t.Helper()
	result, err := r.control.Upgrade(t.Context(), control.UpgradeRequest{}, func(control.Event) {})
	require.NoError(t, err)
	require.Equal(t, control.OutcomeConfirmed, result.Outcome)
}

func answeredBy(t *testing.T, c *client.Conn) int {
	t.Helper()
	generation, err := c.Alive(t.Context())
	require.NoError(t, err)
	return generation
}

func assertPolite(t *testing.T, c *client.Conn) {
	t.Helper()
	goodbye, err := c.Goodbye(t.Context())
	require.NoError(t, err)
	assert.Equal(t, c.Kind().Polite(), goodbye, "%s: %v", c.Kind(), c.Err())
}

func TestStopSaysGoodbye(t *testing.T) {
	r := start(t)
	all := r.openAll(t)
	for _, c := range all {
		assert.Equal(t, 1, answeredBy(t, c), c.Kind())
	}
	// Half a line, which keeps a session where it is.
	half, err := r.dial(client.Session)(t.Context())
	require.NoError(t, err)
	defer half.Close()
	_, err = half.Write([]byte("whole\nhal"))
	require.NoError(t, err)
	in := bufio.NewReader(half)
	line, err := in.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "1 1 whole\n", line)

	go func() {
		// The clients are silent, and leave when they have been told.
		for _, c := range all {
			<-c.Ended()
			c.Close()
		}
	}()
	line = ""
	read := make(chan struct{})
	go func() {
		defer close(read)
		line, _ = in.ReadString('\n')
		half.Close()
	}()
	r.stop(t)
	<-read
	assert.Equal(t, "goodbye\n", line)
	for _, c := range all {
		assertPolite(t, c)
	}
}

func TestUnaryCall(t *testing.T) {
	r := start(t)
	answer, err := client.Echo(t.Context(), r.dial(client.GRPC), "hello")
	require.NoError(t, err)
	assert.Equal(t, client.Answer{Generation: 1, Text: "hello"}, answer)
	r.stop(t)
}

// What was open goes on where it was, but for sessions: those move, and know what
// they knew.
func TestUpgrade(t *testing.T) {
	r := start(t)
	old := r.openAll(t)
	named, reluctant := r.open(t, client.Session), r.open(t, client.Session)
	_, err := named.Ask(t.Context(), "name Ada")
	require.NoError(t, err)
	_, err = reluctant.Ask(t.Context(), stay)
	require.NoError(t, err)

	for generation := 2; generation <= 3; generation++ {
		r.upgrade(t)
		for _, c := range old {
			if c.Kind() == client.Session {
				// It moves at once, but nobody waits for that.
				require.Eventually(t, func() bool { return answeredBy(t, c) == generation }, 20*time.Second, time.Millisecond)
				continue
			}
			assert.Equal(t, 1, answeredBy(t, c), c.Kind())
		}
		assert.Equal(t, 1, answeredBy(t, reluctant), "the successor refused it")
		for _, c := range r.openAll(t) {
			assert.Equal(t, generation, answeredBy(t, c), c.Kind())
			c.Close()
		}
	}
	before, err := named.Ask(t.Context(), "name")
	require.NoError(t, err)
	assert.Equal(t, client.Answer{Generation: 3, Count: 3, Text: "name Ada"}, before)
	label, err := named.Ask(t.Context(), "version")
	require.NoError(t, err)
	assert.Equal(t, "version dev", label.Text)

	all := append(old, named, reluctant)
	go func() {
		for _, c := range all {
			<-c.Ended()
			c.Close()
		}
	}()
	r.stop(t)
	for _, c := range all {
		assertPolite(t, c)
	}
}

func TestDialogue(t *testing.T) {
	var d dialogue
	for _, line := range []struct{ say, answer string }{
		{"hello, world", "4 1 hello, world\n"},
		{"", "4 2 \n"},
		{"name", "4 3 name \n"},
		{"name Ada Lovelace", "4 4 name Ada Lovelace\n"},
		{"name", "4 5 name Ada Lovelace\n"},
		{"version", "4 6 version dev\n"},
	} {
		assert.Equal(t, line.answer, d.answer(4, line.say))
	}
	s, err := d.encode()
	require.NoError(t, err)
	assert.Equal(t, dialogueVersion, s.Version)
	got, err := decodeDialogue(s.Version, s.Data)
	require.NoError(t, err)
	assert.Equal(t, &d, got)

	_, err = decodeDialogue(2, s.Data)
	assert.ErrorContains(t, err, "format 2")
	_, err = decodeDialogue(1, []byte("count"))
	assert.ErrorContains(t, err, "decode a session")
	d.answer(4, stay)
	s, err = d.encode()
	require.NoError(t, err)
	_, err = decodeDialogue(s.Version, s.Data)
	assert.ErrorContains(t, err, "wants to stay")
}
