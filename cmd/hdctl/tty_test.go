package main

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

// pty is a terminal of 40 columns and 12 lines, and what it was told.
type pty struct {
	*os.File          // the end for the program
	master   *os.File // the end of who looks at it
}

func newPTY(t *testing.T) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn() // master.Fd() would make it deaf to deadlines
	require.NoError(t, err)
	n := 0
	require.NoError(t, raw.Control(func(fd uintptr) {
		require.NoError(t, unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0))
		n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		require.NoError(t, err)
		require.NoError(t, unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 12, Col: 40}))
	}))
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { slave.Close() })
	return &pty{slave, master}
}

// readUntil reads what the program wrote until enough says so.
func (p *pty) readUntil(t *testing.T, enough func(string) bool) string {
	t.Helper()
	require.NoError(t, p.master.SetReadDeadline(time.Now().Add(30*time.Second)))
	var all bytes.Buffer
	buf := make([]byte, 4096)
	for !enough(all.String()) {
		n, err := p.master.Read(buf)
		require.NoError(t, err, all.String())
		all.Write(buf[:n])
	}
	return all.String()
}

// On a terminal, progress is one line that is rewritten, and gone at the end.
func TestProgressOnTerminal(t *testing.T) {
	a, stdout, _ := testApp(t)
	tty := newPTY(t)
	a.stderr = tty.File
	(&fakeService{Status: sampleStatus(), Upgrade: []control.Line{
		event(control.PhaseStart, 8, "generation 8 (pid 42) was started, and this line is long"),
		event(control.PhaseOutput, 8, "listening"),
		event(control.PhaseReady, 8, "ready"),
		{Result: &control.Result{Outcome: control.OutcomeConfirmed, From: 7, To: 8}},
	}}).run(t, a.runDir, "app")
	require.Equal(t, exitOK, a.run(t.Context(), []string{"upgrade", "app"}))
	assert.Equal(t, "app: upgraded 7 -> 8\n", stdout.String())
	_, err := tty.WriteString("END")
	require.NoError(t, err)
	want := "\rapp: start: generation 8 (pid 42) was >\x1b[K" +
		"\r\x1b[Kapp: | listening\r\n" +
		"\rapp: ready: ready\x1b[K" +
		"\r\x1b[K" +
		"END"
	assert.Equal(t, want, tty.readUntil(t, func(s string) bool { return strings.HasSuffix(s, "END") }))
}

// On a terminal, --watch draws in place, cuts what does not fit, and leaves the
// screen as it was.
func TestWatchOnTerminal(t *testing.T) {
	a, _, _ := testApp(t)
	tty := newPTY(t)
	a.stdout = tty.File
	a.env["TERM"] = "xterm"
	(&fakeService{Status: sampleStatus()}).run(t, a.runDir, "app")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	code := make(chan int)
	go func() { code <- a.run(ctx, []string{"status", "-w", "--interval=10ms"}) }()
	out := tty.readUntil(t, func(s string) bool { return strings.Count(s, endOfScreen) >= 3 })
	cancel()
	// The terminal has to be read, or the program cannot end.
	end := tty.readUntil(t, func(s string) bool { return strings.HasSuffix(s, leaveScreen) })
	assert.Equal(t, exitOK, <-code)

	assert.True(t, strings.HasPrefix(out, enterScreen+home), "%q", out)
	assert.Equal(t, 1, strings.Count(out+end, enterScreen))
	frames := strings.Split(out, home)
	for _, frame := range frames[1:4] {
		assert.Equal(t, 12, strings.Count(frame, endOfLine), "%q", frame)
		assert.Contains(t, frame, "\x1b[32mserving\x1b[0m generation 7")
		assert.Contains(t, frame, "..."+endOfLine+endOfScreen)
	}
}

// The same for a list that does not fit: its end says what is not shown. A
// warning is a part of the picture.
func TestConnsWatchOnTerminal(t *testing.T) {
	a, _, _ := testApp(t)
	tty := newPTY(t)
	a.stdout, a.stderr = tty.File, tty.File
	a.env["TERM"] = "xterm"
	f := &fakeService{Status: sampleStatus(), Conns: []control.Line{}}
	for i := range 20 {
		f.Conns = append(f.Conns, control.Line{Conn: &control.Conn{Generation: 6, Listener: "http", State: control.ConnIdle, Peer: "peer-" + strconv.Itoa(i), Age: float64(100 + i)}})
	}
	f.Conns = append(f.Conns, control.Line{End: &control.ConnsEnd{Total: 20, Missing: []control.MissingConns{{Generation: 5, Reason: "gone"}}}})
	f.run(t, a.runDir, "app")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	code := make(chan int)
	go func() { code <- a.run(ctx, []string{"conns", "-w", "--interval=10ms"}) }()
	out := tty.readUntil(t, func(s string) bool { return strings.Count(s, endOfScreen) >= 3 })
	cancel()
	end := tty.readUntil(t, func(s string) bool { return strings.HasSuffix(s, leaveScreen) })
	assert.Equal(t, exitUnknown, <-code, "of the last look")

	assert.Equal(t, 1, strings.Count(out+end, enterScreen))
	for _, frame := range strings.Split(out, home)[1:4] {
		lines := strings.Split(frame, endOfLine+"\r\r\n")
		require.Len(t, lines, 12, "%q", frame)
		assert.Contains(t, lines[2], "GEN  LISTENER  STATE")
		assert.Contains(t, lines[3], "peer-19")
		assert.Contains(t, lines[8], "peer-14")
		assert.Equal(t, "the oldest 6 of 20 connections, all of generation 6", lines[10])
		assert.Equal(t, "hdctl: warning: app: the connections of generation 5 are missing: gone"+endOfLine+endOfScreen, strings.TrimSuffix(lines[11], leaveScreen))
	}
}

