package track

// Phase is what a connection is doing.
type Phase uint8

// The phases of a connection.
const (
	New      Phase = iota // accepted, no request yet
	Active                // in a request
	Idle                  // between two requests
	Stream                // no end of a request to wait for: raw TCP, an endless answer
	Hijacked              // taken over from net/http
	phases
)

var phaseNames = [phases]string{"new", "active", "idle", "stream", "hijacked"}

func (p Phase) String() string { return phaseNames[p] }

// Counts are numbers of connections by phase.
type Counts [phases]int

// Total is the sum over all phases.
func (c Counts) Total() int {
	n := 0
	for _, v := range c {
		n += v
	}
	return n
}

// Plus adds d.
func (c Counts) Plus(d Counts) Counts {
	for i := range c {
		c[i] += d[i]
	}
	return c
}
