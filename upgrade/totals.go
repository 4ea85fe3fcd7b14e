package upgrade

import (
	"encoding/json"
	"maps"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/link"
)

// How the service counts over its generations, so that the counts go on at an upgrade.
//
// Main keeps what is settled: upgrades that have ended, and what generations that are
// gone have done. What a generation that lives has done it knows best itself, and says
// in each report; it is settled when that generation is gone. Status shows the sum of
// both. So nothing is counted twice, and of a generation whose last report is lost
// everything but that counts.
//
// Who may become main hears of it: the successor with its hello and when it is
// confirmed, generations that drain at each change, since one of them takes over if
// main fails.

// Limits of the buckets, in seconds: of upgrades, and of drains.
var (
	upgradeBuckets = []float64{0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}
	drainBuckets   = []float64{0.1, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600}
)

func newTotals(since time.Time) control.Totals {
	return control.Totals{
		Since: since, Serving: control.NewDurations(upgradeBuckets...),
		Confirmed: control.NewDurations(upgradeBuckets...), Drained: control.NewDurations(drainBuckets...),
	}
}

// deeds are what a generation has done with its connections, since its start.
type deeds struct {
	Migrated int            `json:"migrated,omitempty"`
	Cut      control.Counts `json:"cut,omitzero"`
}

func deedsOf(r link.Report) deeds { return deeds{r.Migrated, control.Counts(r.Cut)} }

// atLeast is the later one of two reports of the same generation, whichever came first.
func (d deeds) atLeast(e deeds) deeds {
	return deeds{max(d.Migrated, e.Migrated), combine(d.Cut, e.Cut, func(a, b int) int { return max(a, b) })}
}

func (d deeds) minus(e deeds) deeds {
	return deeds{d.Migrated - e.Migrated, combine(d.Cut, e.Cut, func(a, b int) int { return a - b })}
}

// addTo adds them to totals.
func (d deeds) addTo(t *control.Totals) {
	t.Migrated += d.Migrated
	t.Cut = combine(t.Cut, d.Cut, func(a, b int) int { return a + b })
}

func combine(a, b control.Counts, f func(a, b int) int) control.Counts {
	return control.Counts{
		Total: f(a.Total, b.Total), New: f(a.New, b.New), Active: f(a.Active, b.Active),
		Idle: f(a.Idle, b.Idle), Stream: f(a.Stream, b.Stream), Hijacked: f(a.Hijacked, b.Hijacked),
	}
}

// tally is what crosses a link.
type tally struct {
	Settled control.Totals `json:"settled"`
	Living  map[int]deeds  `json:"living,omitempty"` // by generation
}

// tally is what this generation knows as main.
func (u *Upgrader) tally() tally {
	t := tally{Settled: u.totals, Living: map[int]deeds{u.number: u.ownDeeds()}}
	for _, p := range u.peers {
		t.Living[p.number] = p.deeds
	}
	return t
}

func (u *Upgrader) ownDeeds() deeds {
	migrated, _ := u.moved()
	return deeds{migrated, toCounts(u.cut)}
}

// encode makes it a field of a message.
func (t tally) encode() json.RawMessage {
	data, err := json.Marshal(t)
	if err != nil {
		return nil
	}
	return data
}

// decodeTally returns nil for what an older version has not sent.
func decodeTally(data json.RawMessage) *tally {
	t := new(tally)
	if len(data) == 0 || json.Unmarshal(data, t) != nil || t.Settled.Since.IsZero() {
		return nil
	}
	return t
}

// inherit begins to count as main, from where t ends. Without one it begins anew.
func (u *Upgrader) inherit(t *tally) {
	if t == nil {
		u.totals = newTotals(time.Now())
		return
	}
	u.totals = t.Settled
	for number, d := range t.Living {
		switch p, gone := u.peers[number], u.departed[number]; {
		case number == u.number: // we know better
		case p != nil: // it will say more
			p.deeds = p.deeds.atLeast(d)
		case gone != nil: // its last report may still come
			gone.deeds = gone.deeds.atLeast(d)
			u.settleDeeds(gone)
		default:
			d.addTo(&u.totals)
		}
	}
}

