package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"github.com/hdctl/handoff/upgrade"
)

// service is what one generation tells its clients.
type service struct {
	name       string
	version    string
	generation int
	pid        int
	started    time.Time
	draining   func() <-chan struct{} // closed when this generation shall finish; another one after a fall back
	log        *slog.Logger
}

// maxBody bounds the body of a POST.
const maxBody = 64 << 20

// handler routes the requests.
func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.hello)
	mux.HandleFunc("POST /{$}", s.digest)
	mux.HandleFunc("GET /sleep", s.sleep)
	mux.HandleFunc("GET /bytes", s.bytes)
	mux.HandleFunc("GET /stream", s.stream)
	mux.HandleFunc("GET /ws", s.webSocket)
	mux.HandleFunc("GET /healthz", s.healthz)
	return s.sign(mux)
}

// sign puts the generation on each answer.
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
func (s *service) hello(w http.ResponseWriter, r *http.Request) {
	s.answer(w, struct {
		Service    string  `json:"service"`
		Version    string  `json:"version"`
		Generation int     `json:"generation"`
		PID        int     `json:"pid"`
		Uptime     float64 `json:"uptime_s"`
	}{s.name, s.version, s.generation, s.pid, time.Since(s.started).Seconds()})
}

// digest proves that it got the body.
func (s *service) digest(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	n, err := io.Copy(hash, http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, fmt.Sprintf("the body is longer than %d bytes", tooLarge.Limit), http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(w, "read the body: "+err.Error(), http.StatusBadRequest)
		return
	}
	s.answer(w, struct {
		Length int64  `json:"length"`
		SHA256 string `json:"sha256"`
	}{n, hex.EncodeToString(hash.Sum(nil))})
}

func (s *service) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.log.Debug("answer", slog.Any("err", err)) // the client has left
	}
}

// sleep answers late. An upgrade meanwhile changes nothing for it: the old
// generation stays until it has answered.
func (s *service) sleep(w http.ResponseWriter, r *http.Request) {
	ms, err := number(r, "ms", 1000, int64(time.Hour/time.Millisecond))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	d := time.Duration(ms) * time.Millisecond
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		fmt.Fprintf(w, "slept %s\n", d)
	case <-r.Context().Done(): // the client has left
	}
}

// bytes is a download of any length: byte number i is i mod 251.
func (s *service) bytes(w http.ResponseWriter, r *http.Request) {
	n, err := number(r, "n", 1000, math.MaxInt64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	block := make([]byte, 128*251)
	for i := range block {
		block[i] = byte(i % 251)
	}
	for n > 0 {
		wrote, err := w.Write(block[:min(n, int64(len(block)))])
		if err != nil {
			return // the client has left
		}
		n -= int64(wrote)
	}
}

// leaving is closed when the connection of an endless answer shall come to an end:
// each at a moment of its own, so that not all clients come back at once. Without
// the Upgrader, in a test, it is when the generation drains.
func (s *service) leaving(r *http.Request) (leaving <-chan struct{}, stay func()) {
	c, ok := upgrade.ConnFrom(r.Context())
	if !ok {
		return s.draining(), func() {}
	}
	ch := make(chan struct{})
	stop := c.OnDrain(func() { close(ch) })
	return ch, func() { stop() }
}

// stream sends numbered events until the client leaves. When this generation
// shall finish, it says goodbye: the client connects again, to the new one.
func (s *service) stream(w http.ResponseWriter, r *http.Request) {
	ms, err := number(r, "ms", 1000, int64(time.Hour/time.Millisecond))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	leaving, stay := s.leaving(r)
	defer stay()
	flush := http.NewResponseController(w).Flush
	tick := time.NewTicker(time.Duration(max(ms, 1)) * time.Millisecond)
	defer tick.Stop()
	for i := 1; flush() == nil; i++ {
		select {
		case <-tick.C:
			fmt.Fprintf(w, "data: %d\n\n", i)
		case <-leaving:
			fmt.Fprintf(w, "event: goodbye\ndata: generation %d is leaving\n\n", s.generation)
			return
		case <-r.Context().Done():
			return
		}
	}
}

// webSocket echoes messages. When this generation shall finish, it says goodbye
// with a close frame (1001, going away), to a silent client as well.
func (s *service) webSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // the client has been told
	}
	defer c.CloseNow()
	leaving, stay := s.leaving(r)
	ended := make(chan struct{})
	goodbye := make(chan struct{})
	go func() {
		defer close(goodbye)
		select {
		case <-leaving:
			_ = c.Close(websocket.StatusGoingAway, fmt.Sprintf("generation %d is leaving", s.generation))
		case <-ended:
		}
	}()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			break
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			break
		}
	}
	stay()
	close(ended)
	<-goodbye
}

// healthz is for load balancers. A generation that is not ready accepts no
// connection, so who gets an answer gets a good one.
func (s *service) healthz(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, "ok")
}

// number reads a query parameter between 0 and limit.
func number(r *http.Request, name string, missing, limit int64) (int64, error) {
	text := r.FormValue(name)
	if text == "" {
		return missing, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("%s=%q is not a number from 0 to %d", name, text, limit)
	}
	return n, nil
}
