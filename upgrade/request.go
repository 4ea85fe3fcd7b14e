package upgrade

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// maxReason is how much of a reason is kept, in bytes.
const maxReason = 256

// waiter is somebody who asked for an upgrade and waits for its result. Its
// fields belong to the driver, but for result.
type waiter struct {
	req      control.UpgradeRequest
	trigger  control.Trigger
	began    time.Time
	deadline time.Time // zero: none
	expire   *time.Timer
	// confirmed is the result of one who waits for the drain, too.
	confirmed *control.Result
	// queued gets a word for one who has to wait for its turn.
	queued chan control.Event // has room for one
	// program is what shall run.
	program program
	beside  bool // asked for by nginx's signal
	reload  bool // systemd waits: see requestReload
	told    bool // systemd was: RELOADING=1
	// begun is closed when its upgrade begins; firstEvent is the number of the
	// last event before that.
	begun      chan struct{}
	firstEvent uint64
	result     chan *control.Result // has room for one
	// then is called with the result, by the driver.
	then func(*control.Result)
}

// finish answers the one who waits. The driver calls it.
func (w *waiter) finish(r *control.Result) {
	w.answer(r)
	if w.then != nil {
		w.then(r)
	}
}

// answer does so where the driver has ended.
func (w *waiter) answer(r *control.Result) {
	if w.expire != nil {
		w.expire.Stop()
	}
	select {
	case w.result <- r:
	default:
	}
}

// begins lets w see the events that come after number last.
func (w *waiter) begins(last uint64) {
	w.firstEvent = last
	close(w.begun)
}

// clip cuts a reason at the limit of the API, and not inside of a character.
func clip(reason string) string {
	if len(reason) <= maxReason {
		return reason
	}
	return strings.ToValidUTF8(reason[:maxReason], "")
}

// newWaiter makes one.
func (u *Upgrader) newWaiter(req control.UpgradeRequest, trigger control.Trigger) *waiter {
	w := &waiter{
		req: req, trigger: trigger, began: time.Now(),
		queued: make(chan control.Event, 1), begun: make(chan struct{}), result: make(chan *control.Result, 1),
	}
	// What crosses a link has a limit; the API cuts at the same place.
	w.trigger.Reason = clip(trigger.Reason)
	timeout := u.set.requestTimeout()
	if req.Timeout > 0 {
		timeout = durationOf(req.Timeout)
	}
	if timeout > 0 {
		w.deadline = w.began.Add(timeout)
	}
	return w
}

// request asks for an upgrade and waits for its result. emit is called, in this
// goroutine, for each event of it on the way. When ctx ends first the upgrade goes
// on, and there is no result.
func (u *Upgrader) request(ctx context.Context, req control.UpgradeRequest, trigger control.Trigger, emit func(control.Event)) (*control.Result, error) {
	w := u.newWaiter(req, trigger)
	w.beside = trigger.Via == control.ViaSignal && req.Stage > 0
	if req.Binary != "" {
		if e := u.otherBinary(req.Binary); e != nil {
			return refused(w.trigger, u.number, e), nil
		}
		w.program.Path = req.Binary
	}
	if req.DryRun {
		return u.dryRun(ctx, w), nil
	}
	if req.IfChanged {
		if r := u.unchanged(w); r != nil {
			return r, nil
		}
	}
	return u.await(ctx, w, u.submit, emit)
}

// await has the driver begin with a request, and waits for its result.
func (u *Upgrader) await(ctx context.Context, w *waiter, begin func(*waiter), emit func(control.Event)) (*control.Result, error) {
	if !u.box.post(func() { begin(w) }) {
		return u.refusal(machine.Terminating, w.trigger), nil
	}
	for waits := true; waits; {
		select {
		case e := <-w.queued:
			emit(e)
		case <-w.begun:
			waits = false
		case r := <-w.result:
			return r, nil
		case <-ctx.Done():
			return u.lastAnswer(ctx, w)
		case <-u.ending:
			return u.lastAnswer(ctx, w)
		}
	}
	for seq := w.firstEvent; ; {
		events, next, more := u.events.after(seq)
		seq = next
		for _, e := range events {
			emit(e)
		}
		select {
		case r := <-w.result:
			events, _, _ := u.events.after(seq)
			for _, e := range events {
				emit(e)
			}
			return r, nil
		case <-more:
		case <-ctx.Done():
			return u.lastAnswer(ctx, w)
		case <-u.ending:
			return u.lastAnswer(ctx, w)
		}
	}
}

