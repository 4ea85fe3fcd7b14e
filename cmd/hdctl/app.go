package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hdctl/handoff/units/doctor"
	"github.com/hdctl/handoff/upgrade/control"
)

// app is one run of hdctl: what it has of the world, and the options that all
// verbs have in common. Tests replace parts of the world.
type app struct {
	terminal

	env      map[string]string
	pid      int
	runDir   string        // control.RunDir
	stateDir string        // stateRoot
	systemd  systemdFunc   // what systemd says about a unit
	drift    driftFunc     // and in what the service differs from its unit
	examine  doctor.System // what hdctl doctor looks at, without what the flags say
	jobs     jobsFunc      // who starts and stops units
	self     string        // the program of hdctl itself, for run
	now      func() time.Time
	patience // how long to wait for what

	globals globals

	mu     sync.Mutex
	warned map[string]bool // what warnOnce has said
}

// patience are the times that hdctl gives others. They are here so that tests
// need not have that much of it.
type patience struct {
	status  time.Duration // main must answer within it, or it is "not answering"
	systemd time.Duration // systemd likewise
	before  time.Duration // main must answer within it before an upgrade is asked for
	slack   time.Duration // after the service's own limit, until its answer is missed
	settle  time.Duration // to find out what became of an upgrade without an answer
	poll    time.Duration // between two questions of the same kind
	look    time.Duration // between two looks of a wait in which nothing happens
	back    time.Duration // for a service to come back, when its events are followed

	configure time.Duration // to read a configuration and bring it into force
}

// newApp returns an app that sees the real world.
func newApp(stdout, stderr io.Writer, env []string) *app {
	a := &app{
		terminal: terminal{stdout: stdout, stderr: stderr},
		env:      make(map[string]string),
		warned:   make(map[string]bool),
		pid:      os.Getpid(),
		runDir:   control.RunDir,
		stateDir: stateRoot,
		now:      time.Now,
		patience: patience{
			status:  2 * time.Second,
			systemd: time.Second,
			before:  10 * time.Second,
			slack:   5 * time.Second,
			settle:  15 * time.Second,
			poll:    250 * time.Millisecond,
			look:    time.Second,
			back:    30 * time.Second,

			configure: time.Minute,
		},
	}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		a.env[name] = value
	}
	a.systemd = a.dbusSystemd
	a.jobs = a.dbusJobs
	a.self = "/proc/self/exe" // the file may have been replaced
	a.drift = systemdDrift
	return a
}

// run is hdctl: it returns the exit status. When ctx ends, hdctl stops waiting.
// Nothing is read from stdin.
func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer, env []string) int {
	return newApp(stdout, stderr, env).run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	verb, err := a.parse(args)
	if err != nil || verb == nil {
		return a.exit(err)
	}
	return a.exit(verb.Run(ctx, a))
}

// client returns a client for a target, that warns if it is too old for it.
func (a *app) client(t target) *control.Client {
	return &control.Client{
		Socket: t.socket,
		Newer: func(api int, library string) {
			a.warnOnce("%s speaks version %d of the control API (library %s), and this hdctl only %d: update hdctl", t, api, clean(library), control.APIVersion)
		},
	}
}

// warnOnce warns of what would otherwise be said for each answer. It may be
// called by several goroutines that ask at the same time.
func (a *app) warnOnce(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if !a.warned[text] {
		a.warned[text] = true
		a.warnf("%s", text)
	}
}
