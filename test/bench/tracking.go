package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// What connection tracking costs: the same server on a listener of package net and
// on one of package upgrade, in processes which are measured in turns. CPU is
// that of the server alone; requests per second are what the machine has left with
// the clients on it, too.

// tracking compares.
func (b *bench) tracking(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "handoff-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "large")
	if err := os.WriteFile(file, make([]byte, b.scale.fileSize), 0o600); err != nil {
		return err
	}
	var services [sideCount]*process
	for i, kind := range [sideCount]string{sidePlain: kindBare, sideTracked: kindHandoff, sideControl: kindBare} {
		p, err := start(ctx, kind, fileEnv+"="+file)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.stop()) }()
		services[i] = p
	}
	c := new(comparison)
	for round := range b.scale.rounds {
		b.say("tracking: round %d of %d", round+1, b.scale.rounds)
		// One kind of measurement on all sides, then the next kind, so that what
		// else the machine does hits all. Who is first changes.
		for _, measure := range []func(context.Context, *trial) error{
			b.requests, b.connections, b.downloads, b.allocations, b.idleMemory,
		} {
			for turn := range sideCount {
				side := (turn + round) % sideCount
				if err := measure(ctx, &trial{services[side].address, side, c}); err != nil {
					return err
				}
			}
		}
	}
	c.table().print(b.out, fmt.Sprintf("### Cost of tracking (medians of %d rounds in turns)", b.scale.rounds))
	b.summary.tracking = c
	return nil
}

// trial is one measurement of one side.
type trial struct {
	address string
	side    int
	results *comparison
}

func (t *trial) add(name string, f format, v float64) *line {
	return t.results.add(t.side, name, f, v)
}

// around runs f between two looks at the statistics of the service.
func (t *trial) around(ctx context.Context, gc bool, f func() error) (before, after stats, err error) {
	c, err := dial(ctx, t.address)
	if err != nil {
		return before, after, err
	}
	defer c.close()
	if before, err = c.stats(gc); err != nil {
		return before, after, err
	}
	if err = f(); err != nil {
		return before, after, err
	}
	after, err = c.stats(gc)
	return before, after, err
}

// inParallel runs n clients for a time, each of which repeats what it does, and
// returns how often they did it and how long it took each time.
func inParallel(n int, span time.Duration, do func() (func() error, func(), error)) (times series, elapsed time.Duration, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	begin := time.Now()
	for range n {
		wg.Go(func() {
			mine := make(series, 0, 1<<14)
			failed := func() error {
				once, end, err := do()
				if err != nil {
					return err
				}
				defer end()
				for at := time.Now(); at.Sub(begin) < span; {
					if err := once(); err != nil {
						return err
					}
					now := time.Now()
					mine = append(mine, inMicros(now.Sub(at)))
					at = now
				}
				return nil
			}()
			mu.Lock()
			defer mu.Unlock()
			times = append(times, mine...)
			err = errors.Join(err, failed)
		})
	}
	wg.Wait()
	return times, time.Since(begin), err
}

// requests measures requests on connections that are kept.
func (b *bench) requests(ctx context.Context, t *trial) error {
	request := get("/small")
	var times series
	var elapsed time.Duration
	before, after, err := t.around(ctx, false, func() (err error) {
		times, elapsed, err = inParallel(b.scale.clients, b.scale.span, func() (func() error, func(), error) {
			c, err := dial(ctx, t.address)
			if err != nil {
				return nil, nil, err
			}
			return func() error { _, _, err := c.do(request, false); return err }, c.close, nil
		})
		return err
	})
	if err != nil {
		return err
	}
	t.add(fmt.Sprintf("requests/s, %d kept connections", b.scale.clients), plain, float64(len(times))/elapsed.Seconds()).summary = true
	t.add("latency p50", micros, times.quantile(0.5))
	t.add("latency p99", micros, times.quantile(0.99))
	t.add("server CPU a request", micros, inMicros(after.CPU-before.CPU)/float64(len(times))).summary = true
	return nil
}

// connections measures connections of one request each.
func (b *bench) connections(ctx context.Context, t *trial) error {
	request := get("/small")
	var times series
	var elapsed time.Duration
	before, after, err := t.around(ctx, false, func() (err error) {
		times, elapsed, err = inParallel(b.scale.clients, b.scale.span, func() (func() error, func(), error) {
			return func() error {
				c, err := dial(ctx, t.address)
				if err != nil {
					return err
				}
				defer c.close()
				_, _, err = c.do(request, false)
				return err
			}, func() {}, nil
		})
		return err
	})
	if err != nil {
		return err
	}
	t.add("new connections/s, a request each", plain, float64(len(times))/elapsed.Seconds())
	t.add("server CPU a new connection", micros, inMicros(after.CPU-before.CPU)/float64(len(times))).summary = true
	return nil
}

// downloads measures large files, which the kernel should send (sendfile(2)).
func (b *bench) downloads(ctx context.Context, t *trial) error {
	request := get("/file")
	var times series
	var elapsed time.Duration
	before, after, err := t.around(ctx, false, func() (err error) {
		times, elapsed, err = inParallel(b.scale.fileClients, b.scale.span, func() (func() error, func(), error) {
			c, err := dial(ctx, t.address)
			if err != nil {
				return nil, nil, err
			}
			return func() error { _, _, err := c.do(request, false); return err }, c.close, nil
		})
		return err
	})
	if err != nil {
		return err
	}
	sent := float64(len(times)) * float64(b.scale.fileSize)
	name := fmt.Sprintf("files of %d MiB, MB/s", b.scale.fileSize>>20)
	t.add(name, plain, sent/1e6/elapsed.Seconds())
	t.add("server CPU a GB of files", millis, inMillis(after.CPU-before.CPU)/(sent/1e9)).summary = true
	return nil
}

// allocations counts those of requests on one connection.
func (b *bench) allocations(ctx context.Context, t *trial) error {
	c, err := dial(ctx, t.address)
	if err != nil {
		return err
	}
	defer c.close()
	request := get("/small")
	many := func() error {
		for range b.scale.allocs {
			if _, _, err := c.do(request, false); err != nil {
				return err
			}
		}
		return nil
	}
	before, after, err := t.around(ctx, false, many)
	if err != nil {
		return err
	}
	n := float64(b.scale.allocs)
	l := t.add("allocations a request", tenths, float64(after.Mallocs-before.Mallocs)/n)
	l.difference, l.summary = true, true
	t.add("bytes allocated a request", octets, float64(after.Alloc-before.Alloc)/n).difference = true
	return nil
}

// idleMemory measures what connections take that have had a request.
func (b *bench) idleMemory(ctx context.Context, t *trial) error {
	request := get("/small")
	var idle []*client
	defer func() {
		for _, c := range idle {
			c.close()
		}
	}()
	before, after, err := t.around(ctx, true, func() error {
		for range b.scale.idle {
			c, err := dial(ctx, t.address)
			if err != nil {
				return err
			}
			idle = append(idle, c)
			if _, _, err := c.do(request, false); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	n := float64(b.scale.idle)
	// Signed: a small number of connections may be less than the noise.
	l := t.add(fmt.Sprintf("memory a connection, %s idle", grouped(n)), octets, float64(int64(after.Memory-before.Memory))/n)
	l.difference, l.summary = true, true
	l = t.add("allocations a connection, alive", tenths, float64(int64(after.Objects-before.Objects))/n)
	l.difference, l.summary = true, true
	return nil
}
