package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/faulty/fault"
	"github.com/hdctl/handoff/test/leak"
)

// This test binary is the service, if asked to be.
func TestMain(m *testing.M) {
	if os.Getenv("HANDOFF_FAULTY_TEST") != "" {
		main()
		os.Exit(0)
	}
	leak.Main(m)
}

// process is the service, in a version of its own.
type process struct {
	*exec.Cmd
	address string
	out     *bufio.Scanner
	client  http.Client
}

// start starts a version, which is an executable of its own, as in real life.
func start(t *testing.T, plan *fault.Plan, mode string) *process {
	t.Helper()
	path := filepath.Join(t.TempDir(), "faulty")
	file, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	if plan != nil {
		file, err = fault.Plan{Fault: fault.Exit1, At: fault.Init}.Attach(file) // an older plan
		require.NoError(t, err)
		file, err = plan.Attach(file)
		require.NoError(t, err)
	}
	require.NoError(t, os.WriteFile(path, file, 0o755))
	if mode != "" {
		require.NoError(t, os.WriteFile(path+".mode", []byte(mode+"\n"), 0o644))
	}

	ln, err := net.Listen("tcp", "127.0.0.1:0") // a free port
	require.NoError(t, err)
	p := &process{address: ln.Addr().String()}
	require.NoError(t, ln.Close())
	p.client.Transport = &http.Transport{DisableKeepAlives: true}
	p.Cmd = exec.Command(path, "-http", p.address)
	p.Env = append(os.Environ(), "HANDOFF_FAULTY_TEST=1", "HANDOFF_CONTROL=-", "GORACE=atexit_sleep_ms=0")
	p.Stderr = t.Output()
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	p.out = bufio.NewScanner(io.TeeReader(out, t.Output()))
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		_ = p.Process.Kill()
		_ = p.Wait()
	})
	return p
}

// waitLine waits for a line with the given beginning.
func (p *process) waitLine(t *testing.T, prefix string) {
	t.Helper()
	for p.out.Scan() {
		if strings.HasPrefix(p.out.Text(), prefix) {
			return
		}
	}
	t.Fatalf("it has ended without %q", prefix)
}

// get asks until there is an answer, or somebody has been connected.
func (p *process) get(t *testing.T, limit time.Duration) (*http.Response, error) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/", nil)
		require.NoError(t, err)
		resp, err := p.client.Do(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		cancel()
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return resp, err
		}
	}
}

func TestGood(t *testing.T) {
	for name, p := range map[string]*process{
		"no plan":        start(t, nil, ""),
		"a plan":         start(t, &fault.Plan{}, "exit1"), // which wins
		"a mode":         start(t, nil, "serve"),
		"in its own way": start(t, nil, "own-way"),
	} {
		resp, err := p.get(t, time.Minute)
		require.NoError(t, err, name)
		assert.Equal(t, http.StatusOK, resp.StatusCode, name)
		assert.Equal(t, "1", resp.Header.Get("X-Handoff-Generation"))
		assert.Equal(t, fmt.Sprint(p.Process.Pid), resp.Header.Get("X-Handoff-Pid"))
		assert.Equal(t, "faulty", resp.Header.Get("X-Handoff-Version"))
		require.NoError(t, p.Process.Signal(syscall.SIGTERM))
		require.NoError(t, p.Wait(), name)
	}
}

func TestVersionIsThatOfThePlan(t *testing.T) {
	p := start(t, &fault.Plan{Version: "v8", Errors: 100}, "")
	resp, err := p.get(t, time.Minute)
	require.NoError(t, err)
	assert.Equal(t, http.StatusInternalServerError, resp.StatusCode)
	assert.Equal(t, "v8", resp.Header.Get("X-Handoff-Version"), "also on an error")
}

