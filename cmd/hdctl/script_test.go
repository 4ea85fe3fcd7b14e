package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hdctl/handoff/upgrade/control"
)

// TestScripts runs hdctl as its users do. Beside the commands of testscript
// there are:
//
//	serve NAME FILE     a service that behaves as the JSON of a fakeService says
//	sample NAME         a service that shows sampleStatus
//	stale NAME          a control socket that nobody listens on
//	deaf NAME           one that nobody accepts from
//	exits N hdctl ...   run hdctl, which must exit with N
//	asked NAME JSON     the last command, or list of connections, was this
//	interrupt NAME      send SIGINT to the background commands, when one waits
//	                    for the service NAME
func TestScripts(t *testing.T) {
	type services map[string]*fakeService // of a script
	service := func(ts *testscript.TestScript, name string) *fakeService {
		return ts.Value("services").(services)[name]
	}
	serve := func(ts *testscript.TestScript, name string, f *fakeService) {
		ts.Check(f.start(ts.Getenv("TEST_RUN_DIR"), name))
		ts.Value("services").(services)[name] = f
		ts.Defer(f.stop)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			// The path of a socket is short of bytes; that of $WORK is not.
			dir, err := os.MkdirTemp("", "hd")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(dir) })
			e.Setenv("TEST_RUN_DIR", filepath.Join(dir, "handoff"))
			e.Setenv("TEST_STATE_DIR", filepath.Join(dir, "state"))
			e.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "user"))
			e.Setenv("TZ", "UTC")
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each hdctl takes a second to end
			e.Values["services"] = make(services)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": func(ts *testscript.TestScript, _ bool, args []string) {
				f := new(fakeService)
				ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), f))
				serve(ts, args[0], f)
			},
			"sample": func(ts *testscript.TestScript, _ bool, args []string) {
				f := &fakeService{Status: sampleStatus()}
				f.Status.Service = args[0]
				serve(ts, args[0], f)
			},
			"stale": func(ts *testscript.TestScript, _ bool, args []string) {
				path := control.SocketIn(ts.Getenv("TEST_RUN_DIR"), args[0])
				ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
				ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
				ts.Check(err)
				ln.SetUnlinkOnClose(false)
				ts.Check(ln.Close())
			},
			"deaf": func(ts *testscript.TestScript, _ bool, args []string) {
				path := control.SocketIn(ts.Getenv("TEST_RUN_DIR"), args[0])
				ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
				ln, err := net.Listen("unix", path)
				ts.Check(err)
				ts.Defer(func() { ln.Close() })
			},
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got := 0
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					exit, ok := errors.AsType[*exec.ExitError](err)
					if !ok {
						ts.Fatalf("%v", err)
					}
					got = exit.ExitCode()
				}
				if got != want {
					ts.Fatalf("exit status %d, want %d", got, want)
				}
			},
			"asked": func(ts *testscript.TestScript, _ bool, args []string) {
				requests := service(ts, args[0]).got()
				if len(requests) == 0 {
					ts.Fatalf("nothing was asked for")
				}
				got := requests[len(requests)-1]
				if want := strings.Join(args[1:], " "); got != want {
					ts.Fatalf("asked for %s, want %s", got, want)
				}
			},
			"interrupt": func(ts *testscript.TestScript, _ bool, args []string) {
				<-service(ts, args[0]).hanging
				for _, cmd := range ts.BackgroundCmds() {
					ts.Check(cmd.Process.Signal(syscall.SIGINT))
				}
			},
		},
	})
}
