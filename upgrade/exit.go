package upgrade

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// lastWords is how long each step of the end may take that waits for others.
const lastWords = time.Second

// exit ends this generation. The driver calls it; the rest is done beside it, so
// that it can go on answering until the very end.
func (u *Upgrader) exit(e machine.Exit) {
	switch {
	case u.failure != nil:
		u.endErr = u.failure
	case e.Abandoned:
		u.endErr = ErrAbandoned
		counts, _ := u.counts()
		u.log.LogAttrs(u.ctx, slog.LevelError, "the successor died; ending at once so that the service is started again", slog.Int("conns", counts.Total))
	case e.Orphaned:
		u.endErr = ErrOrphaned
	}
	if lead := u.peers[u.state.Lead]; lead != nil && u.drainage != nil && !e.Abandoned {
		report := u.newReport()
		report.Final, report.State = true, string(control.StateExited)
		_ = lead.conn.Send(report) // if main is gone as well, nobody needs it
	}
	cut := toCounts(u.cut)
	if e.Abandoned {
		cut, _ = u.counts()
	}
	for _, w := range u.awaitDrain {
		r := *w.confirmed
		r.Drained, r.Cut, r.Total = !e.Abandoned, cut, time.Since(w.began).Seconds()
		r.Migrated, _ = u.moved()
		if e.Abandoned {
			r.Outcome, r.Error = control.OutcomeUnknown, abandonedError(&r)
		}
		w.finish(&r)
	}
	for _, w := range u.reloads {
		r := *w.confirmed
		if e.Abandoned {
			r.Outcome, r.Error = control.OutcomeUnknown, abandonedError(&r)
		}
		w.finish(&r)
	}
	for _, w := range u.queue {
		w.finish(u.refusal(machine.Terminating, w.trigger))
	}
	u.stopMoving(errors.New("this generation ends"))
	for _, p := range u.departed { // now, or never
		u.recordDeparted(p, causeOfDeath(p.pidfd, 0))
	}
	for t := range u.timers {
		u.disarm(t)
	}
	if d := u.drainage; d != nil {
		if d.timer != nil {
			d.timer.Stop()
		}
		d.cancel(ErrDrainDeadline) // of one that was abandoned: nobody waits any more
	}
	if u.watching != nil {
		u.watching.watcher.Stop()
		u.watching = nil
	}
	u.removePIDs()
	close(u.ending)
	go u.finish(u.state.Main)
}

// abandonedError is what has become of an upgrade whose new generation has died, and
// whose old one cannot take back.
func abandonedError(r *control.Result) *control.Error {
	return control.Errorf(control.CodeUnknown, "generation %d was confirmed, but died while generation %d drained; the service is ending", r.To, r.From)
}

// finish closes what this process holds, and lets Run return. With main, the
// service ends with it.
func (u *Upgrader) finish(main bool) {
	u.mu.Lock()
	listeners, packets := u.listeners, u.packets
	u.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, p := range packets {
		_ = p.gate.CloseRead() // who has read a datagram may still answer it
	}
	within(lastWords, &u.servings)
	u.systemd.close()
	u.closeControl(main) // when what was asked is answered
	ended := make(chan struct{})
	u.box.post(func() {
		for _, p := range u.peers {
			u.closeReceiver(p)
			p.close()
		}
		if u.previous != nil {
			_ = u.previous.file.Close()
		}
		if u.watchdog != nil {
			u.watchdog.Stop()
		}
		u.ended = true
		close(ended)
	})
	<-ended
	within(lastWords, &u.wg)
	u.records.close(lastWords)
	_ = u.page.Close()
	if u.exe != nil {
		_ = u.exe.Close()
	}
	if err := u.table.close(); err != nil {
		u.log.LogAttrs(u.ctx, slog.LevelWarn, "close sockets", slog.Any("err", err))
	}
	_ = u.pidfd.Close()
	close(u.over)
}

// within waits for wg, but not for ever.
func within(limit time.Duration, wg *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	await(done, limit)
}

// await waits until done is closed, for at most limit, and tells whether it was.
func await(done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
