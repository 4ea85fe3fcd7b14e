package upgrade

import (
	"context"
	"log/slog"
	"time"

	"github.com/hdctl/handoff/upgrade/internal/sdnotify"
)

// barrierTimeout is how long systemd may take to process what it was told. Its
// answer comes within milliseconds, unless it is stopped or older than 246 and
// knows no barrier.
const barrierTimeout = 5 * time.Second

// systemd talks to systemd and to the journal, in order: the driver never waits for
// either.
type systemd struct {
	worker
	n   *sdnotify.Notifier // nil: not started by systemd
	log *slog.Logger
}

func newSystemd(address string, log *slog.Logger) *systemd {
	return &systemd{worker: newWorker(), n: sdnotify.New(address), log: log}
}

// notify sends one datagram.
func (s *systemd) notify(lines ...string) {
	s.do(func() {
		if err := s.n.Send(lines...); err != nil {
			s.log.LogAttrs(context.Background(), slog.LevelError, "systemd not notified", slog.Any("err", err))
		}
	})
}

// handOver tells systemd who the main process is, waits until it has taken note,
// and calls then with whether it could be told. A barrier that is not answered is
// no failure: the datagram is in systemd's queue.
//
// endReload ends a reload for which systemd has sent SIGHUP to a process that cannot
// answer any more, and to which READY=1 alone is no answer. Where there is none the
// last line of the two counts.
func (s *systemd) handOver(pid int, status string, endReload bool, then func(ok bool)) {
	s.do(func() {
		lines := []string{sdnotify.MainPID(pid)}
		if endReload {
			lines = append(lines, sdnotify.Reloading())
		}
		if err := s.n.Send(append(lines, sdnotify.Ready, sdnotify.Status(status))...); err != nil {
			s.log.LogAttrs(context.Background(), slog.LevelError, "systemd not told of the new main process", slog.Int("pid", pid), slog.Any("err", err))
			then(false)
			return
		}
		s.barrier(barrierTimeout)
		then(true)
	})
}

// stopping tells systemd that the service stops, and sees to it that this process
// ends only when systemd has read that. If it read it later, when it has started
// the service again already, it would take it for the new process's (systemd 262
// then refuses that one's READY=1). A reload ends before.
func (s *systemd) stopping(reloading bool) {
	if reloading {
		s.notify(sdnotify.Ready)
	}
	s.notify(sdnotify.Stopping, sdnotify.Status("stopping"))
	s.do(func() { s.barrier(lastWords) })
}

// barrier waits until systemd has processed all that it was told, for at most
// limit.
func (s *systemd) barrier(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := s.n.Barrier(ctx); err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "systemd has not confirmed that it read its messages", slog.Any("err", err))
	}
}

// close executes what was asked, within lastWords and a little, and ends.
func (s *systemd) close() {
	s.do(func() { _ = s.n.Close() })
	s.worker.close(lastWords + lastWords/2)
}
