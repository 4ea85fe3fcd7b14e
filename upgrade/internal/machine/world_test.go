package machine_test

// The model of a service: what it consists of is in this file, what can happen
// next in moves_test.go, and what the effects of a machine do in model_test.go.
// What must never happen is in invariants_test.go.
//
// There is no time in it. A timer can fire as soon as it is armed, a drain can
// end at once or last, and every message, death and datagram can take as long as
// it likes; only a SIGTERM is handled before anything that takes long. Links are
// first in, first out, lose nothing, and a death is noticed after all that was
// sent. That a generation hangs is noticed by whoever started it, if that one looks;
// where nobody does it is for systemd's watchdog, and the model leaves it at that.

// maxGens is how many generations there is room for.
const maxGens = 6

// world is a service at one instant. It is a value: it can be copied, compared
// and hashed.
type world struct {
	gens    [maxGens + 1]generation // by number, from 1
	systemd systemd
	left    budget
	seen    history
}

// generation is a process, as the driver and the kernel see it.
type generation struct {
	process  process
	state    stateID // of its machine
	parent   uint8   // who started it; 0 is systemd. It outlives the process
	request  uint8   // the candidate of the upgrade request that is not answered yet
	gate     bool    // it accepts connections, or would if it did not hang
	share    bool    // it passes connections on to its candidate
	control  bool    // it answers on the control socket
	hastened bool    // its drain was shortened
	hung     bool    // it does nothing any more
	covers   bool    // its candidate takes its place if it dies. It outlives the process
	led      bool    // it is main. It outlives the process
	pending  set     // work that was begun and ends some time: checking and so on
	timers   set     // that are armed
	links    set     // the generations that it listens to, and whose death it watches for
	notes    queue   // datagrams to systemd that are not sent yet
	answers  queue   // what became of each NotifyMain, and was not told to the machine yet
	inbox    [maxGens + 1]queue
}

// process is what a process looks like from outside.
type process uint8

const (
	absent  process = iota
	started         // executed, and has not said hello
	running
	ending // its machine has exited; its last words to systemd are on their way
	gone
)

// What can be pending in a generation.
const (
	checking  = iota
	spawning  // a process is being started
	cancelled // and is not wanted any more
	spawned   // the process runs, and the machine has not been told
	unready   // the service has not said that it is ready
	signalled // a SIGTERM has not been handled
	draining
	holding // goodbyes are said, because an operator has closed the door
	leaving // and some of those have not gone
	alarmed // that its successor hangs is known
)

// systemd is what systemd believes, and does. It restarts the service when the
// last process is gone, or leaves it stopped if that is what it was asked for.
type systemd struct {
	main     uint8 // MAINPID
	mainDied bool  // it got a SIGCHLD for it; see die
	stopping bool  // it takes no more news of a main process
	killing  bool  // it has sent SIGTERM to all
	over     bool  // no process is left
}

// budget is how often each thing may still happen that comes from outside.
type budget struct {
	upgrades uint8 // requests
	kills    uint8 // a SIGKILL to some generation at any instant; a crash is the same
	terms    uint8 // a SIGTERM to some generation, or to all
	faults   uint8 // a check, a start, a hello or a notification that fails, a ready that is late
	hangs    uint8 // a candidate that does nothing more, a check or a start that never ends
	wedges   uint8 // a generation that serves does nothing more
	holds    uint8 // requests to close the door, or to open it again
	stages   uint8 // of the upgrades: those that are staged
	manuals  uint8 // of the promotions: those whose probation has no end
	rollback uint8 // requests to roll an upgrade back
}

// history is what the promises have to remember.
type history struct {
	termed  set   // got a SIGTERM
	failed  set   // candidates of which it was said that they did not succeed
	used    set   // numbers that an upgrade has had
	stop    bool  // the service is being stopped
	lost    bool  // a signal took the last generation from the door
	unheard bool  // a datagram to systemd failed
	cut     bool  // a generation was killed in the middle of a step
	stalled bool  // a check or a start never ends
	held    uint8 // the generation whose door was closed by an operator
}

// set is a set of small numbers.
type set uint16

func (s set) has(n int) bool { return s&(1<<n) != 0 }
func (s *set) add(n int)     { *s |= 1 << n }
func (s *set) remove(n int)  { *s &^= 1 << n }

// word is a message between generations, a datagram to systemd, or the answer to
// one: a kind, and the number of a generation.
type word uint8

// queue is a queue of at most eight words, the next one in the lowest byte.
type queue uint64

const (
	hello = iota + 1
	ready
	serve
	serving
	promoted
	stopping
	hurry
	meet // and the number of whom to meet
	stage
	staged
	retire
	retired
	numbers // and the first one that is free
	covered // the same, and that a candidate takes over
)

var kinds = [...]string{
	"", "hello", "ready", "serve", "serving", "promoted", "stopping", "hurry", "meet", "stage", "staged", "retire", "retired", "numbers", "covered",
}

