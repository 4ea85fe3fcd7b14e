package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/upgrade/control"
)

// For how long nobody answers when a new version dies, or hangs, and the old one
// takes over again: seen by clients that connect at a fixed rate, from the moment of
// the fault to the first good answer of the old version.

// faultKinds are what goes wrong.
var faultKinds = []struct {
	name   string
	fault  fault
	late   bool // after the confirm, while the old generation drains
	memory bool // the new process is a large one
}{
	{"SIGKILL, on probation", (*faultRound).kill, false, false},
	{"SIGKILL, while the old one drains", (*faultRound).kill, true, false},
	{"SIGKILL of a large process, on probation", (*faultRound).kill, false, true},
	{"SIGKILL of a large process, while the old one drains", (*faultRound).kill, true, true},
	{"SIGSTOP, on probation", (*faultRound).stop, false, false},
	{"the accept loop is stuck, on probation", (*faultRound).stick, false, false},
}

// hangTimeout is how long a new version may hang before it is replaced.
const hangTimeout = 500 * time.Millisecond

// fault has the newest process go wrong. It returns when it did, and how much of the
// time after that is a threshold.
type fault func(*faultRound, context.Context) (at time.Time, threshold time.Duration, err error)

// felt is what was measured of one kind of fault, by round.
type felt struct {
	back     series // until the old version has answered
	excess   series // less the threshold
	lost     int    // requests that were in the hands of a process that died
	refused  int    // connections
	requests int
	late     time.Duration // the client itself, at most
}

// faults measures all kinds.
func (b *bench) faults(ctx context.Context) error {
	t := new(table)
	t.row("", "times", "the old one answers after, p50", "longest", "beyond the threshold, p50", "longest", "lost with the process, each", "refused", "client late, at most")
	for _, k := range faultKinds {
		rounds := b.scale.faults
		if k.memory {
			rounds = b.scale.largeFaults
		}
		b.say("faults: %s, %d times", k.name, rounds)
		n, err := b.feel(ctx, rounds, k.fault, k.late, k.memory)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		t.row(k.name, strconv.Itoa(rounds), millis(n.back.median()), millis(n.back.max()),
			millis(n.excess.median()), millis(n.excess.max()), tenths(float64(n.lost)/float64(rounds)),
			fmt.Sprintf("%d of %s", n.refused, grouped(float64(n.requests))), millis(inMillis(n.late)))
		b.felt = append(b.felt, n)
	}
	t.print(b.out, fmt.Sprintf("### A new version goes wrong (%s new connections/s; hang timeout %v; a large process has %s MiB)",
		grouped(b.scale.arrivals), hangTimeout, grouped(float64(b.scale.memory))))
	return nil
}

// feel has new versions of one service go wrong, one after the other.
func (b *bench) feel(ctx context.Context, rounds int, strike fault, late, large bool) (n felt, err error) {
	limit := patience
	if late {
		limit = time.Millisecond
	}
	p, err := start(ctx, kindHandoff, weakEnv+"=1", "HANDOFF_PROBATION="+limit.String(), "HANDOFF_HANG_TIMEOUT="+hangTimeout.String())
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	// While it has not been answered, the generation that has this request drains.
	held, err := dial(ctx, p.address)
	if err != nil {
		return n, err
	}
	defer held.close()
	if _, err := held.conn.Write(get("/sleep?ms=3600000")); err != nil {
		return n, err
	}
	l := load.Start(ctx, load.Options{Network: "tcp", Address: p.address, Arrivals: b.scale.arrivals, Timeout: requestTimeout})
	defer l.Stop()
	if err := l.Wait(ctx, func(r load.Report) bool { return r.Total().Responses >= 50 }); err != nil { // it is ready
		return n, err
	}
	var faults []faultRound
	for range rounds {
		r := faultRound{bench: b, process: p, load: l, old: p.generation(0).pid}
		if err := r.run(ctx, strike, late, large); err != nil {
			return n, err
		}
		faults = append(faults, r)
	}
	report := l.Stop()
	for _, r := range faults {
		back := r.back(report.Arrivals)
		n.back = append(n.back, inMillis(back))
		n.excess = append(n.excess, inMillis(back-r.threshold))
	}
	failed := report.Arrivals.Failed()
	n.requests, n.refused, n.late = len(report.Arrivals), failed[load.Refused], report.Arrivals.Late()
	n.lost = failed[load.Reset] + failed[load.EOF]
	if others := report.Total().Failed - n.lost - n.refused; others > 0 {
		return n, fmt.Errorf("%d requests failed in other ways: %v", others, failed)
	}
	return n, nil
}

