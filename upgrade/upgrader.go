package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/activation"
	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
	"github.com/hdctl/handoff/upgrade/internal/gate"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/spawn"
	"github.com/hdctl/handoff/upgrade/internal/track"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// Upgrader is this process's generation. Its methods are safe for concurrent use.
type Upgrader struct {
	opts    Options
	set     settings
	env     environment
	log     *slog.Logger
	ctx     context.Context // for logging only: nothing is cancelled by it
	name    string          // of the service
	library string
	number  int
	pid     int
	pidfd   *os.File // of this process
	started time.Time

	box     *mailbox
	events  *eventLog
	spawner *spawn.Tableflip
	systemd *systemd
	records records
	exe     *os.File // what this process runs; nil: it cannot be opened
	page    *pulse.Page
	slots   map[slotKey]int // of the page, by socket
	disk    disk
	table   socketTable
	needs   *needs // nil: this process serves
	view    atomic.Pointer[view]
	wg      sync.WaitGroup // every goroutine but the driver and the servers

	goodbyes goodbyes
	places   transfer.Places

	controlPath   string
	controlFD     int // -1: no control socket
	controlGate   *gate.Listener
	controlServer *controld.Server

	mu        sync.Mutex
	listeners []*Listener
	packets   []*PacketConn
	servers   []serving
	sealed    bool // ready was said: no further sockets
	running   bool

	served     chan struct{} // closed when this generation serves for the first time
	servedOnce sync.Once
	draining   chan struct{} // replaced when a drain is taken back; guarded by mu
	ending     chan struct{} // closed when this generation begins to end
	over       chan struct{} // closed when it has
	endErr     error         // valid once over is closed
	servings   sync.WaitGroup

	reconfiguring sync.Mutex // held while Options.Reconfigure runs

	// What follows belongs to the driver.
	state         machine.State
	since         time.Time // of the life
	peers         map[int]*peer
	departed      map[int]*peer // gone, without a last report so far
	timers        map[machine.Timer]*time.Timer
	attempt       *attempt
	lastChild     spawn.Child
	asking        *waiter
	queue         []*waiter
	awaitDrain    []*waiter
	reloads       []*waiter // of a confirmed upgrade, see reloadDelay
	notified      reloads
	last          *control.Record
	failedFile    fileID
	drainage      *drainage
	hold          *control.Hold
	mover         *mover
	movers        int // how many there were
	expectation   *expectation
	note          string    // why connections stay
	hurriedUntil  time.Time // when main wants our drain to end
	cut           track.Counts
	reported      link.Report
	reportedAt    time.Time
	reportTimer   *time.Timer
	watchdog      *time.Timer
	watching      *watching
	fallReason    *control.Error // why this generation is about to take back
	previous      *previous
	ownDigest     string
	programPath   string // where our file was, if that is not what /proc says
	paused        *control.Pause
	totals        control.Totals // of main: what is settled, see totals.go
	heard         *tally         // of others: what main has counted; nil: nothing heard
	quitLater     bool           // confirm as soon as the candidate serves
	pidsWritten   pids
	confirmedFile fileID // of the last upgrade that was confirmed
	statePath     string
	stalledText   string           // what the predecessor sees of us
	recordsFailed map[string]error // why something is not kept, by what it is
	warnings      []string
	failure       error // of a server
	ended         bool
}

// serving is a server and what it serves.
type serving struct {
	listener *Listener
	server   Server
}

// exists makes sure that there is one Upgrader a process: descriptors, signals
// and the environment are the process's, and tableflip allows no second one.
var exists atomic.Bool

// helloTimeout is how long a predecessor may take to say hello; it has done so
// before this process was started.
const helloTimeout = 10 * time.Second

