package machine_test

import (
	"fmt"
	"hash/maphash"
	"strings"
	"testing"
	"time"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// explorer visits, breadth first, every world that can come of one. It knows
// the worlds that it has seen by their hashes only; with a million of them the
// chance that two share one, and part of the worlds is missed, is 1 in 10^7.
type explorer struct {
	*model
	seed    maphash.Seed
	parents map[uint64]uint64 // of each world seen, the one before it
	depth   int
	moved   int
	last    move
}

func newExplorer(step stepFunc, limits machine.Limits) *explorer {
	return &explorer{model: newModel(step, limits), seed: maphash.MakeSeed(), parents: make(map[uint64]uint64)}
}

func (x *explorer) hash(w *world) uint64 { return maphash.Comparable(x.seed, *w) }

// explore returns the shortest story that breaks a promise, if there is one.
func (x *explorer) explore(root world) (broken *violation, story string) {
	x.parents[x.hash(&root)] = 0
	var moves []move
	var next []world
	for frontier := []world{root}; len(frontier) > 0; frontier, next = next, frontier[:0] {
		for i := range frontier {
			w := &frontier[i]
			h := x.hash(w)
			var own, ends int
			moves, own, ends = x.moves(w, moves[:0])
			if own == 0 {
				x.checkSettled(w, ends > 0)
				if x.broken != nil {
					return x.broken, x.story(root, h)
				}
			}
			for _, v := range moves {
				x.gave = answer{}
				next = x.visit(w, h, v, next)
				if w.left.kills > 0 {
					for _, v.cut = range x.gave.cuts() {
						next = x.visit(w, h, v, next)
					}
				}
				if x.broken != nil {
					return x.broken, x.story(root, h, x.last)
				}
			}
		}
		x.depth++
	}
	return nil, ""
}

// visit makes a move, and appends the world that it leads to, if it is new.
func (x *explorer) visit(w *world, h uint64, v move, next []world) []world {
	if x.broken != nil {
		return next
	}
	then := *w
	x.happen(&then, v)
	x.checkAlways(&then)
	x.last = v
	x.moved++
	hash := x.hash(&then)
	if _, seen := x.parents[hash]; !seen {
		x.parents[hash] = h
		next = append(next, then)
	}
	return next
}

// story tells how a world came about, and what happened then.
func (x *explorer) story(root world, end uint64, then ...move) string {
	var path []uint64
	for h := end; h != x.hash(&root); h = x.parents[h] {
		path = append(path, h)
	}
	m := newModel(x.step, x.limits)
	m.memory = x.memory
	w := root
	var b strings.Builder
	for i := len(path) - 1; i >= 0; i-- {
		moves, _, _ := m.moves(&w, nil)
		for _, v := range m.withCuts(&w, moves) {
			next := w
			if m.happen(&next, v); x.hash(&next) == path[i] {
				m.tell(&b, &w, v)
				break
			}
		}
	}
	for _, v := range then {
		m.tell(&b, &w, v)
	}
	return b.String()
}

// withCuts appends the moves in the middle of which a generation is killed.
func (m *model) withCuts(w *world, moves []move) []move {
	if w.left.kills == 0 {
		return moves
	}
	for _, v := range moves {
		then := *w
		m.gave = answer{}
		m.happen(&then, v)
		for _, v.cut = range m.gave.cuts() {
			moves = append(moves, v)
		}
	}
	return moves
}

// tell makes a move and writes down what happens.
func (m *model) tell(b *strings.Builder, w *world, v move) {
	fmt.Fprintln(b, v)
	m.log = func(format string, args ...any) { fmt.Fprintf(b, "    "+format+"\n", args...) }
	m.happen(w, v)
	m.log = nil
}

// Each world is about a few things: all of them in one would be too much. What they
// cover together is
//   - up to four generations, of which any two are killed at any instant, also in the
//     middle of what they do: the late fall back, and that of who fell back;
//   - a SIGTERM to any, or to all, at any instant;
//   - one hang of a candidate at any instant, and of a generation that serves, or that
//     others follow, with or without a drain that can be taken back;
//   - one staged upgrade, with promotions of both kinds, and a rollback in any phase,
//     alone with everything that can go wrong, and with a drainer with less;
//   - two rollbacks of three candidates, and the upgrades after them.
//
// More trouble at once is for TestRandomWalksKeepThePromises.
func TestEveryInterleavingKeepsThePromises(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits machine.Limits
		budget budget
		long   bool
	}{
		{"three generations", atMostOne, budget{upgrades: 2, terms: 1, faults: 1, hangs: 1}, false},
		{"three generations, two deaths", atMostOne, budget{upgrades: 2, kills: 2, terms: 1}, true},
		{"four generations, two deaths, no stop", atMostOne, budget{upgrades: 3, kills: 2}, true},
		{"one that serves hangs, and a stop", atMostOne, budget{upgrades: 2, terms: 1, faults: 1, wedges: 1}, false},
		{"one that serves hangs, and a death", atMostOne, budget{upgrades: 2, kills: 1, faults: 1, wedges: 1}, false},
		{"one that serves hangs, of four", atMostOne, budget{upgrades: 3, faults: 1, wedges: 1}, false},
		{"a stage", atMostOne, budget{upgrades: 1, stages: 1, manuals: 1, rollback: 1, kills: 1, terms: 1, faults: 1, hangs: 1, wedges: 1}, false},
		{"a stage, and a drainer", atMostOne, budget{upgrades: 2, stages: 1, rollback: 1, kills: 1, faults: 1}, false},
		{"a stage, a drainer, and a hang", atMostOne, budget{upgrades: 2, stages: 1, kills: 1, wedges: 1}, false},
		{"a stage, a drainer, and a stop", atMostOne, budget{upgrades: 2, stages: 1, terms: 1}, true},
		{"a rollback, of four", atMostOne, budget{upgrades: 3, rollback: 2}, true},
		{"a door that is held", atMostOne, budget{upgrades: 1, kills: 1, terms: 1, faults: 1, hangs: 1, holds: 3}, false},
		{"a door that is held, and a drainer", atMostOne, budget{upgrades: 2, kills: 1, faults: 1, holds: 2}, true},
		{"refused where too many drain", onlyOne, budget{upgrades: 3, kills: 1, faults: 1, rollback: 1}, true},
		{"refused where too many drain, and a stop", onlyOne, budget{upgrades: 2, kills: 1, terms: 1, faults: 1}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.long && testing.Short() {
				t.Skip("takes a few seconds")
			}
			t.Parallel()
			x := newExplorer(machine.Step, test.limits)
			start := time.Now()
			broken, story := x.explore(x.begin(test.budget))
			if broken != nil {
				t.Fatalf("%v\n%s", broken, story)
			}
			t.Logf("%d worlds, %d moves, depth %d, %d states of a machine, in %v",
				len(x.parents), x.moved, x.depth-1, len(x.states)-1, time.Since(start).Round(time.Millisecond))
		})
	}
}

