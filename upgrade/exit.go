package upgrade

import (
	"log/slog"
	"sync"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// lastWords is how long each step of the end may take that waits for others.
const lastWords = 2 * time.Second

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
	main, abandoned := u.state.Main, e.Abandoned
	lead := u.peers[u.state.Lead]
	report := u.drainReport()
	report.Final, report.State = true, string(control.StateExited)
	if lead != nil && !abandoned && u.drainage != nil {
		_ = lead.conn.Send(report)
	}
	cut := toCounts(u.cut)
	for _, w := range u.awaitDrain {
		r := *w.confirmed
		r.Drained, r.Cut, r.Total = true, cut, time.Since(w.began).Seconds()
		w.finish(&r)
	}
	for _, w := range u.queue {
		w.finish(u.refusal(machine.Terminating, w.trigger))
	}
	for t := range u.timers {
		u.disarm(t)
	}
	go u.finish(main && u.state.Successor == false || main && u.state.Stopping)
}

// finish closes what this process holds, and lets Run return.
func (u *Upgrader) finish(removeControl bool) {
	u.mu.Lock()
	listeners, packets := u.listeners, u.packets
	u.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, p := range packets {
		_ = p.Close()
	}
	within(lastWords, &u.servings)
	u.systemd.close()
	u.closeControl(removeControl) // answers what is still asked
	ended := make(chan struct{})
	u.box.post(func() {
		for _, p := range u.peers {
			p.close()
		}
		if u.watchdog != nil {
			u.watchdog.Stop()
		}
		u.ended = true
		close(ended)
	})
	<-ended
	if d := u.drainage; d != nil && d.timer != nil {
		d.timer.Stop()
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
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