// Off a terminal it appends, and a service that is gone is the end.
func TestConnsWatchAppends(t *testing.T) {
	a, _, stderr := testApp(t)
	f := &fakeService{Status: sampleStatus(), Conns: []control.Line{{End: new(control.ConnsEnd)}}}
	f.run(t, a.runDir, "app")
	looks := 0
	out := &endAt{word: "0 connections", end: func() {
		if looks++; looks == 3 {
			f.stop()
		}
	}}
	a.stdout = out
	assert.Equal(t, exitNotRunning, a.run(t.Context(), []string{"conns", "app", "--watch", "--interval=10ms"}), stderr.String())
	assert.Equal(t, 2, strings.Count(out.String(), "\n--- "))
}

// On a terminal, what a wait waits for is one line, always with the numbers of
// now.
func TestWaitOnTerminal(t *testing.T) {
	a, stdout, _ := testApp(t)
	tty := newPTY(t)
	a.stderr = tty.File
	a.patience.look = a.patience.poll
	first := serviceStatus(7, 6)
	f := &fakeService{Status: first, End: "hang"}
	f.run(t, a.runDir, "app")
	code := make(chan int)
	go func() { code <- a.run(t.Context(), []string{"wait", "app", "--for=drained"}) }()
	shown := tty.readUntil(t, func(s string) bool { return strings.HasSuffix(s, endOfLine) })
	assert.Equal(t, "\rapp: generation 6 drains (6 connection>\x1b[K", shown)
	f.change(serviceStatus(7, 5))
	shown = tty.readUntil(t, func(s string) bool { return strings.HasSuffix(s, endOfLine) })
	assert.Equal(t, "\rapp: generation 5 drains (5 connection>\x1b[K", shown)
	f.set(serviceStatus(7))
	assert.Equal(t, exitOK, <-code)
	assert.Equal(t, "app: drained: only generation 7 is left\n", stdout.String())
	_, err := tty.WriteString("END")
	require.NoError(t, err)
	assert.Equal(t, "\r\x1b[KEND", tty.readUntil(t, func(s string) bool { return strings.HasSuffix(s, "END") }))
}

// Off a terminal, --watch appends; the exit status is that of the last look.
func TestWatchAppends(t *testing.T) {
	a, _, _ := testApp(t)
	f := &fakeService{Status: &control.Status{Service: "app", Main: 1, State: control.StateStarting, Generations: []control.Generation{{Number: 1, State: control.StateStarting}}}}
	f.run(t, a.runDir, "app")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	looks := 0
	out := &endAt{word: "app.service", end: func() {
		if looks++; looks == 3 {
			cancel()
		}
	}}
	a.stdout = out
	assert.Equal(t, exitNotRunning, a.run(ctx, []string{"status", "app", "--watch", "--interval=10ms"}))
	assert.Equal(t, 2, strings.Count(out.String(), "\n--- "))
	assert.NotContains(t, out.String(), "\x1b")

	// Nothing to watch is an error at once.
	assert.Equal(t, exitUsage, a.run(t.Context(), []string{"status", "-w", "--interval=1ns"}))
	f.stop()
	require.NoError(t, os.RemoveAll(a.runDir))
	assert.Equal(t, exitNoService, a.run(t.Context(), []string{"status", "-w"}))
}

func TestColour(t *testing.T) {
	tty := newPTY(t)
	for _, tt := range []struct {
		name     string
		terminal bool
		env      map[string]string
		when     string
		want     bool
	}{
		{"pipe", false, nil, "auto", false},
		{"terminal", true, map[string]string{"TERM": "xterm"}, "auto", true},
		{"NO_COLOR", true, map[string]string{"NO_COLOR": "1"}, "auto", false},
		{"empty NO_COLOR", true, map[string]string{"NO_COLOR": ""}, "auto", true},
		{"dumb", true, map[string]string{"TERM": "dumb"}, "auto", false},
		{"never", true, nil, "never", false},
		{"always", false, map[string]string{"NO_COLOR": "1"}, "always", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, _, _ := testApp(t)
			a.env = tt.env
			if tt.terminal {
				a.stdout = tty.File
			}
			assert.Equal(t, tt.want, a.wantColour(tt.when))
		})
	}
}
