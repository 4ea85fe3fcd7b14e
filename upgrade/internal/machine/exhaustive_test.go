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

func TestEveryInterleavingKeepsThePromises(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits machine.Limits
		budget budget
		long   bool
	}{
		{"three generations", atMostOne, budget{upgrades: 2, kills: 1, terms: 1, faults: 1, hangs: 1}, false},
		{"three generations, more trouble", atMostOne, budget{upgrades: 2, kills: 2, terms: 1, faults: 2, hangs: 1}, true},
		{"four generations, no stop", atMostOne, budget{upgrades: 3, kills: 2, faults: 2, hangs: 1}, true},
		{"a door that is held", atMostOne, budget{upgrades: 1, kills: 1, terms: 1, faults: 1, hangs: 1, holds: 3}, false},
		{"a door that is held, and a drainer", atMostOne, budget{upgrades: 2, kills: 1, terms: 1, faults: 1, holds: 2}, true},
		{"refused where too many drain", onlyOne, budget{upgrades: 3, kills: 1, terms: 1, faults: 1}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.long && testing.Short() {
				t.Skip("takes a few seconds")
			}
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
	root := x.begin(budget{upgrades: 2, kills: 1, terms: 1, faults: 1, hangs: 1, holds: 1})
	if again := visit(&root); again != nil {
		t.Fatalf("this world comes again and again: %+v", *again)
	}
}
