package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

// How long it takes until idle connections have moved to the next generation, and
// what requests on them notice. It begins with the confirmation of the new
// generation and ends when net/http there has got the last connection.

// migration is what was measured of one upgrade.
type migration struct {
	took         time.Duration // from the confirmation until the last one had moved
	before       time.Duration // longest wait of a request in as long a time before the upgrade
	during       time.Duration // longest wait of a request that met the migration
	requests     int           // that met it
	late         int           // of them, over the limit of 50 ms
	old, new     time.Duration // CPU
	all          int           // connections
	failed       int           // requests, of all
	firstFailure error         // one of them
}

// tooLong is what no request should wait because of a migration.
const tooLong = 50 * time.Millisecond

// migrate measures migrations of pools of connections.
func (b *bench) migrate(ctx context.Context) error {
	t := new(table)
	t.row("connections", "all moved after", "connections/s", "longest wait before", "during", "ratio",
		"over 50 ms", "failed", "old CPU each", "new CPU each")
	for _, p := range b.scale.pools {
		if most := descriptors() - 200; p.conns > most {
			b.say("migrate: %d connections are more than RLIMIT_NOFILE allows; taking %d", p.conns, most)
			p.conns = most
		}
		var took, rate, before, during, ratio, oldCPU, newCPU series
		late, requests, failed := 0, 0, 0
		var first error
		for round := range p.rounds {
			b.say("migrate: %d connections, round %d of %d", p.conns, round+1, p.rounds)
			m, err := b.migrateOnce(ctx, p.conns)
			if err != nil {
				return err
			}
			n := float64(m.all)
			took = append(took, inMillis(m.took))
			rate = append(rate, n/m.took.Seconds())
			before = append(before, inMillis(m.before))
			during = append(during, inMillis(m.during))
			ratio = append(ratio, float64(m.during)/float64(max(m.before, 1)))
			oldCPU = append(oldCPU, inMicros(m.old)/n)
			newCPU = append(newCPU, inMicros(m.new)/n)
			late += m.late
			requests += m.requests
			failed += m.failed
			if first == nil {
				first = m.firstFailure
			}
		}
		t.row(grouped(float64(p.conns)), spread(took, millis), spread(rate, plain), spread(before, millis), spread(during, millis),
			spread(ratio, tenths), fmt.Sprintf("%d of %d", late, requests), fmt.Sprint(failed), spread(oldCPU, micros), spread(newCPU, micros))
		b.summary.migrations = append(b.summary.migrations, migrationSummary{p.conns, took, before, during, late, requests, failed})
		if first != nil {
			b.say("one of the requests that failed: %v", first)
		}
	}
	t.print(b.out, fmt.Sprintf("### Migration of idle connections (%s requests/s on them; medians and spread of several upgrades)", grouped(b.scale.postRate)))
	return nil
}

// descriptors is how many a process may have. Package os has raised the soft limit
// to the hard one.
func descriptors() int {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return 1024
	}
	return int(min(r.Max, 1<<30))
}

// migrateOnce upgrades a service with n idle connections.
func (b *bench) migrateOnce(ctx context.Context, n int) (m migration, err error) {
	p, err := start(ctx, kindHandoff)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	posts, err := newPosts(ctx, p.address, n, b.scale.postConns)
	if err != nil {
		return m, err
	}
	defer posts.close()
	watch, err := dial(ctx, p.address) // it moves, too
	if err != nil {
		return m, err
	}
	defer watch.close()
	if _, err := watch.stats(true); err != nil {
		return m, err
	}

	_, old := p.last()
	cpuBegin, err := cpuOf(old.pid)
	if err != nil {
		return m, err
	}
	stopPosts := posts.run(b.scale.postRate)
	select {
	case <-time.After(b.scale.before):
	case <-ctx.Done():
		stopPosts()
		return m, ctx.Err()
	}
	trigger := time.Now()
	cpuTrigger, err := cpuOf(old.pid)
	if err != nil {
		stopPosts()
		return m, err
	}

	var confirmed time.Time
	var cpuOld, cpuNew time.Duration // at the confirmation
	var cpuErr error
	err = p.upgrade(ctx, func(e control.Event) {
		if e.Phase == control.PhaseConfirmed {
			confirmed = e.Time
			_, heir := p.last()
			var errs [2]error
			cpuOld, errs[0] = cpuOf(old.pid)
			cpuNew, errs[1] = cpuOf(heir.pid)
			cpuErr = errors.Join(errs[:]...)
		}
	})
	if err == nil && cpuErr == nil {
		err = p.waitExited(ctx, 0)
	}
	results := stopPosts()
	if err := errors.Join(err, cpuErr); err != nil {
		return m, err
	}
	_, heir := p.last()
	end, err := watch.arrived(ctx, heir.pid, n+1)
	if err != nil {
		return m, err
	}
	if err := posts.probe(); err != nil {
		return m, err
	}

	m.all = end.Conns
	m.took = end.Newest.Sub(confirmed)
	quiet := 0
	for _, r := range results {
		switch finished := r.start.Add(r.wait); {
		case r.err != nil:
			m.failed++
			m.firstFailure = r.err
		case finished.Before(trigger):
			quiet++
			if trigger.Sub(finished) < m.took {
				m.before = max(m.before, r.wait)
			}
		case finished.After(confirmed) && r.start.Before(end.Newest):
			m.requests++
			m.during = max(m.during, r.wait)
			if r.wait > tooLong {
				m.late++
			}
		}
	}
	// The requests took CPU as well, as much as before, and while the connections
	// moved one by one it was half in either process.
	requests := time.Duration(m.requests) * (cpuTrigger - cpuBegin) / time.Duration(max(quiet, 1)) / 2
	m.old = p.generation(0).cpu - cpuOld - requests
	m.new = end.CPU - cpuNew - requests
	return m, nil
}

// arrived waits until process pid has got n connections, this one included, and
// returns its statistics. When the old generation is gone, the last ones may still
// be on their way from the link to net/http.
func (c *client) arrived(ctx context.Context, pid, n int) (stats, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		s, err := c.stats(false)
		switch {
		case err != nil:
			return s, err
		case s.PID == pid && s.Conns == n:
			return s, nil
		}
		select {
		case <-tick.C:
		case <-late:
			return s, fmt.Errorf("process %d has got %d connections, process %d should have got %d", s.PID, s.Conns, pid, n)
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
}