// lastAnswer is the end of the waiting because ctx is done or this generation
// ends, which ends the contexts of requests on the control socket, too. A result
// that is there counts, and the one of an upgrade that the end has cut short is on
// its way.
func (u *Upgrader) lastAnswer(ctx context.Context, w *waiter) (*control.Result, error) {
	timer := time.NewTimer(lastWords / 2)
	defer timer.Stop()
	select {
	case <-u.ending:
	default:
		timer.Reset(0)
	}
	select {
	case r := <-w.result:
		return r, nil
	case <-timer.C:
	}
	select {
	case r := <-w.result:
		return r, nil
	case <-u.ending:
		return u.refusal(machine.Terminating, w.trigger), nil
	default:
		return nil, context.Cause(ctx)
	}
}

// submit starts an upgrade, queues the request, or refuses it. The driver calls it.
func (u *Upgrader) submit(w *waiter) {
	if u.state.Life == machine.Exited { // the machine answers nothing any more
		w.finish(u.refusal(machine.Terminating, w.trigger))
		return
	}
	if os.Getpid() == 1 {
		w.finish(refused(w.trigger, u.number, control.Errorf(control.CodeContainer,
			"this process is PID 1 of its PID namespace; when it ends, so does the container, the new generation included").
			WithHint("run the service under an init (docker run --init), or replace the container")))
		return
	}
	if r := u.pausedResult(w); r != nil {
		w.finish(r)
		return
	}
	if w.req.Queue && u.state.Main && !u.state.Stopping && u.state.Candidate.Phase != machine.None && u.decides() {
		u.queue = append(u.queue, w)
		w.queued <- control.Event{
			Time: time.Now(), Seq: u.events.last(), Phase: control.PhaseQueued,
			Message: fmt.Sprintf("waiting for the upgrade to generation %d to end", u.state.Candidate.Number),
		}
		if !w.deadline.IsZero() {
			w.expire = time.AfterFunc(time.Until(w.deadline), func() {
				u.box.post(func() { u.expireQueued(w) })
			})
		}
		u.publish()
		return
	}
	u.begin([]*waiter{w})
}

// decides tells whether the upgrade in progress ends by itself.
func (u *Upgrader) decides() bool {
	c := u.state.Candidate
	return c.Phase != machine.OnStage && !c.Manual
}

// expireQueued answers a request whose time ran out before its turn came.
func (u *Upgrader) expireQueued(w *waiter) {
	for i, q := range u.queue {
		if q == w {
			u.queue = append(u.queue[:i:i], u.queue[i+1:]...)
			w.finish(u.expired(w))
			u.publish()
			return
		}
	}
}

// expired is the result of a request that waited in vain.
func (u *Upgrader) expired(w *waiter) *control.Result {
	return &control.Result{
		Outcome: control.OutcomeTimedOut, From: u.number, FromPID: u.pid, Trigger: w.trigger, Phase: control.PhaseQueued,
		Total: time.Since(w.began).Seconds(),
		Error: control.Errorf(control.CodeTimedOut, "the upgrade in progress did not end in time; nothing was tried within %v", round(time.Since(w.began))),
	}
}

