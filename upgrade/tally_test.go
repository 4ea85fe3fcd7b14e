package upgrade

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/link"
)

// newCounting returns as much of a generation as counts.
func newCounting(number int, main bool) *Upgrader {
	u := &Upgrader{number: number, peers: make(map[int]*peer), departed: make(map[int]*peer)}
	u.state.Main = main
	u.totals = newTotals(time.Unix(1, 0))
	return u
}

// says is a report of a draining generation.
func (u *Upgrader) says(number, migrated, cut int) *peer {
	p := u.peers[number]
	if p == nil {
		p = u.departed[number]
	}
	if p == nil {
		p = &peer{number: number}
		u.peers[number] = p
	}
	p.report = link.Report{Migrated: migrated, Cut: link.Counts{Total: cut, Idle: cut}, State: "draining", Since: 1}
	u.noteDeeds(p)
	return p
}

// ends is the end of its process.
func (u *Upgrader) ends(number int) {
	p := u.peers[number]
	delete(u.peers, number)
	u.deedsDone(p)
}

func (u *Upgrader) shown() (migrated, cut int) {
	t := u.shownTotals()
	return t.Migrated, t.Cut.Total
}

func TestDeedsCountOnce(t *testing.T) {
	u := newCounting(3, true)
	expect := func(migrated, cut int, when string) {
		t.Helper()
		m, c := u.shown()
		assert.Equal(t, []int{migrated, cut}, []int{m, c}, when)
	}
	u.says(1, 5, 0)
	u.says(2, 2, 1)
	expect(7, 1, "while they live")
	u.says(1, 4, 0)
	expect(7, 1, "after an older report that was passed on late")
	p := u.peers[1]
	u.ends(1)
	expect(7, 1, "when it is gone")
	u.departed[1] = p
	u.says(1, 6, 3)
	u.says(1, 6, 3)
	expect(8, 4, "when its last report has come by another one, and again")
	u.ends(2)
	expect(8, 4, "when its last report is lost")
}

// A confirm: what the old main knows of who lives is carried, and settled by the new
// one, whatever it has heard itself, and in whichever order it hears of ends.
func TestInherit(t *testing.T) {
	old := newCounting(3, true)
	old.totals.Migrated = 100
	old.says(1, 5, 0)
	old.says(2, 2, 1)
	message := link.Confirmed{Totals: old.tally().encode()}

	for _, tt := range []struct {
		name     string
		before   func(*Upgrader)
		after    func(*Upgrader)
		migrated int
	}{
		{"nothing heard", nil, nil, 107},
		{"both live", func(u *Upgrader) { u.says(1, 5, 0); u.says(2, 2, 1) }, nil, 107},
		{"one has said more", func(u *Upgrader) { u.says(1, 6, 0) }, nil, 108},
		{"one has said less", func(u *Upgrader) { u.says(1, 1, 0) }, nil, 107},
		{"the old one reports", nil, func(u *Upgrader) { u.says(3, 4, 0) }, 111},
		{"the old one reports, and ends", nil, func(u *Upgrader) { u.says(3, 4, 0); u.ends(3) }, 111},
		{
			"one is gone meanwhile, and its last report comes later",
			func(u *Upgrader) { p := u.says(1, 5, 0); u.ends(1); u.departed[1] = p },
			func(u *Upgrader) { u.says(1, 9, 0) }, 111,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := newCounting(4, false)
			if tt.before != nil {
				tt.before(u)
			}
			assert.Nil(t, u.shownTotals(), "it is not main")
			u.adoptTotals(message)
			u.state.Main = true
			if tt.after != nil {
				tt.after(u)
			}
			migrated, cut := u.shown()
			assert.Equal(t, tt.migrated, migrated)
			assert.Equal(t, 1, cut)
		})
	}
}

// What a generation that drains hears of main is in force when main is gone.
func TestInheritFromTheDead(t *testing.T) {
	u := newCounting(2, false)
	u.says(1, 5, 0)
	main := newCounting(3, true)
	main.totals = countUpgrade(main.totals, &control.Result{Outcome: control.OutcomeFailed})
	main.totals.Migrated = 10
	main.says(1, 7, 0)
	main.says(2, 1, 0)
	u.hear(main.tally().encode())
	main.ends(1)
	u.ends(1) // main has not told yet
	u.hear([]byte("garbage"))
	u.hear(nil)

	u.inherit(u.heard)
	u.state.Main = true
	migrated, _ := u.shown()
	assert.Equal(t, 17, migrated, "without what it has done itself, which it knows better")
	assert.Equal(t, map[string]int{control.OutcomeFailed: 1}, u.shownTotals().Upgrades)
	u.hear(main.tally().encode())
	migrated, _ = u.shown()
	assert.Equal(t, 17, migrated, "it is main now")
}

// An older library does not count: what is known is the upgrade to the first one that
// does.
func TestInheritFromAnOlderLibrary(t *testing.T) {
	u := newCounting(2, false)
	last := control.Record{Result: control.Result{Outcome: control.OutcomeConfirmed, Serving: 0.3, Confirmed: 2.3}}
	u.adoptTotals(link.Confirmed{Last: encodeRecord(last)})
	u.state.Main = true
	totals := u.shownTotals()
	assert.Equal(t, map[string]int{control.OutcomeConfirmed: 1}, totals.Upgrades)
	assert.Equal(t, 2.3, totals.Confirmed.Sum)
	assert.False(t, totals.Since.IsZero())
}

// A status that somebody has is not changed by what is counted later.
func TestTotalsOfAStatusStay(t *testing.T) {
	u := newCounting(1, true)
	u.totals = countUpgrade(u.totals, &control.Result{Outcome: control.OutcomeConfirmed, Serving: 0.03, Confirmed: 0.2})
	before := u.shownTotals()
	u.totals = countUpgrade(u.totals, &control.Result{Outcome: control.OutcomeConfirmed, Serving: 1, Confirmed: 700})
	u.totals = countUpgrade(u.totals, &control.Result{Outcome: control.OutcomeFellBack, Phase: control.PhaseProbation})
	u.totals = countUpgrade(u.totals, &control.Result{Outcome: control.OutcomeFellBack, Phase: control.PhaseDraining})
	assert.Equal(t, map[string]int{control.OutcomeConfirmed: 1}, before.Upgrades)
	assert.Equal(t, 1, before.Serving.Buckets[1].Count)

	now := u.shownTotals()
	assert.Equal(t, map[string]int{control.OutcomeConfirmed: 2, control.OutcomeFellBack: 2}, now.Upgrades)
	assert.Equal(t, 1, now.FallBacks)
	assert.Equal(t, 2, now.Serving.Count)
	assert.InDelta(t, 1.03, now.Serving.Sum, 1e-9)
	last := now.Confirmed.Buckets[len(now.Confirmed.Buckets)-1]
	assert.Equal(t, 1, last.Count, "700 s are in none of them")
}

// What a full service carries leaves room in a frame.
func TestTallyFitsAFrame(t *testing.T) {
	u := newCounting(1000, true)
	for n := range 100 {
		u.says(900+n, 1<<30, 1<<30)
	}
	for _, o := range []string{control.OutcomeConfirmed, control.OutcomeFailed, control.OutcomeInconclusive} {
		u.totals = countUpgrade(u.totals, &control.Result{Outcome: o, Confirmed: 1.0 / 3})
	}
	m := link.Confirmed{Totals: u.tally().encode()}
	require.Less(t, len(m.Totals), 16<<10)
	_, err := link.Encode(m, 0)
	require.NoError(t, err)
}
