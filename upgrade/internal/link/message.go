package link

import (
	"encoding/json"
	"fmt"
)

// Kind names a type of message in its frame. See [Message].
type Kind string

// The kinds of messages, in the order of an upgrade. Of adopt, offer, answer and
// list, which are about connections, see conns.go.
const (
	KindHello     Kind = "hello"
	KindRefuse    Kind = "refuse"
	KindReady     Kind = "ready"
	KindStage     Kind = "stage"
	KindStaged    Kind = "staged"
	KindServe     Kind = "serve"
	KindServing   Kind = "serving"
	KindRetire    Kind = "retire"
	KindConfirmed Kind = "confirmed"
	KindMeet      Kind = "meet"
	KindReport    Kind = "report"
	KindHurry     Kind = "hurry"
	KindNumbers   Kind = "numbers"
	KindStalled   Kind = "stalled"
	KindAdopt     Kind = "adopt"
	KindOffer     Kind = "offer"
	KindAnswer    Kind = "answer"
	KindList      Kind = "list"
	KindStopping  Kind = "stopping"
	KindUnknown   Kind = "unknown"
)

// Message is what a link carries: one of the structs of this package. [Conn.Receive]
// returns them as values (Hello, not *Hello).
//
// Times are nanoseconds since 1970 (time.Time.UnixNano), 0 for none; both ends
// run on one machine and one clock. Numbers are never negative; a frame that
// says so is refused, because a PID or a count of -1 does harm further on.
type Message interface {
	Kind() Kind
}

// Hello introduces a generation to its neighbour: the first message of both sides
// of a new link. Then [Negotiate] says which version of the protocol they use,
// or that they have none in common, which is answered by [Refuse].
//
// Both send a pidfd of their own with it, so that this very process can be watched
// and killed, whoever started it. The predecessor may send a second file, the pulse
// page for its successor.
type Hello struct {
	Min int `json:"min"` // protocol versions that the sender speaks, see Range
	Max int `json:"max"`

	Library    string `json:"library,omitempty"` // version of the handoff library in the sender
	Service    string `json:"service,omitempty"` // name of the service
	Version    string `json:"version,omitempty"` // the sender's own label
	Generation int    `json:"generation,omitempty"`
	PID        int    `json:"pid,omitempty"` // of the sender
	// Invocation is systemd's INVOCATION_ID of this start of the service.
	Invocation string `json:"invocation,omitempty"`

	// Predecessor is whom the sender took over from, or is about to; nil for
	// the first generation.
	Predecessor *Peer `json:"predecessor,omitempty"`

	// The predecessor's side says what the successor needs when it is main.

	Notify       string `json:"notify,omitempty"` // address of systemd's notify socket; used from Confirmed on
	WatchdogUsec uint64 `json:"watchdog_usec,omitempty"`
	Control      string `json:"control,omitempty"` // path of the control socket

	// Program is where the file that the successor runs was, if it was started from
	// an open file.
	Program string `json:"program,omitempty"`

	// Sockets describes the descriptors that the successor inherits.
	Sockets []Socket `json:"sockets,omitempty"`

	// Totals are what the service has counted so far, for a successor that becomes
	// main because the predecessor dies; see [Confirmed].
	Totals json.RawMessage `json:"totals,omitempty"`

	SentAt int64 `json:"sent_at,omitempty"`
}

// Peer is a generation that is talked about.
type Peer struct {
	Generation int    `json:"generation"`
	PID        int    `json:"pid"`
	Version    string `json:"version,omitempty"`
}

// Socket is enough about a passed descriptor to know it again.
type Socket struct {
	Key     string `json:"key"`            // the name under which the descriptor is passed
	Name    string `json:"name"`           // of the socket: FileDescriptorName= of its unit
	Index   int    `json:"index"`          // among the sockets of that name
	Kind    int    `json:"kind,omitempty"` // stream, datagram, …: a value of the sender's activation.Kind
	Network string `json:"network,omitempty"`
	Address string `json:"address,omitempty"`
}

// Ready says that the sender can serve: it has its sockets and its state.
// Successor to predecessor, once.
type Ready struct {
	// Claimed are the names of the sockets that it is going to serve.
	Claimed []string `json:"claimed,omitempty"`
}

// Stage tells the successor that connections are going to be passed on to it, while
// its gate stays closed. Predecessor to successor, the answer to [Ready] of a staged
// upgrade. The successor answers with [Adopt], which opens the way for them, and
// [Staged].
type Stage struct{}