// TestEnds has the process end at each moment, and in each way.
func TestEnds(t *testing.T) {
	endings := map[fault.Fault]string{
		fault.Kill: "signal: killed", fault.Panic: "exit status 2", fault.Exit0: "",
		fault.Exit1: "exit status 1", fault.Exit3: "exit status 3",
	}
	var plans []fault.Plan
	for _, at := range []fault.Moment{
		fault.Init, fault.Started, fault.Listening, fault.Ready, fault.Serving,
		fault.Probation, fault.Confirmed, fault.Drain, fault.Request,
	} {
		plans = append(plans, fault.Plan{Fault: fault.Kill, At: at, After: 10 * time.Millisecond, Request: 2, Memory: 4})
	}
	for f := range endings {
		plans = append(plans, fault.Plan{Fault: f, At: fault.Request, Request: 1})
	}
	for _, plan := range plans {
		t.Run(plan.String(), func(t *testing.T) {
			p := start(t, &plan, "")
			if plan.At == fault.Request {
				for range plan.Request - 1 {
					_, err := p.get(t, time.Minute)
					require.NoError(t, err)
				}
				_, err := p.get(t, time.Minute)
				require.Error(t, err, "it ends before it has answered")
			}
			p.waitLine(t, "faulty: going to "+plan.String())
			p.waitLine(t, "faulty: "+string(plan.Fault)+", now: ")
			err := p.Wait()
			if want := endings[plan.Fault]; want != "" {
				assert.EqualError(t, err, want)
			} else {
				assert.NoError(t, err)
			}
		})
	}
	t.Run("lies", func(t *testing.T) { assert.EqualError(t, start(t, nil, "notify").Wait(), "exit status 1") })
	t.Run("no such mode", func(t *testing.T) { assert.EqualError(t, start(t, nil, "nonsense").Wait(), "exit status 1") })
}

// TestHangs has the process live on, and not answer, until it is told to go on.
func TestHangs(t *testing.T) {
	const soon = 100 * time.Millisecond // a slow machine makes no answer of it, either
	for _, f := range []fault.Fault{fault.Stop, fault.Deadlock, fault.Accept, fault.Busy} {
		t.Run(string(f), func(t *testing.T) {
			p := start(t, &fault.Plan{Fault: f, At: fault.Serving}, "")
			p.waitLine(t, "faulty: "+string(f)+", now: ")
			if f == fault.Accept || f == fault.Busy {
				// Up to now it is in Accept, and takes one more, and answers that if it
				// was quicker than the fault.
				_, err := p.get(t, soon)
				if err != nil {
					require.ErrorIs(t, err, context.DeadlineExceeded)
				}
			}
			_, err := p.get(t, soon)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			assert.NoError(t, p.Process.Signal(syscall.Signal(0)), "it lives")
			signal := syscall.SIGUSR1
			if f == fault.Stop {
				signal = syscall.SIGCONT
			}
			require.NoError(t, p.Process.Signal(signal))
			_, err = p.get(t, time.Minute)
			require.NoError(t, err, "it goes on")
		})
	}
	for _, mode := range []string{"mute", "hang"} {
		t.Run(mode, func(t *testing.T) {
			p := start(t, nil, mode)
			p.waitLine(t, "faulty: deadlock, now: ")
			assert.NoError(t, p.Process.Signal(syscall.Signal(0)), "it lives")
		})
	}
}

// TestAcceptStuckServesWhatItHas: a connection that is there already is answered.
func TestAcceptStuckServesWhatItHas(t *testing.T) {
	p := start(t, &fault.Plan{Fault: fault.Accept, At: fault.Request, Request: 2}, "")
	p.client.Transport = &http.Transport{MaxConnsPerHost: 1} // and it is kept
	defer p.client.CloseIdleConnections()
	for range 2 {
		_, err := p.get(t, time.Minute)
		require.NoError(t, err)
	}
	p.waitLine(t, "faulty: accept, now: ")
	for range 3 {
		_, err := p.get(t, time.Minute)
		require.NoError(t, err)
	}
}
