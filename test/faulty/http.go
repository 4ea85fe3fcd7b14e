package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"
)

// service is one generation.
type service struct {
	version         string
	generation, pid int
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.hello)
	mux.HandleFunc("POST /{$}", digest)
	mux.HandleFunc("GET /sleep", sleep)
	mux.HandleFunc("GET /ws", s.webSocket)
	return mux
}

// sign puts on each answer who gave it, as the demo service does.
func (s *service) sign(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Handoff-Generation", strconv.Itoa(s.generation))
		h.Set("X-Handoff-Pid", strconv.Itoa(s.pid))
		h.Set("X-Handoff-Version", s.version)
		next.ServeHTTP(w, r)
	})
}

// hello says who answers.
func (s *service) hello(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{"generation": s.generation, "pid": s.pid, "version": s.version})
}

// digest proves that it got the body. A client decides by it how long the request
// takes.
func digest(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	n, err := io.Copy(hash, r.Body)
	if err != nil {
		http.Error(w, "read the body: "+err.Error(), http.StatusBadRequest)
		return
	}
	answer(w, map[string]any{"length": n, "sha256": hex.EncodeToString(hash.Sum(nil))})
}

func sleep(w http.ResponseWriter, r *http.Request) {
	ms, err := strconv.Atoi(r.FormValue("ms"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		fmt.Fprintln(w, ms)
	case <-r.Context().Done(): // the client has left, or the deadline has come
	}
}

func (s *service) webSocket(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // the client has been told
	}
	defer ws.CloseNow()
	for {
		kind, text, err := ws.Read(r.Context())
		if err != nil {
			return
		}
		if err := ws.Write(r.Context(), kind, fmt.Appendf(nil, "%d: %s", s.generation, text)); err != nil {
			return
		}
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has left, or it works
}
