package upgrade

import (
	"context"
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
)

// hurryTimeout is what is left of a drain that main wants to end.
const hurryTimeout = 5 * time.Second

// cutGrace is what servers get after the deadline to return from Drain.
const cutGrace = 2 * time.Second

// reportInterval is the pace at which a draining generation looks for something
// new to report, reportAtLeast how often it reports without anything new.
const (
	reportInterval = 250 * time.Millisecond
	reportAtLeast  = time.Second
)

// drainage is a drain that is under way. It belongs to the driver.
type drainage struct {
	cancel   context.CancelCauseFunc
	stop     chan struct{}
	stopping bool
	deadline time.Time // zero: none
	timer    *time.Timer
}

// drain starts the drain, or shortens the one under way.
func (u *Upgrader) drain(stop bool) {
	timeout := u.set.drainTimeout
	if stop {
		timeout = u.set.stopTimeout
	}
	d := u.drainage
	if d == nil {
		ctx, cancel := context.WithCancelCause(context.Background())
		d = &drainage{cancel: cancel, stop: make(chan struct{})}
		u.drainage = d
		close(u.draining)
		u.wg.Go(func() { u.runDrain(ctx, d.stop) })
		if !stop {
			u.wg.Go(stepBack)
		}
	}
	if stop && !d.stopping {
		d.stopping = true
		close(d.stop)
	}
	if timeout > 0 {
		u.limitDrain(time.Now().Add(timeout))
	}
	u.reportDrain()
}

// stepBack makes an old generation the one that goes first when memory runs out,
// and gives back what it does not need any more: its successor does the work now.
// With OOMPolicy=continue the others survive its end.
func stepBack() {
	const path = "/proc/self/oom_score_adj" // proc_pid_oom_score_adj(5): raising it needs no privilege
	if text, err := os.ReadFile(path); err == nil {
		if score, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			_ = os.WriteFile(path, strconv.AppendInt(nil, int64(min(score+300, 1000)), 10), 0)
		}
	}
	debug.FreeOSMemory()
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
	d.timer = time.AfterFunc(time.Until(deadline), func() { d.cancel(ErrDrainDeadline) })
	u.publish()
}

// runDrain waits until nothing is left, or the deadline, cuts what is left then,
// and tells the driver.
func (u *Upgrader) runDrain(ctx context.Context, stop chan struct{}) {
	u.mu.Lock()
	listeners, servers := u.listeners, u.servers
	u.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() {
			l.settle()
			ctx := context.WithValue(ctx, drainInfoKey{}, drainInfo{listener: l, stop: stop, grace: u.set.stopTimeout / 10})
			var drains sync.WaitGroup
			for _, s := range servers {
				if s.listener != l {
					continue
				}
				drains.Go(func() {
					if err := s.server.Drain(ctx); err != nil && ctx.Err() == nil {
						u.log.LogAttrs(ctx, slog.LevelWarn, "drain of a server", slog.String("listener", l.name), slog.Any("err", err))
					}
				})
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
	select {
	case <-done:
	case <-ctx.Done():
		timer := time.NewTimer(cutGrace)
		select {
		case <-done:
		case <-timer.C:
			u.log.LogAttrs(ctx, slog.LevelWarn, "a server has not ended its drain at the deadline")
		}
		timer.Stop()
	}
	var cut track.Counts
	for _, l := range listeners {
		cut = cut.Plus(l.conns.Cut())
		cut[track.Idle] += int(l.cutIdle.Load())
	}
	u.box.post(func() {
		u.cut = cut
		if n := cut.Total(); n > 0 {
			u.log.LogAttrs(u.ctx, slog.LevelWarn, "connections cut at the drain deadline", slog.Int("conns", n))
		}
		u.step(machine.Drained{})
	})
}

// counts counts the open connections of this generation.
func (u *Upgrader) counts() (total control.Counts, oldest time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all track.Counts
	for _, l := range u.listeners {
		c, first := l.conns.Counts()
		all = all.Plus(c)
		if !first.IsZero() && (oldest.IsZero() || first.Before(oldest)) {
			oldest = first
		}
	}
	return toCounts(all), oldest
}

func toCounts(c track.Counts) control.Counts {
	return control.Counts{Total: c.Total(), New: c[track.New], Active: c[track.Active], Idle: c[track.Idle], Stream: c[track.Stream]}
}

// reportDrain tells main how the drain goes, and goes on doing so.
func (u *Upgrader) reportDrain() {
	if u.state.Life != machine.Draining || u.state.Main {
		return
	}
	r := u.drainReport()
	news := r.Counts != u.reported.Counts || r.Cut != u.reported.Cut || r.Deadline != u.reported.Deadline
	if now := time.Now(); news || now.Sub(u.reportedAt) >= reportAtLeast {
		u.send(u.state.Lead, r)
		u.reported, u.reportedAt = r, now
	}
	if u.reportTimer != nil {
		u.reportTimer.Stop()
	}
	u.reportTimer = u.after(reportInterval, u.reportDrain)
}

func (u *Upgrader) drainReport() link.Report {
	counts, oldest := u.counts()
	r := link.Report{
		Generation: u.number, PID: u.pid, Version: u.opts.Version, State: string(control.StateDraining),
		Started: u.started.UnixNano(), Since: u.since.UnixNano(),
		Counts: link.Counts(counts), Cut: link.Counts(toCounts(u.cut)), RSS: u.rss(),
	}
	if !oldest.IsZero() {
		r.Oldest = oldest.UnixNano()
	}
	if d := u.drainage; d != nil && !d.deadline.IsZero() {
		r.Deadline = d.deadline.UnixNano()
	}
	return r
}
