package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/hdctl/handoff/units/doctor"
	"github.com/hdctl/handoff/upgrade/control"
)

// The test binary is hdctl as well, for scripts: with a run directory of its own,
// little patience, and a systemd that is a file.
func TestMain(m *testing.M) {
	testscript.Main(leakM{m}, map[string]func(){"hdctl": hdctlMain})
}

// leakM fails the run if goroutines are left. It is not leak.Main because
// testscript has to clean up after the run; tests in this process use leak.Check.
type leakM struct{ m *testing.M }

func (l leakM) Run() int {
	code := l.m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

func hdctlMain() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	a := newApp(os.Stdout, os.Stderr, os.Environ())
	a.runDir = os.Getenv("TEST_RUN_DIR")
	a.stateDir = os.Getenv("TEST_STATE_DIR")
	a.systemd = fileSystemd(os.Getenv("TEST_SYSTEMD"))
	a.drift = fileDrift(os.Getenv("TEST_DRIFT"))
	a.examine = fileHost(os.Getenv("TEST_HOST"))
	a.jobs = fileJobs(os.Getenv("TEST_JOBS"))
	a.self = os.Args[0] // by its name the test binary knows that it is hdctl
	a.patience = testPatience(os.Getenv("TEST_PATIENCE"))
	if os.Getenv("TEST_EXEC_RELOAD") != "" {
		a.env["SYSTEMD_EXEC_PID"] = fmt.Sprint(a.pid) // as systemd does for its children
	}
	os.Exit(a.run(ctx, os.Args[1:]))
}

// testPatience is long, except for what a script or test wants to see the end
// of: then it sets TEST_PATIENCE to that (and to nothing else, or a slow machine
// would make it fail). A wait that no event ends never ends.
func testPatience(short string) patience {
	const long = 30 * time.Second
	p := patience{status: long, systemd: long, before: long, slack: long, settle: long, poll: 5 * time.Millisecond, look: time.Hour, back: long, configure: long}
	for name, d := range map[string]*time.Duration{"status": &p.status, "before": &p.before, "settle": &p.settle} {
		if strings.Contains(short, name) {
			*d = 50 * time.Millisecond
		}
	}
	if strings.Contains(short, "slack") {
		p.slack = 50 * time.Millisecond
	}
	return p
}

// fileSystemd is a systemd that knows the units in a JSON file: an object of
// systemdViews by unit. Without a file there is no systemd.
func fileSystemd(path string) systemdFunc {
	return func(_ context.Context, unit string, _ bool) (*systemdView, error) {
		if path == "" {
			return nil, errors.New("no systemd here")
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var views map[string]*systemdView
		if err := json.Unmarshal(data, &views); err != nil {
			return nil, err
		}
		v := views[unit]
		if v == nil {
			v = &systemdView{LoadState: "not-found", ActiveState: "inactive", SubState: "dead"}
		}
		v.Unit = unit
		return v, nil
	}
}

// fileDrift is a systemd that finds the checks in a JSON file. Without a file there
// is no systemd.
func fileDrift(path string) driftFunc {
	return func(context.Context, string, int, bool) ([]control.Check, error) {
		if path == "" {
			return nil, errors.New("no systemd here")
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var checks []control.Check
		return checks, json.Unmarshal(data, &checks)
	}
}

// fileHost is a host whose files are in a directory, and whose systemd has the
// properties in its file show.json: objects by unit. Without a directory there is
// nothing.
func fileHost(dir string) doctor.System {
	if dir == "" {
		dir = os.DevNull
	}
	return doctor.System{
		Root: dir, Hdctl: "/usr/bin/hdctl", Version: "v1.4.0",
		Show: func(_ context.Context, unit string, _ ...string) (map[string]string, error) {
			data, err := os.ReadFile(filepath.Join(dir, "show.json"))
			if err != nil {
				return nil, errors.New("no systemd here")
			}
			var values map[string]map[string]string
			if err := json.Unmarshal(data, &values); err != nil {
				return nil, err
			}
			if values[unit] == nil {
				return map[string]string{"LoadState": "not-found"}, nil
			}
			return values[unit], nil
		},
	}
}
