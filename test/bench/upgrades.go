package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hdctl/handoff/test/load"
)

// What clients notice of upgrades, and what an upgrade costs, for three ways to do
// it. The clients do not retry; those with a pool see a close that has arrived
// before they write, as good clients do.

// ways are those that are compared.
var ways = []struct {
	name string
	kind string
	env  string
}{
	{"tableflip + Shutdown", kindTableflip, "HANDOFF_MIGRATE=on"}, // knows nothing of it
	{"lame duck", kindHandoff, "HANDOFF_MIGRATE=off"},
	{"migration", kindHandoff, "HANDOFF_MIGRATE=on"},
}

// noticed is what was measured of one way. Each series has a value for each round,
// or for each upgrade.
type noticed struct {
	failed     series // an upgrade, by round
	reconnects series // an upgrade, by round
	longest    series // wait for the header of an answer, by round
	answers    series // the first answer of the new generation after, by upgrade
	gone       series // the old generation after, by upgrade
	cpu        series // of an upgrade without clients, by round
	requests   int
}

// upgrades compares the ways.
func (b *bench) upgrades(ctx context.Context) error {
	results := make([]noticed, len(ways))
	for round := range b.scale.loadRounds {
		for i := range ways {
			// Another order in each round.
			w := (i + round) % len(ways)
			b.say("upgrades: %s, round %d of %d", ways[w].name, round+1, b.scale.loadRounds)
			if err := b.quietUpgrades(ctx, w, &results[w]); err != nil {
				return fmt.Errorf("%s, without clients: %w", ways[w].name, err)
			}
			if err := b.loadedUpgrades(ctx, w, &results[w]); err != nil {
				return fmt.Errorf("%s: %w", ways[w].name, err)
			}
		}
	}
	b.upgradesTable(results).print(b.out, fmt.Sprintf("### Upgrades under load (%d rounds of %d; %s new connections/s, %s POST/s on %d kept connections without retry, slow answers, downloads)",
		b.scale.loadRounds, b.scale.upgrades, grouped(b.scale.newRate), grouped(b.scale.keptRate), b.scale.kept))
	b.summary.upgrades, b.summary.kept = results, b.scale.kept
	return nil
}

func (b *bench) upgradesTable(results []noticed) *table {
	t := new(table)
	head := []string{""}
	for _, w := range ways {
		head = append(head, w.name)
	}
	t.row(head...)
	add := func(name string, cell func(n noticed) string) {
		row := []string{name}
		for _, n := range results {
			row = append(row, cell(n))
		}
		t.row(row...)
	}
	add("requests", func(n noticed) string { return plain(float64(n.requests)) })
	add("failed requests an upgrade", func(n noticed) string { return spread(n.failed, tenths) })
	add(fmt.Sprintf("forced reconnects an upgrade, of %d", b.scale.kept), func(n noticed) string { return spread(n.reconnects, tenths) })
	add("longest wait of a request", func(n noticed) string { return spread(n.longest, millis) })
	add("new version answers after, p50", func(n noticed) string { return millis(n.answers.median()) })
	add("new version answers after, longest", func(n noticed) string { return millis(n.answers.max()) })
	add("old version gone after, p50", func(n noticed) string { return millis(n.gone.median()) })
	add("CPU an upgrade, no clients", func(n noticed) string { return spread(n.cpu, millis) })
	add("CPU an upgrade, ratio to the first", func(n noticed) string {
		return hundredths(n.cpu.median() / results[0].cpu.median())
	})
	return t
}

// startWay starts a service that is upgraded in that way.
func startWay(ctx context.Context, w int) (*process, error) {
	return start(ctx, ways[w].kind, ways[w].env)
}

// loadedUpgrades upgrades a service under load.
func (b *bench) loadedUpgrades(ctx context.Context, w int, n *noticed) (err error) {
	p, err := startWay(ctx, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	s := b.scale
	l := load.Start(ctx, load.Options{
		Network: "tcp", Address: p.address,
		New:       load.Traffic{Conns: 8, Rate: s.newRate},
		KeepAlive: load.Traffic{Conns: s.kept, Rate: s.keptRate},
		Slow:      load.Traffic{Conns: 4, Rate: 8}, SlowTime: 400 * time.Millisecond,
		Download: load.Traffic{Conns: 2, Rate: 4}, DownloadSize: 1 << 20,
		Timeout: requestTimeout,
	})
	defer l.Stop()
	// All are connected, most have had a request.
	if err := l.Wait(ctx, func(r load.Report) bool {
		c := r.ByKind[load.KeepAlive]
		return c.Dials >= s.kept && c.Responses >= 2*s.kept
	}); err != nil {
		return err
	}
	var triggers []time.Time
	for range s.upgrades {
		i, _ := p.last()
		trigger := time.Now()
		triggers = append(triggers, trigger)
		if err := p.upgrade(ctx, nil); err != nil {
			return err
		}
		if p.kind == kindTableflip { // it refuses a second upgrade until then
			if err := p.waitExited(ctx, i); err != nil {
				return err
			}
		}
		// It goes on when things have settled, at a moment that nothing else has
		// chosen.
		select {
		case <-time.After(max(time.Until(trigger.Add(s.interval)), s.interval/8)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	report := l.Stop()
	for i, trigger := range triggers {
		if err := p.waitExited(ctx, i); err != nil {
			return err
		}
		n.gone = append(n.gone, inMillis(p.generation(i).exited.Sub(trigger)))
		pid := p.generation(i + 1).pid
		for _, served := range report.Served {
			if served.PID == pid {
				n.answers = append(n.answers, inMillis(served.First.Sub(trigger)))
			}
		}
	}
	total, each := report.Total(), float64(s.upgrades)
	n.requests += total.Requests
	// Not Failed: a connection that broke without a request is among those made again.
	n.failed = append(n.failed, float64(total.Requests-total.Responses-total.Aborted)/each)
	n.reconnects = append(n.reconnects, float64(report.ByKind[load.KeepAlive].Dials-s.kept)/each)
	n.longest = append(n.longest, inMillis(total.LongestWait))
	for _, f := range report.Failures[:min(len(report.Failures), 2)] {
		b.say("  failed: %s", f)
	}
	return nil
}

// quietUpgrades measures the CPU of upgrades: that of all generations, but for the
// start of the first.
func (b *bench) quietUpgrades(ctx context.Context, w int, n *noticed) (err error) {
	p, err := startWay(ctx, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	first := p.generation(0)
	c, err := dial(ctx, p.address)
	if err != nil {
		return err
	}
	_, err = c.stats(false) // it answers: its start is over
	c.close()
	if err != nil {
		return err
	}
	before, err := cpuOf(first.pid)
	if err != nil {
		return err
	}
	for range b.scale.quiet {
		i, _ := p.last()
		if err := p.upgrade(ctx, nil); err != nil {
			return err
		}
		if err := p.waitExited(ctx, i); err != nil {
			return err
		}
	}
	_, last := p.last()
	after, err := cpuOf(last.pid)
	if err != nil {
		return err
	}
	for i := range b.scale.quiet {
		after += p.generation(i).cpu
	}
	n.cpu = append(n.cpu, inMillis(after-before)/float64(b.scale.quiet))
	return nil
}