// begin starts an upgrade for those who wait for it. The earliest of their
// deadlines is that of the upgrade: what was answered as failed must not happen
// later.
func (u *Upgrader) begin(waiters []*waiter) {
	if waiters = u.inTime(waiters); len(waiters) == 0 {
		return
	}
	w := waiters[0]
	a := &attempt{
		number: u.state.Next, began: w.began, trigger: w.trigger, waiters: waiters,
		program: w.program, stage: u.newStage(w.req), beside: w.beside,
	}
	if len(waiters) > 1 || time.Since(w.began) > time.Second {
		a.began = time.Now() // it waited
	}
	for _, w := range waiters {
		if w.expire != nil {
			w.expire.Stop()
		}
		w.firstEvent = u.events.last()
		if !w.deadline.IsZero() && (a.deadline.IsZero() || w.deadline.Before(a.deadline)) {
			a.deadline = w.deadline
		}
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	u.asking = w
	last := u.attempt
	if u.state.Candidate.Phase == machine.None {
		u.attempt = a
	}
	u.reloadsBegin(waiters)
	u.step(machine.Upgrade{Stage: a.stage != nil})
	if u.asking != nil {
		u.asking = nil
		for _, w := range waiters {
			close(w.begun)
		}
		return
	}
	u.attempt = last // refused, and waiters[0] knows
	a.cancel()
	for _, w := range waiters[1:] {
		w.finish(u.refusal(machine.Terminating, w.trigger))
	}
}

// inTime answers those who have waited so long that there is no time left for an
// upgrade, so that their deadline is not that of the others, who are returned.
func (u *Upgrader) inTime(waiters []*waiter) []*waiter {
	var rest []*waiter
	for _, w := range waiters {
		if w.deadline.IsZero() || time.Until(w.deadline) > u.set.probation || len(waiters) == 1 {
			rest = append(rest, w)
			continue
		}
		w.finish(u.expired(w))
	}
	return rest
}

// refuseQueue answers those who wait for an upgrade that turns out not to end by
// itself.
func (u *Upgrader) refuseQueue() {
	queue := u.queue
	u.queue = nil
	for _, w := range queue {
		w.finish(u.refusal(machine.InProgress, w.trigger))
	}
}

// nextInQueue starts the upgrade that others wait for, once there is none in
// progress; where another generation is main by now, that one is to be asked.
func (u *Upgrader) nextInQueue() {
	if len(u.queue) == 0 || u.state.Candidate.Phase != machine.None || u.attempt != nil {
		return
	}
	queue := u.queue
	u.queue = nil
	switch {
	case u.state.Stopping:
		for _, w := range queue {
			w.finish(u.refusal(machine.Terminating, w.trigger))
		}
	case !u.state.Main: // who waited asks again, as [control.Client] does
		for _, w := range queue {
			w.finish(u.refusal(machine.NotMain, w.trigger))
		}
	default:
		u.beginQueued(queue)
	}
}

// beginQueued starts the upgrade of those who have waited. They share one, if they
// want the same; the others go on waiting.
func (u *Upgrader) beginQueued(queue []*waiter) {
	var same []*waiter
	for _, w := range queue {
		switch first, paused := queue[0], u.pausedResult(w); {
		case paused != nil:
			w.finish(paused)
		case w.program == first.program && w.req.Stage == first.req.Stage && (w.req.Auto == nil) == (first.req.Auto == nil):
			same = append(same, w)
		default:
			u.queue = append(u.queue, w)
		}
	}
	if len(same) > 0 {
		u.begin(same)
	}
	if len(u.queue) > 0 { // if nothing has begun, nothing would come that ends
		u.box.post(u.nextInQueue)
	}
}

// refusal is the answer where nothing was tried.
func (u *Upgrader) refusal(o machine.Outcome, trigger control.Trigger) *control.Result {
	var e *control.Error
	switch o {
	case machine.InProgress:
		e = control.Errorf(control.CodeInProgress, "an upgrade is in progress").
			WithHint("wait for it, or join the queue: hdctl upgrade --queue %s", u.name)
		if a := u.attempt; a != nil {
			e.Message = "an upgrade to generation " + describeAttempt(a) + " is in progress"
			if !u.decides() {
				e.Message += " and waits for a decision"
				e = e.WithHint("decide about it: hdctl promote %s, or hdctl rollback %s", u.name, u.name)
			}
		}
	case machine.Crowded:
		e = control.Errorf(control.CodeCrowded, "%d old generations drain, and more than %d may not: %s",
			len(u.state.Drainers), u.set.maxDraining, u.listDrainers()).
			WithHint("wait for them (hdctl wait --for=drained %s) or end them (hdctl end %s)", u.name, u.name)
	case machine.Held:
		e = control.Errorf(control.CodeHeld, "the door of generation %d was closed by a drain request", u.number).
			WithHint("open it first: hdctl drain --undo %s", u.name)
	case machine.NotServing:
		e = control.Errorf(control.CodeNotServing, "generation %d is not ready yet", u.number).
			WithHint("wait until it serves: hdctl status %s", u.name)
	case machine.NotMain:
		e = control.Errorf(control.CodeNotMain, "generation %d is not the main one", u.number).
			WithHint("ask the main one, on the control socket: hdctl upgrade %s", u.name)
	default:
		e = control.Errorf(control.CodeStopping, "the service is being stopped")
	}
	return refused(trigger, u.number, e)
}

// listDrainers names those who are in the way.
func (u *Upgrader) listDrainers() string {
	var list []string
	for _, number := range u.state.Drainers {
		p := u.peers[number]
		if p == nil {
			continue
		}
		text := fmt.Sprintf("generation %d (pid %d, %s)", number, p.pid, p.version)
		if r := p.report; !p.reported.IsZero() {
			text = fmt.Sprintf("generation %d (pid %d, %s) with %d connections", number, p.pid, p.version, r.Total)
			if r.Deadline != 0 {
				text += fmt.Sprintf(" for up to %v", round(time.Until(time.Unix(0, r.Deadline))))
			}
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

func refused(trigger control.Trigger, number int, e *control.Error) *control.Result {
	return &control.Result{Outcome: control.OutcomeRefused, From: number, FromPID: os.Getpid(), Trigger: trigger, Error: e}
}
