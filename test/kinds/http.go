package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/hdctl/handoff/upgrade"
)

// errNoConn is met where a handler is not called by the server of this service.
var errNoConn = errors.New("the request's connection is not known")

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, s.generation) })
	mux.HandleFunc("POST /{$}", s.echoBody)
	mux.HandleFunc("GET /sse", s.events)
	mux.HandleFunc("GET /ws", s.webSocket)
	mux.Handle("GET /config", s.config)
	return mux
}

// echoBody sends the body back, after the generation, when it is complete: a client
// decides how long the request takes.
func (s *service) echoBody(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "read the body: "+err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%d: %s", s.generation, body)
}

// events sends the generation every 50 ms. The goodbye is an event, and the end of
// the answer.
func (s *service) events(w http.ResponseWriter, r *http.Request) {
	c, ok := upgrade.ConnFrom(r.Context())
	if !ok {
		http.Error(w, errNoConn.Error(), http.StatusInternalServerError)
		return
	}
	leave, stop := leaving(c)
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w).Flush
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for flush() == nil {
		select {
		case <-tick.C:
			fmt.Fprintf(w, "data: %d\n\n", s.generation)
		case <-leave:
			fmt.Fprintf(w, "event: goodbye\ndata: generation %d is leaving\n\n", s.generation)
			return
		case <-r.Context().Done(): // the client has left
			return
		}
	}
}

// webSocket sends each message back, after the generation. The goodbye is a close
// frame, which comes also if the client is silent.
func (s *service) webSocket(w http.ResponseWriter, r *http.Request) {
	c, ok := upgrade.ConnFrom(r.Context())
	if !ok {
		http.Error(w, errNoConn.Error(), http.StatusInternalServerError)
		return
	}
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // the client has been told
	}
	defer ws.CloseNow()
	// Close waits for the client's close frame, which the Read below receives.
	stop := c.OnDrain(func() {
		_ = ws.Close(websocket.StatusGoingAway, fmt.Sprintf("generation %d is leaving", s.generation))
	})
	defer stop()
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