// hear keeps what main has counted, for the case that this generation takes its place.
func (u *Upgrader) hear(data json.RawMessage) {
	t := decodeTally(data)
	if t == nil || u.state.Main {
		return
	}
	if u.heard != nil {
		for number, d := range t.Living {
			t.Living[number] = d.atLeast(u.heard.Living[number])
		}
	}
	u.heard = t
}

// tellTotals tells those who may take over what has been counted.
func (u *Upgrader) tellTotals() {
	s := u.state
	if !s.Main || len(s.Drainers) == 0 {
		return
	}
	m := link.Numbers{Next: s.Next, Covered: s.Candidate.Covers, Totals: u.tally().encode()}
	for _, number := range s.Drainers {
		u.send(number, m)
	}
}

// noteDeeds keeps what a generation reports of itself, which may be gone already.
func (u *Upgrader) noteDeeds(p *peer) {
	p.deeds = p.deeds.atLeast(deedsOf(p.report))
	if p.drainSince == 0 && drains(p.report) {
		p.drainSince = p.report.Since
	}
	if u.state.Main && u.departed[p.number] == p {
		u.settleDeeds(p)
	}
}

// settleDeeds counts as main what a generation has done that is gone; what is counted
// already is not counted again.
func (u *Upgrader) settleDeeds(p *peer) {
	p.deeds.minus(p.settled).addTo(&u.totals)
	p.settled = p.deeds
}

// deedsDone settles a generation whose process has ended.
func (u *Upgrader) deedsDone(p *peer) {
	if u.state.Main {
		u.settleDeeds(p)
		return
	}
	// Main settles it, perhaps with less than we know. That is for the case that we
	// take its place; unless it has told us already that it has.
	if u.heard != nil {
		if d, ok := u.heard.Living[p.number]; ok {
			u.heard.Living[p.number] = d.atLeast(p.deeds)
		}
	}
}

// countDrain counts the time that a generation has drained that is gone.
func (u *Upgrader) countDrain(p *peer) {
	if !u.state.Main {
		return
	}
	if p.drainSince != 0 {
		u.totals.Drained = u.totals.Drained.Plus(max(0, time.Since(time.Unix(0, p.drainSince)).Seconds()))
	}
	u.tellTotals()
	u.publish()
}

// countUpgrade returns t with one more upgrade, which has ended.
func countUpgrade(t control.Totals, r *control.Result) control.Totals {
	t.Upgrades = maps.Clone(t.Upgrades) // others may read the old one
	if t.Upgrades == nil {
		t.Upgrades = make(map[string]int)
	}
	t.Upgrades[r.Outcome]++
	switch {
	case r.Outcome == control.OutcomeConfirmed:
		t.Serving, t.Confirmed = t.Serving.Plus(r.Serving), t.Confirmed.Plus(r.Confirmed)
	case r.Outcome == control.OutcomeFellBack && r.Phase == control.PhaseDraining:
		t.FallBacks++
	}
	return t
}

// shownTotals is what status shows, but for what this generation has done itself; nil
// if it is not main, and does not know.
func (u *Upgrader) shownTotals() *control.Totals {
	if !u.state.Main {
		return nil
	}
	t := u.totals
	if t.Upgrades == nil {
		t.Upgrades = map[string]int{} // not null in JSON
	}
	for _, p := range u.peers {
		p.deeds.addTo(&t)
	}
	return &t
}

// totalsNow is shownTotals with that.
func (v *view) totalsNow(migrated int) *control.Totals {
	if v.totals == nil {
		return nil
	}
	t := *v.totals
	deeds{migrated, v.cut}.addTo(&t)
	return &t
}

// adoptTotals goes on counting where the predecessor ends, which has made us main.
func (u *Upgrader) adoptTotals(m link.Confirmed) {
	if decodeTally(m.Totals) != nil {
		u.hear(m.Totals)
		u.inherit(u.heard)
		return
	}
	u.inherit(nil) // of an older version: all that is known is this upgrade
	if last := decodeRecord(m.Last); last != nil {
		u.totals = countUpgrade(u.totals, &last.Result)
	}
}
