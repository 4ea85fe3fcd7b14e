package verdict

import "time"

// Policy is what a new generation may do worse. Zero and negative values are
// replaced by their defaults.
type Policy struct {
	// MinRequests is how many requests either generation must have answered for
	// them to be compared: 50.
	MinRequests int
	// MaxErrors is by how much more of its requests may fail, as a fraction of all:
	// 0.01.
	MaxErrors float64
	// MaxSlowdown is how many times as long its median answer may take: 2.
	MaxSlowdown float64
	// WarmUp is how long after the begin of the period a slow generation is not yet
	// called bad, because what has just started is cold: 5 s.
	WarmUp time.Duration
}

// WithDefaults returns p with its zero values replaced.
func (p Policy) WithDefaults() Policy {
	if p.MinRequests <= 0 {
		p.MinRequests = 50
	}
	if !(p.MaxErrors > 0) { // nor is it a number
		p.MaxErrors = 0.01
	}
	if !(p.MaxSlowdown > 0) {
		p.MaxSlowdown = 2
	}
	if p.WarmUp <= 0 {
		p.WarmUp = 5 * time.Second
	}
	return p
}
