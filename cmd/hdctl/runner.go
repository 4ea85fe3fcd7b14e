package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/activation/launch"
	"github.com/hdctl/handoff/upgrade/control"
)

const (
	// restartDelay is between the end of a service and its next start.
	restartDelay = time.Second

	// proofTime is how long a new process must live before the old one is told to
	// end, where neither says anything.
	proofTime = time.Second
)

// runner is "hdctl run" at work: one goroutine that starts, watches and stops. What
// others find out comes over channels.
type runner struct {
	*app
	cmd     *runCmd
	target  target
	client  *control.Client
	command launch.Command

	events   chan happening
	ended    chan *instance
	changes  chan struct{}
	upgraded chan upgraded
	helpers  sync.WaitGroup

	current *instance   // nil: it is down
	next    *instance   // takes the place of current soon: of a program without handoff
	leaving []*instance // were replaced so
	exit    launch.Exit // of the last main process

	busy     bool        // an upgrade goes on
	again    string      // why there shall be another one after it
	stopping bool        // it was told to end
	signals  int         // how often
	foretold bool        // by the end of the context, whose signal is still to come
	timer    *time.Timer // for the restart, and for the proof of next
}

// instance is one start of the service.
type instance struct {
	*launch.Process
	ready   bool
	reloads bool // READY=1 will end a reload
	again   bool // start it anew when it has ended
}

// happening is an event of an instance.
type happening struct {
	of *instance
	launch.Event
}

// upgraded is how an upgrade has ended.
type upgraded struct {
	of     *instance
	before *control.Status
	result *control.Result
	err    error
}

// run starts the service, and returns when all of it has ended.
func (r *runner) run(ctx context.Context) error {
	r.events, r.ended = make(chan happening, 64), make(chan *instance)
	r.changes, r.upgraded = make(chan struct{}), make(chan upgraded)
	r.timer = time.NewTimer(time.Hour)
	r.timer.Stop()
	hangup := newHangup()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	// Who reads what is printed may end first, as tee(1) does by the same Ctrl-C; the
	// service is still to be stopped. Ignored, the program would inherit it.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, unix.SIGPIPE)
	defer signal.Stop(pipe)
	helpersCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer r.helpers.Wait()
	defer cancel()

	from := launch.Identify(r.command.Path)
	if err := r.start(); err != nil {
		return exitf(exitFailed, "%s: %w", r.target, err)
	}
	if r.cmd.Watch {
		r.helpers.Go(func() {
			launch.Watch(helpersCtx, r.command.Path, from, cmp.Or(r.cmd.Debounce, launch.WatchInterval), func() {
				select {
				case r.changes <- struct{}{}:
				case <-helpersCtx.Done():
				}
			})
		})
	}
	told := ctx.Done()
	for !r.over() {
		if why := r.again; why != "" && !r.busy && r.next == nil {
			r.again = ""
			r.change(helpersCtx, why)
		}
		select {
		case h := <-r.events:
			r.happened(ctx, h)
		case i := <-r.ended:
			r.drainEvents(ctx)
			r.hasEnded(i)
		case <-r.changes:
			r.change(helpersCtx, "the program has changed")
		case u := <-r.upgraded:
			r.hasUpgraded(u)
		case <-r.timer.C:
			r.timeIsUp()
		case s := <-signals:
			switch {
			case s == unix.SIGHUP && !hangup.happened():
				r.change(helpersCtx, "SIGHUP")
			case s == unix.SIGHUP && (hangup.ignored || r.stopping): // it comes more than once
			case r.foretold:
				r.foretold = false
			default:
				r.stop()
			}
		case <-told:
			told = nil
			if r.signals == 0 { // it is the same signal, whichever comes first
				r.foretold = true
				r.stop()
			}
		}
	}
	code := r.exit.Code()
	if r.stopping && r.exit.Signal == unix.SIGTERM {
		code = exitOK // as systemd sees it
	}
	return exitCode(code)
}

// over tells whether nothing is left, and nothing to come.
func (r *runner) over() bool {
	if r.current != nil || r.next != nil || len(r.leaving) > 0 || r.busy {
		return false
	}
	return r.stopping || !r.cmd.Watch && !r.cmd.Restart
}

// start starts the service.
func (r *runner) start() error {
	i, err := r.launch()
	if err != nil {
		return err
	}
	r.current = i
	return nil
}

