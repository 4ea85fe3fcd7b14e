package upgrade_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

// watchTotals asks for the status all the time, as more scrapers than there ever are
// would, until the function that it returns is called. No count is ever lower than it
// was before.
func (p *process) watchTotals() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		last, looks := new(control.Totals), 0
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			st, err := p.client.Status(ctx)
			if err != nil { // for a moment nobody is main
				continue
			}
			if st.Totals == nil { // it was asked as main, and is not any more
				assert.NotEqual(p.t, control.StateServing, st.State, "main counts")
				continue
			}
			looks++
			now := st.Totals
			for outcome, n := range last.Upgrades {
				assert.GreaterOrEqual(p.t, now.Upgrades[outcome], n, outcome)
			}
			assert.GreaterOrEqual(p.t, now.FallBacks, last.FallBacks, "fall backs")
			assert.GreaterOrEqual(p.t, now.Migrated, last.Migrated, "migrated")
			assert.GreaterOrEqual(p.t, now.Cut.Total, last.Cut.Total, "cut")
			assert.GreaterOrEqual(p.t, now.Confirmed.Count, last.Confirmed.Count, "confirmed")
			assert.GreaterOrEqual(p.t, now.Drained.Count, last.Drained.Count, "drained")
			if !last.Since.IsZero() {
				assert.True(p.t, now.Since.Equal(last.Since), "%v, then %v", last.Since, now.Since)
			}
			if p.t.Failed() {
				return
			}
			last = now
		}
		assert.Greater(p.t, looks, 10)
	})
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	p.t.Cleanup(stop)
	return stop
}

// keepAlive opens a connection that is idle. It is made of one request.
func (p *process) keepAlive() {
	p.t.Helper()
	transport := &http.Transport{}
	p.t.Cleanup(transport.CloseIdleConnections)
	r, err := (&http.Client{Transport: transport}).Get("http://" + p.address + "/sleep")
	require.NoError(p.t, err)
	_, err = io.Copy(io.Discard, r.Body) // else it is closed
	require.NoError(p.t, err)
	require.NoError(p.t, r.Body.Close())
}

// dawdle opens a connection whose client never gets to the end of its request: it
// stays where it is, until it is cut.
func (p *process) dawdle() {
	p.t.Helper()
	c, err := net.Dial("tcp", p.address)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, "GET / HT")
	require.NoError(p.t, err)
	p.waitStatus("the connection", func(st *control.Status) bool { return st.Generations[0].Conns.New == 1 })
}

