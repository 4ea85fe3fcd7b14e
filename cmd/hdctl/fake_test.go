package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

// fakeService is a service that answers on a control socket as it is told to.
type fakeService struct {
	// Status is the answer to status; After, if set, from the first command
	// on.
	Status *control.Status `json:"status"`
	After  *control.Status `json:"after"`
	// Refuse answers commands with an error and an HTTP status.
	Refuse *control.Error `json:"refuse"`
	HTTP   int            `json:"http"`
	// Upgrade, Promote, Rollback, History, Events and Conns are the lines of the
	// answers. After them, end
	// says what is next: "" the end of the answer, "cut" the connection, "hang"
	// nothing for ever, "die" the whole service.
	Upgrade  []control.Line `json:"upgrade"`
	Promote  []control.Line `json:"promote"`
	Rollback []control.Line `json:"rollback"`
	History  []control.Line `json:"history"`
	Events   []control.Line `json:"events"`
	Conns    []control.Line `json:"conns"`
	End      string         `json:"end"`
	// Ended is the answer to an end request.
	Ended *control.EndResult `json:"ended"`
	// Configured is the answer to a reconfigure request.
	Configured *control.ReconfigureResult `json:"configured"`
	// Hang lists paths that are never answered.
	Hang []string `json:"hang"`
	// API is the version of the API.
	API int `json:"api"`

	mu       sync.Mutex
	asked    bool
	requests []string      // the commands and lists asked for, as JSON
	news     chan struct{} // closed by change
	ln       net.Listener
	srv      *http.Server
	done     chan struct{}
	stopping chan struct{}
	once     sync.Once
	hanging  chan struct{} // gets a value when a stream has begun to hang
}