func (r *runner) launch() (*instance, error) {
	i := new(instance)
	c := r.command
	c.Notify = func(e launch.Event) {
		if e.Kind == launch.Started {
			// By this goroutine: what it sent to itself might find no room.
			r.notef("%s", r.text("process %d started", e.PID))
			return
		}
		r.events <- happening{i, e}
	}
	var err error
	if i.Process, err = launch.Start(c); err != nil {
		return nil, err
	}
	r.helpers.Go(func() {
		i.Wait()
		r.ended <- i
	})
	return i, nil
}

// drainEvents handles what has come before an end.
func (r *runner) drainEvents(ctx context.Context) {
	for {
		select {
		case h := <-r.events:
			r.happened(ctx, h)
		default:
			return
		}
	}
}

// happened tells of an event.
func (r *runner) happened(ctx context.Context, h happening) {
	switch h.Kind {
	case launch.Ready:
		if !h.of.ready || h.of.reloads {
			r.notef("%s", r.text("ready"))
		}
		h.of.ready, h.of.reloads = true, false
		if h.of == r.next {
			r.replace()
		}
	case launch.Reloading:
		h.of.reloads = true
		r.notef("%s", r.text("reloading"))
	case launch.Stopping:
		r.notef("%s", r.text("stopping"))
	case launch.Status:
		r.notef("%s", r.text("status: %s", h.Text))
	case launch.Main:
		r.notef("%s", r.text("main process is now %d%s", h.PID, r.generationOf(ctx, h.PID)))
	case launch.Ended:
		if h.PID != h.of.MainPID() {
			r.notef("%s", r.text("%v", h.Exit))
		}
	case launch.Watchdog, launch.Refused:
		r.warnf("%s", r.text("%v", h.Event))
	}
}

// generationOf is " (generation 2)", if that is what the service says.
func (r *runner) generationOf(ctx context.Context, pid int) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.patience.status)
	defer cancel()
	s, err := r.client.Status(ctx)
	if err != nil {
		return ""
	}
	for _, g := range s.Generations {
		if g.PID == pid {
			return inParens(fmt.Sprintf("generation %d", g.Number), g.Version)
		}
	}
	return ""
}

// hasEnded handles the end of an instance.
func (r *runner) hasEnded(i *instance) {
	exit := i.Wait()
	switch {
	case i == r.next:
		r.next = nil
		r.timer.Stop()
		if r.stopping {
			r.notef("%s", r.text("the new program: %v", exit))
			return
		}
		r.errorf("%s", r.text("the new program has failed: %v; the old one goes on", exit))
		return
	case i != r.current:
		r.leaving = slices.DeleteFunc(r.leaving, func(l *instance) bool { return l == i })
		r.notef("%s", r.text("the old program: %v", exit))
		return
	}
	r.current, r.exit = nil, exit
	switch {
	case r.next != nil: // it came first
		r.timer.Stop()
		r.current, r.next = r.next, nil
	case r.stopping:
		r.notef("%s", r.text("%v", exit))
	case i.again:
		r.notef("%s", r.text("%v", exit))
		r.startAgain()
	case r.cmd.Restart:
		r.errorf("%s", r.text("%v; it is started again", exit))
		r.timer.Reset(restartDelay)
	case r.cmd.Watch:
		r.errorf("%s", r.text("%v; clients wait until %s changes", exit, r.command.Path))
	case exit.Code() == 0:
		r.notef("%s", r.text("%v", exit))
	default:
		r.errorf("%s", r.text("%v", exit))
	}
}

func (r *runner) startAgain() {
	if err := r.start(); err != nil {
		r.errorf("%s", r.text("%v", err))
		if r.cmd.Restart {
			r.timer.Reset(restartDelay)
		}
	}
}

// timeIsUp is the end of restartDelay, or of proofTime.
func (r *runner) timeIsUp() {
	switch {
	case r.stopping:
	case r.next != nil:
		r.replace()
	case r.current == nil:
		r.startAgain()
	}
}

// stop ends the service; the second time it does not ask.
func (r *runner) stop() {
	r.signals++
	r.stopping = true
	r.timer.Stop()
	s, how := unix.SIGTERM, "stopping; a second signal kills"
	if r.signals > 1 {
		s, how = unix.SIGKILL, "killing"
	}
	all := slices.Clone(r.leaving)
	for _, i := range []*instance{r.current, r.next} {
		if i != nil {
			all = append(all, i)
		}
	}
	if len(all) > 0 {
		r.notef("%s", r.text("%s", how))
	}
	for _, i := range all {
		r.signal(i, s)
	}
}

func (r *runner) signal(i *instance, s syscall.Signal) {
	if err := i.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.warnf("%s", r.text("%v", err))
	}
}