// TestTotalsGoOn counts over good upgrades, failed ones, drains, and a fall back after
// the confirm, in which the dead generation had counted on.
func TestTotalsGoOn(t *testing.T) {
	p := start(t, "HANDOFF_PROBATION=20ms")
	stop := p.watchTotals()
	began := p.status().Totals.Since
	assert.WithinRange(t, began, time.Now().Add(-time.Minute), time.Now())
	assert.Empty(t, p.status().Totals.Upgrades)

	// A good one, with a connection that moves and one that stays until it is cut.
	p.keepAlive()
	p.dawdle()
	_, err := p.upgrade()
	require.NoError(t, err)
	assert.Equal(t, map[string]int{control.OutcomeConfirmed: 1}, p.status().Totals.Upgrades)
	p.waitStatus("the connection has moved", func(st *control.Status) bool { return st.Totals.Migrated == 1 })
	_, err = p.client.End(t.Context(), control.EndRequest{Grace: -1})
	require.NoError(t, err)
	st := p.waitMain(2)
	totals := st.Totals
	assert.Equal(t, 1, totals.Migrated)
	assert.Equal(t, control.Counts{Total: 1, New: 1}, totals.Cut)
	assert.Equal(t, 1, totals.Serving.Count)
	assert.Equal(t, 1, totals.Confirmed.Count)
	assert.Greater(t, totals.Confirmed.Sum, 0.02)
	p.waitStatus("the end of the drain is counted", func(st *control.Status) bool { return st.Totals.Drained.Count == 1 })
	assert.Positive(t, p.status().Totals.Drained.Sum)

	// The third one fails to upgrade, and dies, while the second one still drains.
	p.hold()
	r, err := p.upgrade()
	require.NoError(t, err)
	self, err := os.Readlink(p.program)
	require.NoError(t, err)
	require.NoError(t, os.Remove(p.program))
	_, err = p.upgrade()
	require.Error(t, err)
	require.NoError(t, os.Symlink(self, p.program))
	want := map[string]int{control.OutcomeConfirmed: 2, control.OutcomeFailed: 1}
	p.waitStatus("both are counted, and the connection has moved on", func(st *control.Status) bool {
		return assert.ObjectsAreEqual(want, st.Totals.Upgrades) && st.Totals.Migrated == 2
	})
	require.NoError(t, syscall.Kill(r.ToPID, syscall.SIGKILL))
	want[control.OutcomeFellBack] = 1
	p.waitStatus("the second one serves again", func(st *control.Status) bool {
		return st.Main == 2 && st.State == control.StateServing && st.Totals.FallBacks == 1
	})
	totals = p.status().Totals
	assert.Equal(t, want, totals.Upgrades)
	assert.Equal(t, control.Counts{Total: 1, New: 1}, totals.Cut, "of the first one, which is not counted twice")
	assert.Equal(t, 2, totals.Migrated, "the connection that the first one has handed on, and the second one as well")

	// And on it goes.
	_, err = p.upgrade()
	require.NoError(t, err)
	want[control.OutcomeConfirmed] = 3
	assert.Equal(t, want, p.status().Totals.Upgrades)
	stop()
}

// TestTotalsOfTheCandidate kills main while its successor is on stage: that one goes on
// with what main had counted when it was started.
func TestTotalsOfTheCandidate(t *testing.T) {
	p := start(t)
	_, err := p.upgrade()
	require.NoError(t, err)
	st := p.waitMain(2)
	_, err = p.client.Upgrade(t.Context(), control.UpgradeRequest{Stage: 50}, nil)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(st.Generations[0].PID, syscall.SIGKILL))
	totals := p.waitMain(3).Totals
	assert.Equal(t, map[string]int{control.OutcomeConfirmed: 1}, totals.Upgrades)
	assert.True(t, totals.Since.Equal(st.Totals.Since))
}

// scrape returns the value of a metric, "" if there is none.
func (p *process) scrape(client *http.Client, metric string) (value string) {
	p.t.Helper()
	r, err := client.Get("http://" + p.address + "/metrics")
	require.NoError(p.t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	require.NoError(p.t, err)
	for line := range strings.Lines(string(text)) {
		if name, v, _ := strings.Cut(strings.TrimSpace(line), " "); name == metric {
			value = v
		}
	}
	return value
}

// TestScrapeOfAnOldGeneration has a scraper whose connection stays with the old
// generation, since connections do not move: that one answers once more, for itself
// alone, and the next connection is the new one's.
func TestScrapeOfAnOldGeneration(t *testing.T) {
	const (
		isMain    = `handoff_main{service="test"}`
		confirmed = `handoff_upgrades_total{outcome="confirmed",service="test"}`
	)
	p := start(t, "HANDOFF_MIGRATE=off", "HANDOFF_DRAIN_DELAY=1h")
	for _, metric := range []string{isMain, confirmed} {
		transport := &http.Transport{}
		t.Cleanup(transport.CloseIdleConnections)
		scraper := &http.Client{Transport: transport}
		require.NotEmpty(t, p.scrape(scraper, metric))
		_, err := p.upgrade()
		require.NoError(t, err)
		assert.Equal(t, map[string]string{isMain: "0", confirmed: ""}[metric], p.scrape(scraper, metric))
		transport.CloseIdleConnections()
		p.waitStatus("the old one to be gone", func(st *control.Status) bool { return len(st.Generations) == 1 })
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	assert.Equal(t, "2", p.scrape(&http.Client{Transport: transport}, confirmed))
}
