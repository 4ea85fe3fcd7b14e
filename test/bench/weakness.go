package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// weakEnv, set to anything, makes a service one that can be made to go wrong.
const weakEnv = "HANDOFF_BENCH_WEAK"

// weakness is what such a service has.
type weakness struct {
	accepting sync.RWMutex // read-locked by the accept loop, locked for ever by /stick

	mu     sync.Mutex
	memory [][]byte // from /grow
}

// weaken adds it to a server, if it shall have it.
func weaken(srv *http.Server) {
	if os.Getenv(weakEnv) == "" {
		return
	}
	w := new(weakness)
	mux := http.NewServeMux()
	mux.Handle("/", srv.Handler)
	mux.HandleFunc("GET /stick", w.stick)
	mux.HandleFunc("GET /grow", w.grow)
	srv.Handler, srv.ConnContext = mux, w.connContext
}

// connContext is called in the accept loop.
func (w *weakness) connContext(ctx context.Context, _ net.Conn) context.Context {
	w.accepting.RLock()
	defer w.accepting.RUnlock()
	return ctx
}

// stick has the accept loop be stuck.
func (w *weakness) stick(rw http.ResponseWriter, _ *http.Request) {
	w.accepting.Lock()
	_, _ = rw.Write(smallText)
}

// grow makes the process larger, not by its heap: the collector has nothing to do with
// it.
func (w *weakness) grow(rw http.ResponseWriter, r *http.Request) {
	mib, err := strconv.Atoi(r.FormValue("mib"))
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	memory, err := unix.Mmap(-1, 0, mib<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.memory = append(w.memory, memory)
	_, _ = rw.Write(smallText)
}
