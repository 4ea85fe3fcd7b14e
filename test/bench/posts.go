package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// posts are connections that are idle but for a POST now and then, on one that is
// chosen at random.
type posts struct {
	conns   []*client
	workers int
}

// answered is one request.
type answered struct {
	start time.Time
	wait  time.Duration // until its answer was complete
	err   error
}

// newPosts makes n connections. Each has had a request, so it is not new.
func newPosts(ctx context.Context, address string, n, workers int) (*posts, error) {
	p := &posts{workers: min(workers, n)}
	request := get("/small")
	for range n {
		c, err := dial(ctx, address)
		if err == nil {
			p.conns = append(p.conns, c)
			_, _, err = c.do(request, false)
		}
		if err != nil {
			p.close()
			return nil, fmt.Errorf("connection %d: %w", len(p.conns), err)
		}
	}
	return p, nil
}

// run sends requests, rate a second, until stop is called, which returns them. Each
// worker has connections of its own, so none waits for another's answer.
func (p *posts) run(rate float64) (stop func() []answered) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var all []answered
	ctx, cancel := context.WithCancel(context.Background())
	request := post("/small", 64)
	pause := float64(time.Second) * float64(p.workers) / rate
	for w := range p.workers {
		wg.Go(func() {
			var mine []answered
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, mine...)
			}()
			timer := time.NewTimer(time.Duration(rand.Float64() * pause))
			defer timer.Stop()
			count := (len(p.conns) - w + p.workers - 1) / p.workers // of w, w+workers, ...
			for {
				select {
				case <-timer.C:
				case <-ctx.Done():
					return
				}
				timer.Reset(time.Duration(rand.ExpFloat64() * pause))
				c := p.conns[w+p.workers*rand.IntN(count)]
				a := answered{start: time.Now()}
				_, _, a.err = c.do(request, false)
				a.wait = time.Since(a.start)
				mine = append(mine, a)
			}
		})
	}
	return func() []answered {
		cancel()
		wg.Wait()
		return all
	}
}

// probe has a request on each connection.
func (p *posts) probe() error {
	request := get("/small")
	for i, c := range p.conns {
		if _, _, err := c.do(request, false); err != nil {
			return fmt.Errorf("connection %d of %d does not work any more: %w", i+1, len(p.conns), err)
		}
	}
	return nil
}

func (p *posts) close() {
	for _, c := range p.conns {
		c.close()
	}
}