// Datagrams to systemd.
const (
	mainNote = iota + 1 // MAINPID= of a number, and READY=1
	stopNote            // STOPPING=1
)

var notes = [...]string{"", "MAINPID=", "STOPPING=1"}

// What became of one.
const (
	understood = iota + 1
	undelivered
)

func say(kind, number int) word              { return word(kind<<4 | number) }
func (v word) split() (kind int, number int) { return int(v >> 4), int(v & 15) }
func (q queue) next() (kind int)             { kind, _ = word(q).split(); return kind }
func (q *queue) pop() (kind int, number int) { v := word(*q); *q >>= 8; return v.split() }

func (q *queue) push(v word) {
	for shift := 0; shift < 64; shift += 8 {
		if *q>>shift == 0 {
			*q |= queue(v) << shift
			return
		}
	}
	panic("the model's queues are too short")
}

// renew is push, for news that make those before it old. Whether these are read first
// or not makes no difference to who reads them, and would make for many worlds.
func (q *queue) renew(v word) {
	for shift := 56; shift >= 0; shift -= 8 {
		if last := word(*q >> shift); last != 0 {
			if kind, _ := last.split(); kind == numbers || kind == covered {
				*q &^= 0xff << shift
			}
			break
		}
	}
	q.push(v)
}

func (q queue) contains(v word) bool {
	for ; q != 0; q >>= 8 {
		if word(q) == v {
			return true
		}
	}
	return false
}

// alive tells whether there is a process.
func (w *world) alive(n int) bool { p := w.gens[n].process; return p != absent && p != gone }

// acts tells whether its machine runs.
func (w *world) acts(n int) bool { return w.gens[n].process == running && !w.gens[n].hung }

// somebodyAccepts tells whether a gate is open, and somebody stands there.
func (w *world) somebodyAccepts() bool {
	for n := range w.gens {
		if w.gens[n].gate && !w.gens[n].hung {
			return true
		}
	}
	return false
}

// send puts a message on the link to a generation, if there is one and somebody
// at its other end.
func (w *world) send(from, to int, v word) {
	if p := w.gens[to].process; w.gens[from].links.has(to) && (p == started || p == running) {
		switch kind, _ := v.split(); kind {
		case numbers, covered:
			w.gens[to].inbox[from].renew(v)
		default:
			w.gens[to].inbox[from].push(v)
		}
	}
}

// sigkill is a death from outside.
func (w *world) sigkill(n int) {
	w.left.kills--
	w.die(n)
	w.miss()
}

// wedge is a hang of a generation that serves, or a SIGSTOP.
func (w *world) wedge(n int) {
	w.left.wedges--
	w.gens[n].hung = true
	w.miss()
}

// miss notes that the last one has left the door through no fault of a machine.
func (w *world) miss() { w.seen.lost = w.seen.lost || !w.somebodyAccepts() && w.seen.held == 0 }

// sigterm kills a process that has not said hello, and is a Stop for any other.
func (w *world) sigterm(n int) {
	w.seen.termed.add(n)
	switch g := &w.gens[n]; {
	case g.hung:
	case g.process == started:
		w.die(n)
	case g.process == running:
		g.pending.add(signalled)
	}
}

// sigtermAll is systemd's way to stop a service.
func (w *world) sigtermAll() {
	w.seen.stop, w.systemd.stopping, w.systemd.killing = true, true, true
	for n := range w.gens {
		if w.alive(n) {
			w.sigterm(n)
		}
	}
}

// die is the end of a process, however it comes. systemd is told only of the
// ends of its own children: of the first generation, and of those that it has
// adopted, alive or dead, because their parent was gone.
func (w *world) die(n int) {
	main := int(w.systemd.main)
	waited := w.gens[main].process == gone && int(w.gens[main].parent) == n && w.gens[n].links.has(main)
	if main == n && !w.alive(int(w.gens[n].parent)) || waited {
		w.systemd.mainDied = true
	}
	w.gens[n] = generation{process: gone, parent: w.gens[n].parent, covers: w.gens[n].covers, led: w.gens[n].led}
	w.release(n)
	for n := range w.gens {
		if w.alive(n) {
			return
		}
	}
	w.systemd.over = true
}

// release is the end of an operator's wish that the door of a generation be closed.
func (w *world) release(n int) {
	if int(w.seen.held) == n {
		w.seen.held = 0
	}
}

// ended is how many generations have come to their end.
func (w *world) ended() (count int) {
	for n := range w.gens {
		if w.gens[n].process == gone {
			count++
		}
	}
	return count
}

// child is the living process that a generation has started; 0 is none.
func (w *world) child(n int) int {
	for c := range w.gens {
		if w.alive(c) && int(w.gens[c].parent) == n && n != 0 {
			return c
		}
	}
	return 0
}

// end ends a process whose machine has exited, once systemd has its last words.
func (w *world) end(n int) {
	if g := &w.gens[n]; g.process == ending && g.notes == 0 {
		w.die(n)
	}
}
