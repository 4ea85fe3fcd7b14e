package metrics

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hdctl/handoff/upgrade/control"
)

// What has a series of its own from the beginning, so that the first time that it
// happens is an increase.
var (
	states = []control.State{
		control.StateStarting, control.StateStaged, control.StateServing, control.StateParked, control.StateDraining, control.StateFailed,
	}
	outcomes = []string{
		control.OutcomeConfirmed, control.OutcomeFailed, control.OutcomeFellBack, control.OutcomeTimedOut,
		control.OutcomeStopped, control.OutcomeRolledBack, control.OutcomeInconclusive,
	}
	diskStates = []string{
		control.DiskSame, control.DiskDiffers, control.DiskMissing, control.DiskNotExecutable, control.DiskUnknown,
	}
)

// emitter sends the metrics of a scrape.
type emitter struct {
	*descs
	ch chan<- prometheus.Metric
}

func (e emitter) send(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
	for i, l := range labels {
		labels[i] = valid(l)
	}
	e.ch <- prometheus.MustNewConstMetric(d, kind, value, labels...)
}

// valid makes a label of what may be anything, such as the name of an abstract socket:
// one that is not UTF-8 would fail the scrape.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func (e emitter) gauge(d *prometheus.Desc, value float64, labels ...string) {
	e.send(d, prometheus.GaugeValue, value, labels...)
}

func (e emitter) flag(d *prometheus.Desc, on bool, labels ...string) {
	value := 0.0
	if on {
		value = 1
	}
	e.gauge(d, value, labels...)
}

// moment is a gauge of a time; of none there is no series.
func (e emitter) moment(d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		e.gauge(d, float64(t.UnixMicro())/1e6, labels...)
	}
}

func (e emitter) counter(d *prometheus.Desc, n int, since time.Time, labels ...string) {
	m, err := prometheus.NewConstMetricWithCreatedTimestamp(d, prometheus.CounterValue, float64(n), since, labels...)
	if err != nil { // it has been made for these labels
		m = prometheus.NewInvalidMetric(d, err)
	}
	e.ch <- m
}

func (e emitter) histogram(d *prometheus.Desc, h control.Durations, since time.Time, labels ...string) {
	buckets := make(map[float64]uint64, len(h.Buckets))
	for _, b := range h.Buckets {
		buckets[b.Limit] = uint64(b.Count)
	}
	m, err := prometheus.NewConstHistogramWithCreatedTimestamp(d, uint64(h.Count), h.Sum, buckets, since, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	e.ch <- m
}

// FromMain tells whether the main generation has answered with s. On a control socket
// another one does only if it was main when it was asked, and confirmed its successor
// before it answered.
func FromMain(s *control.Status) bool {
	self := answerer(s)
	return self == nil || self.Number == s.Main
}

// answerer returns the generation that has answered: the main one, but for a status
// that another generation has made of itself.
func answerer(s *control.Status) *control.Generation {
	i := slices.IndexFunc(s.Generations, func(g control.Generation) bool { return g.Goroutines > 0 }) // it counts only its own
	if i < 0 {
		i = slices.IndexFunc(s.Generations, func(g control.Generation) bool { return g.Number == s.Main })
	}
	if i < 0 {
		return nil
	}
	return &s.Generations[i]
}

// status sends what is known if there is an answer.
func (e emitter) status(s *control.Status) {
	self := answerer(s)
	isMain := FromMain(s)
	e.flag(e.main, isMain)
	if self != nil {
		e.gauge(e.info, 1, self.Version, s.Library, strconv.Itoa(self.Number))
	}
	if !isMain {
		e.living(self)
		return
	}
	known := make(map[int]bool)
	for i := range s.Generations {
		g := &s.Generations[i]
		if !known[g.Number] { // two series that are the same would fail the scrape
			known[g.Number] = true
			e.living(g)
		}
	}
	e.service(s)
	e.file(s.Disk)
	if last := s.Last; last != nil {
		e.moment(e.lastTime, last.Time)
		e.flag(e.lastSuccess, last.Outcome == control.OutcomeConfirmed)
	}
	if s.Totals != nil {
		e.totals(s.Totals)
	}
}

// living is about one generation.
func (e emitter) living(g *control.Generation) {
	number := strconv.Itoa(g.Number)
	eachState(g.Conns, func(state string, n int) { e.gauge(e.connections, float64(n), number, state) })
	if g.RSS > 0 {
		e.gauge(e.memory, float64(g.RSS), number)
	}
	e.moment(e.oldest, g.Oldest, number)
	e.moment(e.deadline, g.Deadline, number)
}

func eachState(c control.Counts, f func(state string, n int)) {
	f(control.ConnNew, c.New)
	f(control.ConnActive, c.Active)
	f(control.ConnIdle, c.Idle)
	f(control.ConnStream, c.Stream)
	f(control.ConnHijacked, c.Hijacked)
}

func (e emitter) service(s *control.Status) {
	e.gauge(e.generation, float64(s.Main))
	living := make(map[control.State]int)
	for _, g := range s.Generations {
		living[g.State]++
	}
	for _, state := range states {
		e.gauge(e.generations, float64(living[state]), string(state))
	}
	// There may be several of one name and one address (ReusePort=).
	type socket struct{ name, network, address string }
	claimed := make(map[socket]bool)
	for _, k := range s.Sockets {
		key := socket{valid(k.Name), valid(k.Network), valid(k.Address)}
		others, known := claimed[key]
		claimed[key] = k.Claimed && (others || !known)
	}
	for k, yes := range claimed {
		e.flag(e.socketClaimed, yes, k.name, k.network, k.address)
	}
	share := 0.0
	if u := s.Upgrade; u != nil && u.Stage != nil {
		share = u.Stage.Share / 100
	}
	e.flag(e.inProgress, s.Upgrade != nil)
	e.gauge(e.share, share)
	e.flag(e.paused, s.Paused != nil)
	e.flag(e.held, s.Held != nil)
	e.flag(e.stopping, s.Stopping)
}

// file is about what is on disk.
func (e emitter) file(d *control.Disk) {
	if d == nil {
		return
	}
	e.flag(e.diskDiffers, d.State != control.DiskSame && d.State != control.DiskUnknown)
	e.flag(e.diskFailed, d.Failed)
	for _, state := range diskStates {
		e.flag(e.diskState, d.State == state, state)
	}
}

// totals are the counters.
func (e emitter) totals(t *control.Totals) {
	e.moment(e.start, t.Since)
	for _, outcome := range outcomes {
		e.counter(e.upgrades, t.Upgrades[outcome], t.Since, outcome)
	}
	for outcome, n := range t.Upgrades {
		if !slices.Contains(outcomes, outcome) { // of a later version of the library
			e.counter(e.upgrades, n, t.Since, valid(outcome))
		}
	}
	e.counter(e.fallBacks, t.FallBacks, t.Since)
	e.histogram(e.upgradeDuration, t.Serving, t.Since, "serving")
	e.histogram(e.upgradeDuration, t.Confirmed, t.Since, "confirmed")
	e.histogram(e.drainDuration, t.Drained, t.Since)
	e.counter(e.connectionsMigrated, t.Migrated, t.Since)
	eachState(t.Cut, func(state string, n int) { e.counter(e.connectionsCut, n, t.Since, state) })
}
