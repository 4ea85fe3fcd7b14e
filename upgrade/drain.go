package upgrade

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/track"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// hurryTimeout is what is left of a drain that main wants to end.
const hurryTimeout = 5 * time.Second

// After the deadline those who have registered for it get goodbyeGrace to say
// goodbye. Then contexts are cancelled, which is all that some handlers look at,
// and after cutGrace what is left is closed.
const (
	goodbyeGrace = time.Second
	cutGrace     = time.Second
)

// reportInterval is the pace at which a generation that is not main looks for something
// new to report, reportAtLeast how often it reports without anything new.
const (
	reportInterval = 250 * time.Millisecond
	reportAtLeast  = time.Second
)

// drainage is a drain that is under way. It belongs to the driver.
type drainage struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	// final is closed when the generation ends with the drain: it is none that
	// can be taken back, or not any more.
	final chan struct{}
	// due is closed at the deadline.
	due  chan struct{}
	once sync.Once
	// stop is closed when it is that of a stop.
	stop chan struct{}
	hold bool // neither
	// receivers may still be adopting what they had begun with.
	receivers []*transfer.Receiver
	stopping  bool
	deadline  time.Time // zero: none
	timer     *time.Timer

	mu        sync.Mutex
	committed bool // what cannot be undone is being done
	reopened  bool // it is taken back
}

// commit asks for leave to do what cannot be undone. There is none of a drain that is
// taken back.
func (d *drainage) commit() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.committed = d.committed || !d.reopened
	return d.committed
}

// reopen decides that the drain is taken back, unless it is too late for that.
func (d *drainage) reopen() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reopened = d.reopened || !d.committed
	return d.reopened
}

// drain starts the drain with which this generation ends, or makes the one under
// way such a drain, or shortens it.
func (u *Upgrader) drain(stop bool) {
	timeout := u.set.drainTimeout
	if stop { // all of it: those who are cut in the end get their moment out of it
		timeout = u.set.stopTimeout - min(cutGrace, u.set.stopTimeout/4)
	}
	d := u.drainage
	if d == nil {
		if !stop {
			u.expectMover()
			u.wg.Go(stepBack)
		}
		d = u.beginDrain()
	}
	if !isClosed(d.final) {
		close(d.final)
	}
	d.hold, u.hold = false, nil
	if stop && !d.stopping {
		d.stopping = true
		close(d.stop)
		u.stopMoving(errors.New("the service is being stopped"))
		if u.expectation != nil {
			u.expectation.end()
		}
		u.goodbyes.hasten(u.allListeners())
	}
	if timeout > 0 {
		u.limitDrain(time.Now().Add(timeout))
	}
	u.reportOpen()
}

// beginDrain begins to say goodbye.
func (u *Upgrader) beginDrain() *drainage {
	d := &drainage{final: make(chan struct{}), due: make(chan struct{}), stop: make(chan struct{})}
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	d.receivers = u.refuseConnections()
	u.drainage = d
	u.mu.Lock()
	close(u.draining)
	u.mu.Unlock()
	u.goodbyes.begin(u.allListeners())
	u.wg.Go(func() { u.runDrain(d.ctx, d) })
	return d
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// allListeners returns the listeners of the service.
func (u *Upgrader) allListeners() []*Listener {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.listeners
}

// stepBack makes an old generation the one that goes first when memory runs out,
// and gives back what it does not need any more: its successor does the work now.
// With OOMPolicy=continue the others survive its end.
func stepBack() {
	addOOMScore(steppedBack) // raising it needs no privilege
	debug.FreeOSMemory()
}

// stepForward undoes that: this generation does the work again. The kernel allows it
// down to what the score was when somebody with the privilege has last set it.
func stepForward() { addOOMScore(-steppedBack) }

// steppedBack is what makes an old generation go first.
const steppedBack = 300

// addOOMScore changes the process's oom_score_adj (proc_pid_oom_score_adj(5)).
func addOOMScore(n int) {
	const path = "/proc/self/oom_score_adj"
	if text, err := os.ReadFile(path); err == nil {
		if score, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			_ = os.WriteFile(path, strconv.AppendInt(nil, int64(max(min(score+n, 1000), -1000)), 10), 0)
		}
	}
}

// limitDrain makes the deadline of the drain earlier, never later.
func (u *Upgrader) limitDrain(deadline time.Time) {
	d := u.drainage
	if d == nil || !d.deadline.IsZero() && d.deadline.Before(deadline) {
		return
	}
	d.deadline = deadline
	if d.timer != nil {
		d.timer.Stop()
	}
	d.timer = time.AfterFunc(time.Until(deadline), func() { d.once.Do(func() { close(d.due) }) })
	u.publish()
}

