package fault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// Moment is when it goes wrong.
type Moment string

// The moments, in their order.
const (
	Init      Moment = "init"      // before there is an Upgrader
	Started   Moment = "new"       // the Upgrader is there: it has said hello
	Listening Moment = "listen"    // it has its listener
	Ready     Moment = "ready"     // it is about to say that it is ready
	Serving   Moment = "serving"   // it accepts
	Probation Moment = "probation" // the same, but [Plan.After] is 300 ms if it is not set
	Confirmed Moment = "confirmed" // it is the main generation
	Drain     Moment = "drain"     // the same, but [Plan.After] is 500 ms if it is not set: an old one may still drain
	Request   Moment = "request"   // request number [Plan.Request] is there, and not answered yet
)

// Fault is the way in which it goes wrong.
type Fault string

// The faults. A process with one that it survives goes on with its other work.
const (
	Kill  Fault = "kill" // SIGKILL to itself
	Stop  Fault = "stop" // SIGSTOP to itself; SIGCONT has it go on
	Panic Fault = "panic"
	Exit0 Fault = "exit0" // the status is the number
	Exit1 Fault = "exit1"
	Exit3 Fault = "exit3"
	// Deadlock: nothing of the service goes on. Handlers, the accept loop, and,
	// before the service serves, its main goroutine wait for one lock. SIGUSR1 has
	// it go on.
	Deadlock Fault = "deadlock"
	// Accept: the accept loop is stuck, with the one connection that it has in
	// its hand. What has been accepted before is served. SIGUSR1 has it go on.
	Accept Fault = "accept"
	// Busy is the same, and no fault: the service declares that it accepts nothing
	// on purpose, as one does that has as many connections as it wants. Only for
	// moments after [Ready].
	Busy Fault = "busy"
	// Lie tells systemd what only the main process may, wherever a way to it can
	// be found, and exits with status 1. Not for after [Listening].
	Lie Fault = "lie"
)

// Plan is what a version does. The zero value is a good one.
type Plan struct {
	Version string        `json:"version,omitempty"` // default "faulty"
	Fault   Fault         `json:"fault,omitempty"`   // none: it lives
	At      Moment        `json:"at,omitempty"`
	After   time.Duration `json:"after,omitempty"`   // that much later
	Request int           `json:"request,omitempty"` // for the moment of that name, from 1

	// Memory is how many MiB it holds from its start on, all of them resident: the
	// more it has, the later its death is reported.
	Memory int `json:"memory,omitempty"`

	// Latency is how long each request takes; default 2 ms.
	Latency time.Duration `json:"latency,omitempty"`
	// Errors is the percentage of the requests that are answered with status 500:
	// exactly as many, and evenly spread.
	Errors float64 `json:"errors,omitempty"`
	// Slow is how many times Latency a request takes.
	Slow float64 `json:"slow,omitempty"`
	// IllAfter is how long it is healthy, from its first request on. Errors and
	// Slow begin then.
	IllAfter time.Duration `json:"ill_after,omitempty"`

	// OwnWay serves HTTP without the Upgrader, which only gives the listener.
	OwnWay bool `json:"own_way,omitempty"`
}

// Named are plans for a file beside the executable, PATH.mode, which holds one of
// these words: for tests of what is written there.
func Named() map[string]Plan {
	return map[string]Plan{
		"serve":         {},
		"early":         {Fault: Exit3, At: Init},
		"mute":          {Fault: Deadlock, At: Init}, // does not even say hello
		"notify":        {Fault: Lie, At: Init},
		"exit0":         {Fault: Exit0, At: Listening},
		"exit1":         {Fault: Exit1, At: Listening},
		"panic":         {Fault: Panic, At: Listening},
		"hang":          {Fault: Deadlock, At: Listening}, // says hello and never gets ready
		"panic-serving": {Fault: Panic, At: Request, Request: 1},
		"exit-serving":  {Fault: Exit0, At: Request, Request: 1},
		"own-way":       {OwnWay: true},
	}
}

// String says it in a few words, which are a name for a test, too.
func (p Plan) String() string {
	var words []string
	if p.Fault != "" {
		words = append(words, fmt.Sprintf("%s at %s", p.Fault, p.At))
		switch {
		case p.At == Request:
			words = append(words, fmt.Sprint(p.Request))
		case p.delay() > 0:
			words = append(words, "after "+p.delay().String())
		}
	}
	if p.Memory > 0 {
		words = append(words, fmt.Sprintf("with %d MiB", p.Memory))
	}
	if p.Errors > 0 {
		words = append(words, fmt.Sprintf("%g %% errors", p.Errors))
	}
	if p.Slow > 0 {
		words = append(words, fmt.Sprintf("%g times as slow", p.Slow))
	}
	if p.IllAfter > 0 {
		words = append(words, "after "+p.IllAfter.String())
	}
	if p.OwnWay {
		words = append(words, "in its own way")
	}
	if len(words) == 0 {
		return "good"
	}
	return strings.Join(words, " ")
}

// delay is After, or its default.
func (p Plan) delay() time.Duration {
	switch {
	case p.After > 0:
		return p.After
	case p.At == Probation:
		return 300 * time.Millisecond
	case p.At == Drain:
		return 500 * time.Millisecond
	}
	return 0
}

// mark comes before a plan at the end of an executable, and maxPlan is more than
// any plan is long.
const (
	mark    = "\n# plan of this version: "
	maxPlan = 4096
)

// Attach returns the executable with p behind its end. One that is there already is
// no longer the last, and so not read.
func (p Plan) Attach(executable []byte) ([]byte, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{executable, []byte(mark), text}, nil), nil
}

// Own returns the plan of the program that runs, and how it may be called in a
// message: that at the end of its executable, else that in the file PATH.mode (see
// [Named]), else a good one.
func Own(path string) (Plan, string, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return Plan{}, "", err
	}
	defer func() { _ = self.Close() }()
	p, found, err := read(self)
	if found || err != nil {
		return p, p.String(), err
	}
	text, err := os.ReadFile(path + ".mode")
	if errors.Is(err, fs.ErrNotExist) {
		return Plan{}, Plan{}.String(), nil
	}
	if err != nil {
		return Plan{}, "", err
	}
	mode := strings.TrimSpace(string(text))
	p, found = Named()[mode]
	if !found {
		return Plan{}, "", fmt.Errorf("there is no mode %q", mode)
	}
	return p, mode, nil
}

// read looks for a plan at the end of a file.
func read(f *os.File) (p Plan, found bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return Plan{}, false, err
	}
	end := make([]byte, min(maxPlan, info.Size()))
	if _, err := f.ReadAt(end, info.Size()-int64(len(end))); err != nil && err != io.EOF {
		return Plan{}, false, err
	}
	at := bytes.LastIndex(end, []byte(mark))
	if at < 0 {
		return Plan{}, false, nil
	}
	if err := json.Unmarshal(end[at+len(mark):], &p); err != nil {
		return Plan{}, true, fmt.Errorf("read the plan of this version: %w", err)
	}
	return p, true, nil
}
