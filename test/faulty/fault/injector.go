package fault

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade"
	"github.com/hdctl/handoff/upgrade/control"
)

// Injector carries out a [Plan], in one process and once. Its methods may be used
// concurrently.
type Injector struct {
	plan     Plan
	latency  time.Duration
	ballast  []byte
	requests atomic.Int64
	first    sync.Once
	healthy  time.Time         // until then; set by first
	ln       *upgrade.Listener // that it declares for; set by Watch

	// stuck and shut are read-locked by who passes, and locked by a fault.
	stuck sync.RWMutex // all
	shut  sync.RWMutex // the accept loop
}

// New prepares a plan, and makes the process as large as it says.
func New(p Plan) (*Injector, error) {
	in := &Injector{plan: p, latency: p.Latency}
	if in.latency == 0 {
		in.latency = 2 * time.Millisecond
	}
	if p.Memory > 0 {
		// Not from the Go heap, where the collector and the race detector would have
		// to do with it.
		var err error
		in.ballast, err = unix.Mmap(-1, 0, p.Memory<<20, unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
		if err != nil {
			return nil, fmt.Errorf("take %d MiB: %w", p.Memory, os.NewSyscallError("mmap", err))
		}
	}
	return in, nil
}

// Reach is called by the service at the moments up to [Ready]. If the fault is due,
// it returns only if the process survives it.
func (in *Injector) Reach(m Moment) {
	if in.plan.Fault != "" && in.plan.At == m {
		<-time.After(in.plan.delay())
		in.strike()
		in.pass() // not after a deadlock
	}
}

// Watch waits for the moments that the generation itself does not notice, up to
// the call of stop. ln is what it accepts from.
func (in *Injector) Watch(u *upgrade.Upgrader, ln *upgrade.Listener) (stop func()) {
	in.ln = ln
	if in.plan.Fault == "" {
		return func() {}
	}
	var reached func(*control.Status) bool
	switch in.plan.At {
	case Serving, Probation:
		reached = func(s *control.Status) bool { return s.State == control.StateServing }
	case Confirmed, Drain:
		reached = func(s *control.Status) bool {
			return s.State == control.StateServing && s.Main == u.Generation()
		}
	default:
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		// Nobody tells a service that it serves or is main, for it need not care.
		for tick := time.NewTicker(time.Millisecond); !reached(u.Status()); {
			select {
			case <-tick.C:
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
		select {
		case <-time.After(in.plan.delay()):
			in.strike()
		case <-ctx.Done():
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// Handler has next answer as the plan says.
func (in *Injector) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in.pass()
		n := in.requests.Add(1)
		in.first.Do(func() { in.healthy = time.Now().Add(in.plan.IllAfter) })
		ill := in.plan.IllAfter == 0 || time.Now().After(in.healthy)
		latency := in.latency
		if ill && in.plan.Slow > 0 {
			latency = time.Duration(in.plan.Slow * float64(latency))
		}
		select {
		case <-time.After(latency):
		case <-r.Context().Done(): // the client has left
			return
		}
		in.pass() // a deadlock that came meanwhile has caught this one, too
		if in.plan.At == Request && n == int64(in.plan.Request) {
			var striking sync.WaitGroup
			striking.Go(in.strike) // in a goroutine of its own: net/http would recover from a panic
			striking.Wait()
			in.pass()
		}
		if ill && due(n, in.plan.Errors) {
			http.Error(w, "this version is ill", http.StatusInternalServerError)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// due tells whether number n, from 1, is among the given percentage.
func due(n int64, percent float64) bool {
	return math.Floor(float64(n)*percent/100) > math.Floor(float64(n-1)*percent/100)
}

// ConnContext is [http.Server.ConnContext], which net/http calls in its accept
// loop.
func (in *Injector) ConnContext(ctx context.Context, _ net.Conn) context.Context {
	in.pass()
	in.shut.RLock()
	defer in.shut.RUnlock()
	return ctx
}

// pass blocks for ever if the service is in a deadlock.
func (in *Injector) pass() {
	in.stuck.RLock()
	defer in.stuck.RUnlock()
}

// strike is the fault.
func (in *Injector) strike() {
	fmt.Printf("faulty: %s, now: %s\n", in.plan.Fault, time.Now().Format(time.RFC3339Nano))
	switch in.plan.Fault {
	case Kill:
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {} // it is under way
	case Stop:
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	case Deadlock:
		// The timer keeps the runtime from noticing, and ending the process.
		time.AfterFunc(math.MaxInt64, func() {})
		lock(&in.stuck, func() {})
	case Accept:
		lock(&in.shut, func() {})
	case Busy:
		in.ln.SetBusy(true)
		lock(&in.shut, func() { in.ln.SetBusy(false) })
	case Panic:
		panic("faulty: this cannot be")
	case Exit0:
		os.Exit(0)
	case Exit1:
		fmt.Fprintln(os.Stderr, "faulty: the database is away")
		os.Exit(1)
	case Exit3:
		fmt.Fprintln(os.Stderr, "faulty: cannot read my configuration")
		os.Exit(3)
	case Lie:
		fmt.Fprintln(os.Stderr, "faulty: told", lie(), "lies")
		os.Exit(1)
	}
}

// lock locks m until the process gets SIGUSR1; then it goes on with after.
func lock(m *sync.RWMutex, after func()) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGUSR1)
	m.Lock()
	go func() { // ends with the process, if nobody tells
		<-told
		fmt.Println("faulty: goes on")
		m.Unlock()
		after()
	}()
}