// Staged says that connections can come. Successor to predecessor.
type Staged struct{}

// Serve tells the successor to open its gate. Predecessor to successor, the
// answer to [Ready], or, of a staged upgrade, when it is promoted; from here on no
// timeout of the start kills the successor.
type Serve struct{}

// Retire tells the successor that the predecessor goes on, and that it is to drain.
// Predecessor to successor, until [Confirmed]; it is answered with a [Report].
type Retire struct{}

// Serving says that the gate is open. Successor to predecessor, the answer to
// [Serve]; the predecessor parks.
type Serving struct{}

// Confirmed says that systemd knows the successor as main process, and that it
// is main from now on. Predecessor to successor, at the end of the probation.
type Confirmed struct {
	Next   int             `json:"next"`             // number of the generation after this one
	Last   json.RawMessage `json:"last,omitempty"`   // record of the last upgrade, for status
	Events json.RawMessage `json:"events,omitempty"` // remembered events; the oldest are left out if they do not fit a frame
	Pause  json.RawMessage `json:"pause,omitempty"`  // an operator wants no upgrades
	Totals json.RawMessage `json:"totals,omitempty"` // what the service has counted so far
	// Previous describes what a rollback would run: the sender's own program, which
	// is the one file that comes with this. Without a file there is none.
	Previous json.RawMessage `json:"previous,omitempty"`
}

// Numbers tells who would take over from main what it has to know: which numbers of
// generations are about to be used, so that it does not use them again, whether
// somebody else would, and what has been counted. Main to the draining generations.
type Numbers struct {
	Next    int             `json:"next"`
	Covered bool            `json:"covered,omitempty"` // main has a candidate that serves, and goes on if main dies
	Totals  json.RawMessage `json:"totals,omitempty"`  // as in Confirmed
}

// Stalled tells main what its predecessor, which still drains, sees of it: clients
// wait on a socket, and it accepts none.
type Stalled struct {
	Socket string `json:"socket,omitempty"`
	Detail string `json:"detail,omitempty"` // for people
	Over   bool   `json:"over,omitempty"`   // it goes on again
}

// Meet introduces two generations that are no neighbours: at a confirm the old
// generation sends one to each older drainer and, for each of these, one to the
// new main. Two files come with it: an end of a fresh pair whose other end the
// other one gets, and a pidfd of the other one. The fields are about the other one.
type Meet struct {
	Generation int    `json:"generation"`
	PID        int    `json:"pid"`
	Version    string `json:"version,omitempty"`
	Role       string `json:"role,omitempty"` // what the other one is to the receiver
}

// Report is what a generation that drains, or serves and is not main yet, tells the
// main one, at every change and from time to time.
type Report struct {
	Generation int    `json:"generation"`
	PID        int    `json:"pid"`
	Version    string `json:"version,omitempty"`
	State      string `json:"state"`
	Started    int64  `json:"started,omitempty"`  // the process
	Since      int64  `json:"since,omitempty"`    // the state
	Deadline   int64  `json:"deadline,omitempty"` // of the drain

	Counts        // open connections
	Oldest int64  `json:"oldest,omitempty"` // when the oldest open connection was accepted
	Cut    Counts `json:"cut,omitzero"`     // connections that a deadline has cut so far

	Migrated int    `json:"migrated,omitempty"` // connections handed to later generations so far
	Note     string `json:"note,omitempty"`     // why connections stay, where that is not as usual; for people

	Final bool  `json:"final,omitempty"` // the drain is over, and this is the sender's last report
	RSS   int64 `json:"rss,omitempty"`   // resident memory, bytes
}

// Counts are connections by state. The fields are those of control.Counts, into
// which it can be converted.
type Counts struct {
	Total    int `json:"total"`
	New      int `json:"new,omitempty"`
	Active   int `json:"active,omitempty"`
	Idle     int `json:"idle,omitempty"`
	Stream   int `json:"stream,omitempty"`
	Hijacked int `json:"hijacked,omitempty"`
}

// Hurry moves the deadline of a drain. Main to a draining generation.
type Hurry struct {
	DeadlineUnixNano int64 `json:"deadline"`
}

// Stopping says that the sender got SIGTERM, or was asked to stop, and is going
// to end. Either direction, before anything else that it does about it, so that
// its end is not taken for a crash.
type Stopping struct {
	Reason           string `json:"reason,omitempty"`
	DeadlineUnixNano int64  `json:"deadline,omitempty"`
}

