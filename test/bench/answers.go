package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// fileEnv names the file that is served as /file.
const fileEnv = "HANDOFF_BENCH_FILE"

// answers are what a service says: what package load asks for, and what the
// measurements need.
type answers struct {
	file string
	pid  string

	mu      sync.Mutex
	conns   int       // that net/http was given
	newest  time.Time // when it got the last one
	pattern []byte
}

func newAnswers(file string) *answers {
	a := &answers{file: file, pid: strconv.Itoa(os.Getpid()), pattern: make([]byte, 128*251)}
	for i := range a.pattern {
		a.pattern[i] = byte(i % 251)
	}
	return a
}

func (a *answers) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.hello)
	mux.HandleFunc("POST /{$}", a.digest)
	mux.HandleFunc("GET /sleep", a.sleep)
	mux.HandleFunc("GET /bytes", a.bytes)
	mux.HandleFunc("GET /small", a.small)
	mux.HandleFunc("POST /small", a.small)
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, a.file) })
	mux.HandleFunc("GET /stats", a.stats)
	return mux
}

// connState counts connections, those from an earlier generation included.
func (a *answers) connState(_ net.Conn, state http.ConnState) {
	if state != http.StateNew {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns++
	a.newest = time.Now()
}

var smallText = []byte("hello, world\n")

// small is the cheapest answer: nothing hides what is around it.
func (a *answers) small(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(smallText) }

// hello says who answers.
func (a *answers) hello(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-Handoff-Pid", a.pid)
	a.json(w, struct {
		PID int `json:"pid"`
	}{os.Getpid()})
}

// digest proves that the body has arrived.
func (a *answers) digest(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	n, err := io.Copy(hash, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("X-Handoff-Pid", a.pid)
	a.json(w, struct {
		Length int64  `json:"length"`
		SHA256 string `json:"sha256"`
	}{n, hex.EncodeToString(hash.Sum(nil))})
}

func (a *answers) json(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client tells if something is missing
}

// sleep is a slow answer.
func (a *answers) sleep(w http.ResponseWriter, r *http.Request) {
	ms, _ := strconv.Atoi(r.FormValue("ms"))
	t := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		_, _ = w.Write(smallText)
	case <-r.Context().Done():
	}
}

// bytes is a download: byte number i is i mod 251.
func (a *answers) bytes(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.FormValue("n"))
	w.Header().Set("Content-Length", strconv.Itoa(n))
	for n > 0 {
		wrote, err := w.Write(a.pattern[:min(n, len(a.pattern))])
		if err != nil {
			return
		}
		n -= wrote
	}
}

// stats are what a process knows of itself.
type stats struct {
	PID     int
	CPU     time.Duration
	Mallocs uint64
	Alloc   uint64 // bytes, ever
	Objects uint64 // alive
	Memory  uint64 // bytes of heap and stacks in use
	Conns   int
	Newest  time.Time
}

func (a *answers) stats(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("gc") != "" {
		runtime.GC()
		runtime.GC() // what sync.Pools held
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.json(w, stats{
		PID: os.Getpid(), CPU: ownCPU(), Mallocs: m.Mallocs, Alloc: m.TotalAlloc, Objects: m.HeapObjects,
		Memory: m.HeapAlloc + m.StackInuse, Conns: a.conns, Newest: a.newest,
	})
}

// ownCPU is the time that this process has used, by getrusage(2).
func ownCPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOf is the time that a process has used, which need not be a child: that of
// its CPU clock (clock_getcpuclockid(3)).
func cpuOf(pid int) (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(ts.Nano()), nil
}