// faultRound is one version that goes wrong.
type faultRound struct {
	bench     *bench
	process   *process
	load      *load.Load
	old, new  int // PIDs
	at        time.Time
	threshold time.Duration
}

// run upgrades, has the new version go wrong when it serves, and returns when the old
// one does again.
func (r *faultRound) run(ctx context.Context, strike fault, late, large bool) error {
	i, _ := r.process.last()
	var upgrading sync.WaitGroup
	var result *control.Result
	var failure error
	starting, failed := context.WithCancelCause(ctx)
	upgrading.Go(func() {
		if result, failure = r.process.client.Upgrade(ctx, control.UpgradeRequest{}, nil); failure != nil {
			failed(failure)
		}
	})
	err := r.process.wait(starting, "the next version listens", func(gs []generation) bool { return len(gs) > i+1 })
	if err != nil {
		return errors.Join(err, context.Cause(starting))
	}
	_, g := r.process.last()
	r.new = g.pid
	if late {
		if upgrading.Wait(); failure != nil {
			return failure
		}
	}
	if err := r.answered(ctx, r.new, 100); err != nil {
		return err
	}
	if large {
		if err := ask(ctx, r.process.address, fmt.Sprint("/grow?mib=", r.bench.scale.memory)); err != nil {
			return err
		}
	}
	if r.at, r.threshold, err = strike(r, ctx); err != nil {
		return err
	}
	if err := r.answered(ctx, r.old, 100); err != nil {
		return err
	}
	r.process.note(event{PID: r.new, Event: eventExited, Time: r.at}) // it could not say so itself
	upgrading.Wait()
	if !late && (result == nil || result.Outcome != control.OutcomeFellBack) {
		return fmt.Errorf("the upgrade has not fallen back: %+v, %w", result, failure)
	}
	return nil
}

// answered waits until a process has answered so many more requests.
func (r *faultRound) answered(ctx context.Context, pid, n int) error {
	count := func(report load.Report) int {
		for _, s := range report.Served {
			if s.PID == pid {
				return s.Responses
			}
		}
		return 0
	}
	n += count(r.load.Report())
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("PID %d answers nothing", pid))
	defer cancel()
	if err := r.load.Wait(ctx, func(report load.Report) bool { return count(report) >= n }); err != nil {
		return errors.Join(err, context.Cause(ctx), errors.New(r.process.output()))
	}
	return nil
}

// back is how long it took, for clients, until the old one answered again.
func (r *faultRound) back(all load.Timeline) (took time.Duration) {
	for _, a := range all {
		if since := a.End().Sub(r.at); a.PID == r.old && since > 0 && (took == 0 || since < took) {
			took = since
		}
	}
	return took
}

func (r *faultRound) signal(signal syscall.Signal) (time.Time, error) {
	at := time.Now()
	return at, syscall.Kill(r.new, signal)
}

func (r *faultRound) kill(context.Context) (at time.Time, threshold time.Duration, err error) {
	at, err = r.signal(syscall.SIGKILL)
	return at, 0, err
}

func (r *faultRound) stop(context.Context) (at time.Time, threshold time.Duration, err error) {
	at, err = r.signal(syscall.SIGSTOP)
	return at, hangTimeout, err
}

// stick has no connection accepted any more after the one that has this request.
func (r *faultRound) stick(ctx context.Context) (at time.Time, threshold time.Duration, err error) {
	err = ask(ctx, r.process.address, "/stick")
	return time.Now(), hangTimeout, err
}

// ask sends a request, on a connection of its own, to whoever accepts.
func ask(ctx context.Context, address, path string) error {
	c, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer c.close()
	_, _, err = c.do(get(path), false)
	return err
}