// New makes the Upgrader of this process; a second call fails with [ErrExists].
// Call it first in main, before other goroutines read the environment: it removes
// from there what is meant for this process alone (LISTEN_*, NOTIFY_SOCKET,
// WATCHDOG_*, SYSTEMD_EXEC_PID). It catches SIGHUP, SIGTERM and SIGINT.
//
// In a successor it also says hello to the predecessor. It has accepted nothing
// yet.
func New(opts Options) (*Upgrader, error) {
	if !exists.CompareAndSwap(false, true) {
		return nil, ErrExists
	}
	u, err := newUpgrader(opts)
	if err != nil {
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	return u, nil
}

func newUpgrader(opts Options) (*Upgrader, error) {
	u := &Upgrader{
		opts: opts, log: opts.Logger, ctx: context.Background(), library: libraryVersion(),
		pid: os.Getpid(), started: processStart(), since: time.Now(), controlFD: -1,
		box: newMailbox(), events: newEventLog(),
		served: make(chan struct{}), draining: make(chan struct{}), ending: make(chan struct{}), over: make(chan struct{}),
		places: newPlaces(), peers: make(map[int]*peer), departed: make(map[int]*peer), timers: make(map[machine.Timer]*time.Timer),
	}
	if u.log == nil {
		u.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if u.set, err = opts.resolve(os.LookupEnv); err != nil {
		return nil, err
	}
	u.goodbyes.delay, u.goodbyes.spread = u.set.drainDelay, u.set.drainSpread
	u.spawner, err = spawn.New(spawn.Options{Logger: u.log, Output: u.output})
	if err != nil {
		return nil, err
	}
	if !u.spawner.Successor() && opts.Sockets == nil {
		// Before the environment is cleared: it says whether systemd started us.
		if u.table.set, err = activation.Take(); err != nil {
			return nil, err
		}
	}
	u.env = takeEnvironment()
	if printsNeeds(u.spawner.Successor()) {
		u.needs = new(needs)
		if err := u.beNobody(); err != nil {
			return nil, err
		}
	}
	u.disk.path = u.spawner.Path()
	if u.exe, err = openExecutable(); err != nil {
		u.log.LogAttrs(u.ctx, slog.LevelWarn, "no rollback to this version", slog.Any("err", err))
	}
	if u.pidfd, err = ownPidfd(); err != nil {
		return nil, err
	}
	controlFD := -1
	var pred *peer
	if u.spawner.Successor() {
		pred, controlFD, err = u.succeed()
	} else {
		u.beFirst()
	}
	if err != nil {
		return nil, err
	}
	u.systemd = newSystemd(u.env.notify, u.log)
	u.openRecords()
	if pred == nil {
		u.loadPause()
	}
	u.publish()
	if err := u.openControl(controlFD); err != nil {
		return nil, err
	}
	if pred == nil {
		u.lead()
	} else {
		u.addPeer(pred)
	}
	u.publish()
	u.catchSignals()
	u.reportHealth()
	u.wg.Go(func() { // it takes a while, and nobody waits for it
		digest := u.digestOf(ownExecutable)
		u.box.post(func() { u.ownDigest = digest })
	})
	go u.drive()
	return u, nil
}

// beFirst makes this the first generation of a service.
func (u *Upgrader) beFirst() {
	u.number, u.state = 1, machine.First(u.set.limits())
	u.totals = newTotals(u.started)
	cgroup, _ := os.ReadFile("/proc/self/cgroup")
	u.name = serviceName(u.opts, u.env, string(cgroup))
	if u.opts.Sockets != nil {
		u.table.set = u.opts.Sockets
	}
	var err error
	if u.page, err = pulse.New(); err != nil { // it counts nothing then
		u.log.LogAttrs(u.ctx, slog.LevelWarn, "no comparison of generations", slog.Any("err", err))
	}
}

// slotKey is a socket of the service.
type slotKey struct {
	name  string
	index int
}

// takePage maps the page in which the predecessor sees what we do.
func (u *Upgrader) takePage(sockets []link.Socket, file *os.File) {
	defer file.Close()
	var err error
	if u.page, err = pulse.Open(file); err != nil {
		u.log.LogAttrs(u.ctx, slog.LevelWarn, "the predecessor cannot see whether this generation works", slog.Any("err", err))
	}
	u.slots = make(map[slotKey]int)
	for i, s := range sockets {
		u.slots[slotKey{s.Name, s.Index}] = i
	}
}

// slot is where a socket is counted; nil: nowhere.
func (u *Upgrader) slot(s *socket) *pulse.Slot {
	if i, ok := u.slots[slotKey{s.name, s.index}]; ok {
		return u.page.Slot(i)
	}
	return nil
}

// succeed is a later generation: it says hello to its predecessor.
func (u *Upgrader) succeed() (pred *peer, controlFD int, err error) {
	files := make(map[string]int)
	for _, f := range u.spawner.Inherited() {
		files[f.Name] = f.FD
	}
	fd, ok := files[keyLink]
	if !ok {
		return nil, -1, errors.New("the predecessor passed no link")
	}
	delete(files, keyLink)
	conn, err := link.NewFD(fd)
	if err != nil {
		return nil, -1, err
	}
	if err := conn.Send(u.hello(), u.pidfd); err != nil {
		return nil, -1, fmt.Errorf("say hello to the predecessor: %w", err)
	}
	theirs, with, err := receiveHello(conn)
	if err != nil {
		return nil, -1, err
	}
	pidfd := with[0]
	if len(with) > 1 {
		u.takePage(theirs.Sockets, with[1])
	}
	u.number, u.name = theirs.Generation, theirs.Service
	u.state = machine.Succeeding(u.number, theirs.Predecessor.Generation, u.set.limits())
	u.env.notify, u.env.bySystemd = theirs.Notify, theirs.Notify != ""
	u.env.watchdog = time.Duration(theirs.WatchdogUsec) * time.Microsecond
	u.controlPath = theirs.Control
	u.programPath = theirs.Program
	u.heard = decodeTally(theirs.Totals)
	controlFD = -1
	if fd, ok := files[keyControl]; ok {
		controlFD = fd
		delete(files, keyControl)
	}
	if u.table.set, err = inheritSockets(theirs.Sockets, files); err != nil {
		return nil, -1, err
	}
	if u.opts.Sockets != nil {
		_ = u.opts.Sockets.Close() // the predecessor's are in force
	}
	return &peer{
		number: theirs.Predecessor.Generation, pid: theirs.PID, version: theirs.Version, conn: conn, pidfd: pidfd,
	}, controlFD, nil
}

// receiveHello reads the predecessor's first message.
func receiveHello(conn *link.Conn) (link.Hello, []*os.File, error) {
	expired := time.AfterFunc(helloTimeout, func() { _ = conn.Close() })
	defer expired.Stop()
	m, files, err := conn.Receive()
	if err != nil {
		return link.Hello{}, nil, fmt.Errorf("wait for the predecessor's hello: %w", err)
	}
	switch m := m.(type) {
	case link.Hello:
		if _, err := link.Negotiate(link.Supported(), m.Range()); err != nil {
			_ = conn.Send(link.Refuse{Code: control.CodeIncompatible, Message: err.Error()})
			return m, nil, err
		}
		if len(files) == 0 || m.Predecessor == nil || m.Generation <= m.Predecessor.Generation {
			closeFiles(files)
			return m, nil, errors.New("the predecessor's hello is not complete")
		}
		closeFiles(files[min(len(files), 2):]) // of a later version
		return m, files[:min(len(files), 2)], nil
	case link.Refuse:
		return link.Hello{}, nil, fmt.Errorf("refused by the predecessor: %s", m.Message)
	}
	return link.Hello{}, nil, fmt.Errorf("expected the predecessor's hello, got %q", m.Kind())
}

// output is a line that the candidate printed.
func (u *Upgrader) output(_ int, line string) {
	u.events.add(control.Event{Phase: control.PhaseOutput, Message: line})
}

// warn remembers what an operator should know. It is called before the driver
// runs, or by the driver.
func (u *Upgrader) warn(text string) {
	u.warnings = append(u.warnings, text)
	u.log.LogAttrs(u.ctx, slog.LevelWarn, text)
}

// Generation returns the number of this generation, from 1 for each start of the
// service by systemd.
func (u *Upgrader) Generation() int { return u.number }

// Listen claims the stream or seqpacket sockets called name, all of them behind
// one Listener: from the predecessor, or from systemd, or, in a process that has
// neither, by binding address ([activation.Sockets.ClaimFDs] has the rules).
// "control" is reserved. It must be called before Ready and Run. The error is
// [ErrStopping] if a SIGTERM came first: end main then, without an error.
func (u *Upgrader) Listen(name, network, address string) (*Listener, error) {
	switch network {
	case "tcp", "tcp4", "tcp6", "unix", "unixpacket":
	default:
		return nil, fmt.Errorf("upgrade: listen on socket %q: %w", name, net.UnknownNetworkError(network))
	}
	if err := u.mayClaim(name); err != nil {
		return nil, err
	}
	if u.needs != nil {
		address = u.needs.ask(name, network)
	}
	socks, err := u.table.claim(name, network, address)
	if err != nil {
		return nil, err
	}
	for _, s := range socks {
		s.slot = u.slot(s)
	}
	l := newListener(name, socks, &u.goodbyes, u.places)
	l.pulse = u.page
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sealed {
		return nil, errLate(name)
	}
	u.listeners = append(u.listeners, l)
	return l, nil
}

// ListenPacket claims the datagram socket called name, like Listen. There must be
// exactly one.
func (u *Upgrader) ListenPacket(name, network, address string) (*PacketConn, error) {
	switch network {
	case "udp", "udp4", "udp6", "unixgram":
	default:
		return nil, fmt.Errorf("upgrade: listen on datagram socket %q: %w", name, net.UnknownNetworkError(network))
	}
	if err := u.mayClaim(name); err != nil {
		return nil, err
	}
	if u.needs != nil {
		address = u.needs.ask(name, network)
	}
	socks, err := u.table.claim(name, network, address)
	if err != nil {
		return nil, err
	}
	if len(socks) != 1 {
		return nil, fmt.Errorf("upgrade: %d datagram sockets are called %q; give each a name of its own (FileDescriptorName=)", len(socks), name)
	}
	p := &PacketConn{name: name, gate: gate.NewPacketConn(socks[0].fd, socks[0].addr())}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sealed {
		return nil, errLate(name)
	}
	socks[0].kept = true
	u.packets = append(u.packets, p)
	return p, nil
}

// File claims anything else that was passed under name, such as a FIFO. The file
// is a duplicate that belongs to the caller; the next generation inherits what
// was passed.
func (u *Upgrader) File(name string) (*os.File, error) {
	if err := u.mayClaim(name); err != nil {
		return nil, err
	}
	if u.needs != nil {
		u.needs.ask(name, "")
		return os.Open(os.DevNull)
	}
	socks, err := u.table.claim(name, "", "")
	if err != nil {
		return nil, err
	}
	if len(socks) != 1 {
		return nil, fmt.Errorf("upgrade: %d descriptors are called %q; give each a name of its own (FileDescriptorName=)", len(socks), name)
	}
	fd, err := unix.FcntlInt(uintptr(socks[0].fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("upgrade: duplicate %q: %w", name, os.NewSyscallError("fcntl", err))
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (u *Upgrader) mayClaim(name string) error {
	select {
	case <-u.ending:
		return ErrStopping
	default:
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case name == reservedName:
		return fmt.Errorf("upgrade: the name %q is reserved for the control socket", name)
	case u.sealed:
		return errLate(name)
	}
	return nil
}

func errLate(name string) error {
	return fmt.Errorf("upgrade: socket %q asked for after Ready; what a generation serves must be known before it says that it is ready", name)
}

// Serve has s serve ln from Run on; Run owns the goroutine. Call it before Run.
func (u *Upgrader) Serve(ln *Listener, s Server) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.servers = append(u.servers, serving{ln, s})
	if h, ok := s.(*httpServer); ok {
		ln.served.Store(h)
	}
}

// Run starts the servers, says ready, and blocks until this generation is over.
// Cancelling ctx is a stop. It returns nil after a hand-over or a stop, the error
// of a server that failed, [ErrOrphaned], or [ErrAbandoned]. Call it last in main,
// and end main when it returns.
func (u *Upgrader) Run(ctx context.Context) error {
	u.mu.Lock()
	if u.running {
		u.mu.Unlock()
		return errors.New("upgrade: Run was called twice")
	}
	u.running = true
	servers := u.servers
	u.mu.Unlock()
	if u.needs != nil {
		return u.printNeeds()
	}
	for _, s := range servers {
		u.servings.Go(func() {
			err := s.server.Serve(s.listener)
			if err == nil {
				select {
				case <-u.Draining():
				case <-u.ending:
				default: // a generation that nobody accepts in must not seem to serve
					err = errors.New("the server has ended by itself")
				}
			}
			if err != nil {
				u.fail(fmt.Errorf("serve %q: %w", s.listener.name, err))
			}
		})
	}
	stop := context.AfterFunc(ctx, func() { u.box.post(func() { u.step(machine.Stop{}) }) })
	defer stop()
	if err := u.Ready(context.WithoutCancel(ctx)); err != nil && !errors.Is(err, ErrStopping) {
		return err
	}
	<-u.over
	return u.endErr
}

// fail ends the generation because the service cannot go on.
func (u *Upgrader) fail(err error) {
	u.log.LogAttrs(u.ctx, slog.LevelError, "a server failed; stopping", slog.Any("err", err))
	u.box.post(func() {
		if u.failure == nil {
			u.failure = err
		}
		u.step(machine.Stop{})
	})
}

// Ready says that this generation can serve, and returns once it may: once the
// predecessor has given it the word, or systemd was told. Accept and ReadFrom
// begin to return. Services that own their loops call it instead of Run, and then
// wait for Done. What was passed and is claimed by nobody is kept for the next
// generation and reported.
//
// It returns [ErrStopping] or [ErrOrphaned] if the generation is over instead: end
// main then. In a process that was started to print the sockets that it asks for
// ([control.NeedsEnv]) that is always so.
func (u *Upgrader) Ready(ctx context.Context) error {
	u.mu.Lock()
	first := !u.sealed
	u.sealed = true
	u.mu.Unlock()
	if u.needs != nil {
		return cmp.Or(u.printNeeds(), ErrStopping)
	}
	if first {
		rest, err := u.table.claimRest()
		if err != nil {
			return fmt.Errorf("upgrade: keep the sockets that nobody claimed: %w", err)
		}
		if u.spawner.Successor() {
			if err := u.spawner.RestoreOutput(); err != nil {
				return fmt.Errorf("upgrade: %w", err)
			}
		}
		u.box.post(func() {
			for _, s := range rest {
				u.warn(fmt.Sprintf("socket %q (%s %s) was passed, but this version does not serve it: its clients wait in vain", s.name, s.network, s.address))
			}
			u.step(machine.Ready{})
		})
	}
	select {
	case <-u.served:
		return nil
	case <-u.over:
		if u.endErr != nil {
			return u.endErr
		}
		return ErrStopping
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Done is closed when this generation is over: return from main.
func (u *Upgrader) Done() <-chan struct{} { return u.over }

// Draining is closed when this generation begins to drain: when its successor is
// confirmed, when the service is stopped, or when an operator closes its door
// (hdctl drain); never while it is parked. When the door is open again there is a
// new one. Who holds a connection without an end of its own uses [Conn.OnDrain],
// so that not all clients come back at once.
func (u *Upgrader) Draining() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.draining
}

// Upgrade starts the next generation and returns when it is confirmed, or with
// req.Wait "drained" when this one has drained. The error wraps a [*StartError],
// [ErrInProgress], [ErrNotServing], [ErrStopping] or [ErrTimedOut]; the result is
// there with the error, too. Cancelling ctx stops the waiting, not the upgrade.
func (u *Upgrader) Upgrade(ctx context.Context, req control.UpgradeRequest) (*control.Result, error) {
	r, err := u.request(ctx, req, control.Trigger{Via: control.ViaMethod, Reason: req.Reason}, func(control.Event) {})
	if err != nil {
		return nil, err
	}
	return r, resultError(r)
}
