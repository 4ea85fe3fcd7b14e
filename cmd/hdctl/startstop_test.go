package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/stretchr/testify/assert"

	"github.com/hdctl/handoff/test/leak"
)

// fakeJobs is a systemd that does all at once.
type fakeJobs struct {
	units map[string]*unitState
	asked []string
	fails map[string]string // results of jobs, by unit
	err   error             // of all jobs
	hangs bool              // no job ends
}

// fileJobs is one that knows the units in a JSON file, by name. Without a file there is
// no systemd.
func fileJobs(path string) jobsFunc {
	return func(context.Context, bool) (jobs, error) {
		if path == "" {
			return nil, errors.New("connect to systemd: no systemd here")
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		f := new(fakeJobs)
		return f, json.Unmarshal(data, &f.units)
	}
}

func (f *fakeJobs) close() {}

func (f *fakeJobs) unit(_ context.Context, name string) (*unitState, error) {
	u := f.units[name]
	if u == nil {
		return &unitState{Name: name, LoadState: "not-found", ActiveState: "inactive"}, nil
	}
	copied := *u
	copied.Name = name
	return &copied, nil
}

func (f *fakeJobs) start(_ context.Context, name string, result chan<- string) error {
	return f.do("start", name, "active", result)
}

func (f *fakeJobs) stop(_ context.Context, names []string, result chan<- string) error {
	for _, name := range names {
		if err := f.do("stop", name, "inactive", result); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeJobs) do(what, name, state string, result chan<- string) error {
	f.asked = append(f.asked, what+" "+name)
	switch r := f.fails[name]; {
	case f.err != nil:
		return jobError(what, name, f.err)
	case f.hangs:
	case r != "":
		result <- r
	default:
		f.units[name].ActiveState = state
		result <- "done"
	}
	return nil
}

func appUnits(service, socket string) map[string]*unitState {
	return map[string]*unitState{
		"app.service":      {LoadState: "loaded", ActiveState: service, SubState: "x", TriggeredBy: []string{"app.socket", "app.timer"}, Requires: []string{"app-echo.socket", "app.socket", "sysinit.target"}},
		"app.socket":       {LoadState: "loaded", ActiveState: socket},
		"app-echo.socket":  {LoadState: "loaded", ActiveState: socket},
		"other.service":    {LoadState: "masked", ActiveState: "inactive"},
		"broken.service":   {LoadState: "bad-setting", ActiveState: "inactive"},
		"unrelated.socket": {LoadState: "loaded", ActiveState: "active"},
	}
}

func TestStartStop(t *testing.T) {
	denied := godbus.Error{Name: "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", Body: []any{"Interactive authentication required."}}
	for _, tt := range []struct {
		name   string
		args   string
		jobs   *fakeJobs
		status bool // it has a control socket
		code   int
		asked  string
		says   []string
	}{
		{
			"stop", "stop app", &fakeJobs{units: appUnits("active", "active")}, true, exitOK,
			"stop app.service, stop app-echo.socket, stop app.socket",
			[]string{"app: stopped in ", "generations 7, 6, 5, 8 ended, 1241 connections before", "app-echo.socket app.socket closed", "app.timer can start it again"},
		},
		{
			"stop with the service down", "stop app", &fakeJobs{units: appUnits("inactive", "active")}, false, exitOK,
			"stop app.service, stop app-echo.socket, stop app.socket",
			[]string{"app-echo.socket app.socket closed"},
		},
		{"stop twice", "stop app", &fakeJobs{units: appUnits("inactive", "inactive")}, false, exitOK, "", []string{"app: stopped already: app.service is inactive (x)"}},
		{"stop of one that failed", "stop app.service", &fakeJobs{units: appUnits("failed", "inactive")}, false, exitOK, "", []string{"app: stopped already: app.service is failed (x)"}},
		{
			"no block", "stop app --no-block", &fakeJobs{units: appUnits("active", "active"), hangs: true}, false, exitOK,
			"stop app.service, stop app-echo.socket, stop app.socket",
			[]string{"is being stopped"},
		},
		{
			"stop: timeout", "stop app --timeout 1ms", &fakeJobs{units: appUnits("active", "active"), hangs: true}, false, exitUnknown,
			"stop app.service, stop app-echo.socket, stop app.socket",
			[]string{"stopped waiting; the stop goes on", "hint: hdctl status app"},
		},
		{"stop: denied", "stop app", &fakeJobs{units: appUnits("active", "active"), err: denied}, false, exitPermission, "stop app.service", []string{"stop app.service: Interactive authentication required.", "hint: try it with sudo"}},
		{"stop: none", "stop none", &fakeJobs{}, false, exitNoService, "", []string{"there is no service none: no unit none.service", "hint: for a service of the user: hdctl --user stop"}},
		{"stop: by hand", "stop app", &fakeJobs{}, true, exitRefused, "", []string{"app has no unit: it was started by hdctl run, or by hand", "hint: Ctrl-C there, or kill -TERM 4242, stops it"}},
		{"stop: masked", "stop other", &fakeJobs{units: appUnits("", "")}, false, exitRefused, "", []string{"other.service is masked", "systemctl unmask"}},
		{
			"stop: masked while it runs", "stop app", &fakeJobs{units: map[string]*unitState{
				"app.service": {LoadState: "masked", ActiveState: "active", TriggeredBy: []string{"app.socket"}}, "app.socket": {LoadState: "not-found", ActiveState: "active"},
			}},
			true, exitOK, "stop app.service, stop app.socket",
			[]string{"app: stopped in "},
		},
		{
			"stop: a socket that there is not", "stop app", &fakeJobs{units: map[string]*unitState{
				"app.service": {LoadState: "loaded", ActiveState: "active", Requires: []string{"gone.socket"}},
			}},
			false, exitOK, "stop app.service",
			[]string{"app: stopped in "},
		},
		{"stop: broken", "stop broken", &fakeJobs{units: appUnits("", "")}, false, exitFailed, "", []string{"cannot be loaded: bad-setting"}},
		{
			"stop: job", "stop app", &fakeJobs{units: appUnits("active", "active"), fails: map[string]string{"app.socket": "canceled"}}, false, exitFailed,
			"stop app.service, stop app-echo.socket, stop app.socket",
			[]string{"still up: app.socket", "hint: somebody has started it again"},
		},
		{"stop: usage", "stop", nil, false, exitUsage, "", []string{`expected "<unit>"`}},
		{"stop: socket", "stop app --socket /x", nil, false, exitUsage, "", []string{"is for a unit"}},
		{"stop: a socket", "stop app.socket", nil, false, exitUsage, "", []string{"the service is probably app"}},

		{
			"start", "start app", &fakeJobs{units: appUnits("inactive", "inactive")}, true, exitOK,
			"start app-echo.socket, start app.socket, start app.service",
			[]string{"app: started in ", "process 4242 (v2.3.1) serves; app-echo.socket app.socket opened"},
		},
		{"start without control socket", "start app", &fakeJobs{units: appUnits("inactive", "active")}, false, exitOK, "start app.service", []string{"app: started in ", "has no control socket"}},
		{"start twice", "start app", &fakeJobs{units: appUnits("active", "active")}, true, exitOK, "", []string{"app: runs already: app.service is active (x)"}},
		{"start: while it reloads", "start app", &fakeJobs{units: appUnits("reloading", "active")}, true, exitOK, "", []string{"app: runs already"}},
		{"start: no block", "start app --no-block", &fakeJobs{units: appUnits("inactive", "active"), hangs: true}, false, exitOK, "start app.service", []string{"is being started"}},
		{"start: timeout", "start app --timeout 1ms", &fakeJobs{units: appUnits("inactive", "active"), hangs: true}, false, exitUnknown, "start app.service", []string{"the start goes on"}},
		{
			"start: failed", "start app", &fakeJobs{units: appUnits("failed", "active"), fails: map[string]string{"app.service": "failed"}}, false, exitNobody,
			"start app.service",
			[]string{"app: not started: app.service is failed (x)", "hint: journalctl -u app.service"},
		},
		{
			"start: tried again", "start app", &fakeJobs{units: appUnits("activating", "active"), fails: map[string]string{"app.service": "failed"}}, false, exitNobody,
			"start app.service",
			[]string{"app.service is activating (x)", "hint: systemd tries it again; hdctl stop app ends that"},
		},
		{
			"start: a socket under a service that runs", "start app", &fakeJobs{units: appUnits("active", "inactive"), fails: map[string]string{"app-echo.socket": "failed"}}, false, exitFailed,
			"start app-echo.socket, start app.socket, start app.service",
			[]string{"hint: it runs without app-echo.socket; a socket is not opened under a service that runs: hdctl stop app, then start it again"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leak.Check(t)
			t.Setenv("PATH", "") // no journalctl
			a, stdout, stderr := testApp(t)
			a.jobs = func(context.Context, bool) (jobs, error) { return tt.jobs, nil }
			if tt.status {
				(&fakeService{Status: sampleStatus()}).run(t, a.runDir, "app")
			}
			assert.Equal(t, tt.code, a.run(t.Context(), strings.Fields(tt.args)), stderr.String())
			for _, say := range tt.says {
				assert.Contains(t, stdout.String()+stderr.String(), say)
			}
			if tt.jobs != nil {
				assert.Equal(t, tt.asked, strings.Join(tt.jobs.asked, ", "))
			}
		})
	}
}

// Ctrl-C stops the waiting.
func TestStopInterrupted(t *testing.T) {
	leak.Check(t)
	a, _, stderr := testApp(t)
	ctx, cancel := context.WithCancel(t.Context())
	a.jobs = func(context.Context, bool) (jobs, error) {
		return &fakeJobs{units: appUnits("active", "active"), hangs: true}, nil
	}
	time.AfterFunc(time.Millisecond, cancel)
	assert.Equal(t, exitUnknown, a.run(ctx, []string{"stop", "app"}))
	assert.Contains(t, stderr.String(), "stopped waiting")
}

func TestStopReport(t *testing.T) {
	r := stopReport{Took: 20.04, Generations: []int{7, 6}, Connections: 37, Sockets: []string{"app.socket"}, Left: 1}
	assert.Equal(t, "stopped in 20.0s; generations 7, 6 ended, 37 connections before; app.socket closed; 1 connection was still open at the stop timeout", r.text())
	assert.Equal(t, "stopped in 5ms", stopReport{Took: 0.005}.text())
}