// A promise that is checked where a world comes to rest is worth nothing where
// worlds go round in circles.
func TestEverythingComesToRest(t *testing.T) {
	for name, b := range map[string]budget{
		"a stage":          {upgrades: 1, stages: 1, manuals: 1, rollback: 1, kills: 1, terms: 1, faults: 1, hangs: 1, wedges: 1, holds: 1},
		"and a drainer":    {upgrades: 2, rollback: 1, kills: 1, faults: 1, wedges: 1},
		"a late fall back": {upgrades: 2, kills: 1, terms: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			comesToRest(t, b)
		})
	}
}

func comesToRest(t *testing.T, b budget) {
	x := newExplorer(machine.Step, atMostOne)
	onTheWay := make(map[uint64]bool) // of all worlds seen: whether we come from there
	var visit func(w *world) *world
	visit = func(w *world) *world {
		h := x.hash(w)
		onTheWay[h] = true
		moves, _, _ := x.moves(w, nil)
		for _, v := range moves {
			then := *w
			x.happen(&then, v)
			circle, seen := onTheWay[x.hash(&then)]
			if circle {
				return &then
			}
			if !seen {
				if again := visit(&then); again != nil {
					return again
				}
			}
		}
		onTheWay[h] = false
		return nil
	}
	root := x.begin(b)
	if again := visit(&root); again != nil {
		t.Fatalf("this world comes again and again: %+v", *again)
	}
}