// start makes the service listen on a control socket in dir.
func (f *fakeService) start(dir, name string) error {
	path := control.SocketIn(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	f.news = make(chan struct{})
	f.ln, f.done, f.stopping, f.hanging = ln, make(chan struct{}), make(chan struct{}), make(chan struct{}, 16)
	f.srv = &http.Server{Handler: f}
	go func() {
		defer close(f.done)
		_ = f.srv.Serve(ln)
	}()
	return nil
}

// stop ends the service; its socket is removed.
func (f *fakeService) stop() {
	f.die()
	<-f.done
}

// leave gives up the control socket, as a generation does that is not the main one
// any more. It goes on with the answers that it has begun.
func (f *fakeService) leave() {
	f.ln.Close()
	<-f.done
}

func (f *fakeService) die() {
	f.once.Do(func() { close(f.stopping) })
	f.srv.Close()
}

func (f *fakeService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	api := f.API
	if api == 0 {
		api = control.APIVersion
	}
	w.Header().Set(control.HeaderAPI, strconv.Itoa(api))
	w.Header().Set(control.HeaderVersion, "v9.9.9")
	for _, path := range f.Hang {
		if r.URL.Path == path {
			f.hang(r)
			return
		}
	}
	switch r.URL.Path {
	case "/v1/status":
		f.status(w)
	case "/v1/version":
		_ = json.NewEncoder(w).Encode(control.Version{APIVersion: api, Library: "v9.9.9", Service: f.Status.Service, Generation: f.Status.Main, Version: "v2.3.1"})
	case "/v1/events":
		f.stream(w, r, f.Events)
	case "/v1/conns":
		if f.command(w, r, http.MethodGet, new(control.ConnFilter)) {
			f.stream(w, r, f.Conns)
		}
	case "/v1/upgrade":
		if f.command(w, r, http.MethodPost, new(control.UpgradeRequest)) {
			f.stream(w, r, f.Upgrade)
		}
	case "/v1/promote":
		if f.command(w, r, http.MethodPost, new(control.PromoteRequest)) {
			f.stream(w, r, f.Promote)
		}
	case "/v1/rollback":
		if f.command(w, r, http.MethodPost, new(control.RollbackRequest)) {
			f.stream(w, r, f.Rollback)
		}
	case "/v1/history":
		f.history(w, r)
	case "/v1/pause":
		if f.command(w, r, http.MethodPost, new(control.PauseRequest)) {
			f.status(w)
		}
	case "/v1/reconfigure":
		if f.command(w, r, http.MethodPost, new(control.ReconfigureRequest)) {
			_ = json.NewEncoder(w).Encode(f.Configured)
		}
	case "/v1/drain":
		if f.command(w, r, http.MethodPost, new(control.DrainRequest)) {
			f.status(w)
		}
	case "/v1/end":
		if f.command(w, r, http.MethodPost, new(control.EndRequest)) {
			_ = json.NewEncoder(w).Encode(f.Ended)
		}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (f *fakeService) status(w http.ResponseWriter) {
	f.mu.Lock()
	s := f.Status
	if f.asked && f.After != nil {
		s = f.After
	}
	if s != nil && s.Last != nil && f.asked && s.Last.Time.IsZero() {
		s.Last.Time = time.Now() // "just now", in scripts
	}
	f.mu.Unlock()
	if s == nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(s)
}

// history answers with so many entries as asked for.
func (f *fakeService) history(w http.ResponseWriter, r *http.Request) {
	lines := f.History
	if n, err := strconv.Atoi(r.URL.Query().Get("limit")); err == nil && n < len(lines) {
		lines = lines[:n]
	}
	if f.Refuse != nil {
		w.WriteHeader(f.HTTP)
		_ = json.NewEncoder(w).Encode(control.Line{Error: f.Refuse})
		return
	}
	f.stream(w, r, lines)
}

// command keeps a request, decoded into req, and tells whether it is accepted.
func (f *fakeService) command(w http.ResponseWriter, r *http.Request, method string, req any) bool {
	data, _ := io.ReadAll(r.Body)
	if method == http.MethodGet {
		q := r.URL.Query()
		generation, _ := strconv.Atoi(q.Get("generation"))
		data, _ = json.Marshal(control.ConnFilter{Generation: generation, State: q.Get("state"), Listener: q.Get("listener")})
	}
	if err := json.Unmarshal(data, req); err != nil || r.Method != method {
		w.WriteHeader(http.StatusBadRequest)
		return false
	}
	data, _ = json.Marshal(req)
	f.mu.Lock()
	f.asked = f.asked || method == http.MethodPost
	f.requests = append(f.requests, string(data))
	f.mu.Unlock()
	if f.Refuse != nil {
		w.WriteHeader(f.HTTP)
		_ = json.NewEncoder(w).Encode(control.Line{Error: f.Refuse})
		return false
	}
	return true
}

// set gives the service another status.
func (f *fakeService) set(s *control.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Status = s
}

// change is set, with an event for those who follow its events. Once.
func (f *fakeService) change(s *control.Status) {
	f.set(s)
	close(f.news)
}

func (f *fakeService) stream(w http.ResponseWriter, r *http.Request, lines []control.Line) {
	w.WriteHeader(http.StatusOK)
	for _, l := range lines {
		_ = json.NewEncoder(w).Encode(l)
		w.(http.Flusher).Flush()
	}
	switch f.End {
	case "cut":
		panic(http.ErrAbortHandler)
	case "hang":
		f.hanging <- struct{}{}
		select {
		case <-f.news:
			_ = json.NewEncoder(w).Encode(event(control.PhaseExited, 6, "news"))
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
		case <-f.stopping:
		}
		f.hang(r)
	case "die":
		go f.die()
		<-f.stopping
		panic(http.ErrAbortHandler)
	}
}

// hang waits until the client or the service gives up.
func (f *fakeService) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-f.stopping:
	}
}

// got returns the commands so far, as JSON.
func (f *fakeService) got() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

// run makes f listen as service name in dir until the test ends.
func (f *fakeService) run(t *testing.T, dir, name string) {
	t.Helper()
	require.NoError(t, f.start(dir, name))
	t.Cleanup(f.stop)
}

func event(phase string, generation int, message string) control.Line {
	return control.Line{Event: &control.Event{Seq: 1, Phase: phase, Generation: generation, Message: message, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}}
}

// sampleStatus is a service that was upgraded twice not long ago.
func sampleStatus() *control.Status {
	sampleTime := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return sampleTime.Add(-d) }
	return &control.Status{
		APIVersion: 1, Library: "v0.1.0", Service: "app", Main: 7, State: control.StateServing, Invocation: "abc", Time: sampleTime,
		Last: &control.Record{Time: ago(192 * time.Second), Result: control.Result{
			Outcome: control.OutcomeConfirmed, From: 6, To: 7, Serving: 0.0412, Confirmed: 2.043, Migrated: 1203,
			Trigger: control.Trigger{Via: control.ViaSystemctl},
		}},
		Disk: &control.Disk{Path: "/usr/bin/app", State: control.DiskDiffers, Failed: true, Detail: "v2.4.0, exit status 3"},
		Generations: []control.Generation{
			{Number: 7, PID: 4242, Version: "v2.3.1", State: control.StateServing, Main: true, Since: ago(192 * time.Second), Conns: control.Counts{Total: 1203, Active: 118, Idle: 1085}, RSS: 41 << 20, Executable: "/usr/bin/app"},
			{Number: 6, PID: 4100, Version: "v2.3.0", State: control.StateDraining, Since: ago(192 * time.Second), Deadline: sampleTime.Add(408 * time.Second), Conns: control.Counts{Total: 35, Active: 12, Stream: 20, Hijacked: 3}, Migrated: 1203, Note: "the peer generation speaks protocol 1: idle connections are closed", Oldest: ago(724 * time.Second), RSS: 60 << 20, Executable: "/usr/bin/app (deleted)"},
			{Number: 5, PID: 3999, Version: "v2.2.9", State: control.StateDraining, Reason: "one WebSocket of 192.0.2.7 does not answer", Since: ago(521 * time.Second), Deadline: sampleTime.Add(79 * time.Second), Conns: control.Counts{Total: 3, Stream: 2, New: 1}, Oldest: ago(43 * time.Minute), RSS: 1300 << 20, Cut: 4},
			{Number: 8, PID: 4300, State: control.StateFailed, Since: ago(time.Second)},
		},
		Sockets: []control.Socket{
			{Name: "http", Network: "tcp", Address: "[::]:8080", Claimed: true, Conns: control.Counts{Total: 1203, Active: 118, Idle: 1080, Stream: 2, Hijacked: 3}},
			{Name: "echo", Network: "tcp", Address: "[::]:7", Claimed: true},
			{Name: "old", Network: "unix", Address: "/run/old.sock"},
		},
		Options:  control.Settings{ReadyTimeout: 30, Probation: 2, DrainTimeout: 600, StopTimeout: 20, MaxDraining: 8, Overflow: "hurry-oldest", DrainDelay: 1.5, DrainSpread: 60, Migrate: true, Watchdog: 30},
		Warnings: []string{"socket old is not served"},
	}
}