// Refuse is a no: instead of a [Hello], where the two have no version of the
// protocol in common, or in answer to a request. Either direction.
type Refuse struct {
	Code    string `json:"code"`    // for programs, stable
	Message string `json:"message"` // for people
}

// Unknown tells the peer that a message was received and not understood. Either
// direction. An Unknown is never answered by another one.
type Unknown struct {
	Name string `json:"name"` // the kind that was not understood

	// Unanswered is set by [Conn.Receive] for a message whose kind this end does
	// not know: the caller owes the peer Unknown{Name: m.Name}. Where it is not
	// set, the message is such an answer, to something that was sent from here.
	Unanswered bool `json:"-"`
}

// Kind returns [KindHello].
func (Hello) Kind() Kind { return KindHello }

// Kind returns [KindRefuse].
func (Refuse) Kind() Kind { return KindRefuse }

// Kind returns [KindReady].
func (Ready) Kind() Kind { return KindReady }

// Kind returns [KindStage].
func (Stage) Kind() Kind { return KindStage }

// Kind returns [KindStaged].
func (Staged) Kind() Kind { return KindStaged }

// Kind returns [KindRetire].
func (Retire) Kind() Kind { return KindRetire }

// Kind returns [KindNumbers].
func (Numbers) Kind() Kind { return KindNumbers }

// Kind returns [KindStalled].
func (Stalled) Kind() Kind { return KindStalled }

// Kind returns [KindServe].
func (Serve) Kind() Kind { return KindServe }

// Kind returns [KindServing].
func (Serving) Kind() Kind { return KindServing }

// Kind returns [KindConfirmed].
func (Confirmed) Kind() Kind { return KindConfirmed }

// Kind returns [KindMeet].
func (Meet) Kind() Kind { return KindMeet }

// Kind returns [KindReport].
func (Report) Kind() Kind { return KindReport }

// Kind returns [KindHurry].
func (Hurry) Kind() Kind { return KindHurry }

// Kind returns [KindStopping].
func (Stopping) Kind() Kind { return KindStopping }

// Kind returns [KindUnknown].
func (Unknown) Kind() Kind { return KindUnknown }

// Range returns the versions of the protocol that the sender speaks.
func (m Hello) Range() Range { return Range{Min: m.Min, Max: m.Max} }

// A checker is a message that has rules beyond the types of its fields. The
// sender is held to them like the receiver, so that a mistake shows where it was
// made. files is the number of descriptors with the message.
type checker interface {
	check(files int) error
}

func (m Hello) check(int) error {
	if r := m.Range(); !r.valid() {
		return fmt.Errorf("%v is not a range of protocol versions", r)
	}
	if p := m.Predecessor; p != nil {
		if err := notNegative("predecessor's generation and pid", p.Generation, p.PID); err != nil {
			return err
		}
	}
	for _, s := range m.Sockets {
		if err := notNegative("index of a socket", s.Index); err != nil {
			return err
		}
	}
	return notNegative("generation and pid", m.Generation, m.PID)
}

func (m Confirmed) check(int) error {
	return notNegative("next generation", m.Next)
}

func (m Numbers) check(int) error { return notNegative("next generation", m.Next) }

// meetFiles is how many descriptors come with a Meet: who gets one may use
// files[0] and files[1].
const meetFiles = 2

func (m Meet) check(files int) error {
	if err := atLeast(meetFiles, files); err != nil {
		return err
	}
	return notNegative("generation and pid", m.Generation, m.PID)
}

func (m Report) check(int) error {
	if err := notNegative("generation, pid and migrated", m.Generation, m.PID, m.Migrated); err != nil {
		return err
	}
	if err := notNegative("time or memory", m.Started, m.Since, m.Deadline, m.Oldest, m.RSS); err != nil {
		return err
	}
	for _, c := range []Counts{m.Counts, m.Cut} {
		if err := notNegative("count", c.Total, c.New, c.Active, c.Idle, c.Stream, c.Hijacked); err != nil {
			return err
		}
	}
	return nil
}

func (m Hurry) check(int) error { return notNegative("deadline", m.DeadlineUnixNano) }

func (m Stopping) check(int) error { return notNegative("deadline", m.DeadlineUnixNano) }

func notNegative[N int | int64](what string, numbers ...N) error {
	for _, n := range numbers {
		if n < 0 {
			return fmt.Errorf("%s: %d is negative", what, n)
		}
	}
	return nil
}