// runDrain waits until nothing is left, or the deadline, cuts what is left then,
// and tells the driver; or it ends because the drain was taken back.
func (u *Upgrader) runDrain(ctx context.Context, d *drainage) {
	u.mu.Lock()
	listeners, servers := u.listeners, u.servers
	u.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() {
			l.settle()
			for _, r := range d.receivers {
				r.Settle()
			}
			ctx := context.WithValue(ctx, drainInfoKey{}, drainInfo{
				listener: l, stop: d.stop, final: d.final, commit: d.commit, grace: u.set.stopTimeout / 10,
			})
			var drains sync.WaitGroup
			for _, s := range servers {
				if s.listener != l {
					continue
				}
				drains.Go(func() { u.drainServer(ctx, s, d) })
			}
			drains.Wait()
			_ = l.conns.WaitEmpty(ctx) // what no server of ours serves
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	var cut track.Counts
	select {
	case <-done:
		select {
		case <-d.final:
		case <-ctx.Done():
		}
		u.awaitLateSignals(ctx, d)
	case <-d.due:
		if !d.commit() {
			return
		}
		cut = u.cutLeftOvers(listeners, d, done)
	case <-ctx.Done(): // taken back, or abandoned
	}
	if errors.Is(context.Cause(ctx), ErrReopened) {
		return
	}
	for _, l := range listeners {
		cut[track.Idle] += int(l.evicted.Load())
	}
	u.box.post(func() {
		if u.drainage != d { // it was taken back in the last moment
			return
		}
		u.cut = cut
		if n := cut.Total(); n > 0 {
			u.log.LogAttrs(u.ctx, slog.LevelWarn, "connections cut at the drain deadline", slog.Int("conns", n))
		}
		u.step(machine.Drained{})
	})
}

func (u *Upgrader) drainServer(ctx context.Context, s serving, d *drainage) {
	if _, ok := s.server.(irreversible); ok {
		select {
		case <-d.final:
		case <-ctx.Done():
			return
		}
		if !d.commit() {
			return
		}
	}
	if err := s.server.Drain(ctx); err != nil && ctx.Err() == nil {
		u.log.LogAttrs(ctx, slog.LevelWarn, "drain of a server", slog.String("listener", s.listener.name), slog.Any("err", err))
	}
}

// cutLeftOvers ends what the deadline has found, politely if that is quick, and
// counts it: all that was open when the deadline came, but for what has moved on
// in the last moment.
func (u *Upgrader) cutLeftOvers(listeners []*Listener, d *drainage, done <-chan struct{}) (cut track.Counts) {
	var found [len(cut)][]*Conn // by phase
	for _, l := range listeners {
		for c := range l.conns.Each {
			p := c.entry.Phase()
			found[p] = append(found[p], c)
		}
	}
	u.goodbyes.hasten(listeners)
	for _, l := range listeners {
		l.cut(track.New, track.Idle) // they have nothing to say
	}
	if !isClosed(d.stop) { // otherwise they were told when it began
		waitEmpty(listeners, goodbyeGrace)
	}
	d.cancel(ErrDrainDeadline)
	waitEmpty(listeners, cutGrace)
	for _, l := range listeners {
		l.cut()
	}
	for p, conns := range found {
		for _, c := range conns {
			if c.entry.State()&moved == 0 {
				cut[p]++
			}
		}
	}
	if !await(done, cutGrace) {
		u.log.LogAttrs(u.ctx, slog.LevelWarn, "a server has not ended its drain at the deadline")
	}
	return cut
}

// waitEmpty waits until the listeners have no connection, or for limit.
func waitEmpty(listeners []*Listener, limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for _, l := range listeners {
		_ = l.conns.WaitEmpty(ctx)
	}
}

// counts counts the open connections of this generation.
func (u *Upgrader) counts() (total control.Counts, oldest time.Time) {
	var all track.Counts
	for _, l := range u.allListeners() {
		c, first := l.conns.Counts()
		all = all.Plus(c)
		if !first.IsZero() && (oldest.IsZero() || first.Before(oldest)) {
			oldest = first
		}
	}
	return toCounts(all), oldest
}

// moved counts the connections that this generation has handed on, and got.
func (u *Upgrader) moved() (migrated, adopted int) {
	for _, l := range u.allListeners() {
		migrated += int(l.migrated.Load())
		adopted += int(l.adopted.Load())
	}
	return migrated, adopted
}

func toCounts(c track.Counts) control.Counts {
	return control.Counts{
		Total: c.Total(), New: c[track.New], Active: c[track.Active], Idle: c[track.Idle],
		Stream: c[track.Stream], Hijacked: c[track.Hijacked],
	}
}

// reportOpen tells main what is open here, and goes on doing so: while this generation
// drains, and while it serves and is not main yet.
func (u *Upgrader) reportOpen() {
	switch u.state.Life {
	case machine.Staged, machine.Serving, machine.Draining:
	default:
		return
	}
	if u.state.Main {
		return
	}
	r := u.newReport()
	old := u.reported
	news := r.Counts != old.Counts || r.Cut != old.Cut || r.Deadline != old.Deadline || r.Migrated != old.Migrated || r.Note != old.Note
	if now := time.Now(); news || now.Sub(u.reportedAt) >= reportAtLeast {
		u.send(u.state.Lead, r)
		u.reported, u.reportedAt = r, now
	}
	if u.reportTimer != nil {
		u.reportTimer.Stop()
	}
	u.reportTimer = u.after(reportInterval, u.reportOpen)
}

func (u *Upgrader) newReport() link.Report {
	state := control.StateDraining
	switch u.state.Life {
	case machine.Staged:
		state = control.StateStaged
	case machine.Serving:
		state = control.StateServing
	}
	counts, oldest := u.counts()
	migrated, _ := u.moved()
	r := link.Report{
		Generation: u.number, PID: u.pid, Version: u.opts.Version, State: string(state),
		Started: u.started.UnixNano(), Since: u.since.UnixNano(),
		Counts: link.Counts(counts), Cut: link.Counts(toCounts(u.cut)), RSS: u.rss(),
		Migrated: migrated, Note: u.note,
	}
	if !oldest.IsZero() {
		r.Oldest = oldest.UnixNano()
	}
	if d := u.drainage; d != nil && !d.deadline.IsZero() {
		r.Deadline = d.deadline.UnixNano()
	}
	return r
}
