package control

import "time"

// Stage is an upgrade whose new generation serves a share of the new connections,
// while the old one serves the rest.
type Stage struct {
	Share    float64   `json:"share_pct"`
	Since    time.Time `json:"since"`             // when the share was set
	Deadline time.Time `json:"deadline,omitzero"` // then it is rolled back
	Passed   int       `json:"passed"`            // connections that the old generation has passed on since then
	Kept     int       `json:"kept"`              // and those that it has kept
	Auto     *AutoStep `json:"auto,omitempty"`    // what an automatic one is at
}

// Auto is how an upgrade decides by itself. The zero value of each field is its
// default.
type Auto struct {
	// Steps are the shares, in their order: 5 %, 25 % and 100 %, 30 s each.
	Steps []Step `json:"steps,omitempty"`
	// MinRequests is how many requests the new generation must have answered in
	// a step for a verdict: 50.
	MinRequests int `json:"min_requests,omitempty"`
	// MaxErrors is by how many percentage points more of its requests may fail
	// than of the old one's in the same time: 1.
	MaxErrors float64 `json:"max_errors_pct,omitempty"`
	// MaxSlowdown is how many times as long its median answer may take: 2.
	MaxSlowdown float64 `json:"max_slowdown,omitempty"`
}

// Step is a share of the new connections, and for how long.
type Step struct {
	Share float64 `json:"share_pct"` // more than 0, at most 100
	Time  float64 `json:"time_s"`
}

// AutoStep is how far an automatic upgrade is.
type AutoStep struct {
	Step   int       `json:"step"` // from 1
	Steps  int       `json:"steps"`
	Until  time.Time `json:"until,omitzero"`   // end of the step
	Frozen bool      `json:"frozen,omitempty"` // upgrades are paused: it stays where it is
}

// Health is how a generation has answered requests in a period: since the share
// was set.
type Health struct {
	Period    float64 `json:"period_s"`
	Requests  uint64  `json:"requests"`
	Errors    uint64  `json:"errors"`     // answered with a status of 500 or more, or not at all because the handler panicked
	PerSecond float64 `json:"per_second"` // requests
	Median    float64 `json:"median_s"`   // of the time that a handler took; 0: not known
	P95       float64 `json:"p95_s"`      // 95 % took less
	Mean      float64 `json:"mean_s"`
}

// Verdict compares two generations over the same period.
type Verdict struct {
	Verdict string `json:"verdict"` // good, bad, inconclusive
	Reason  string `json:"reason"`  // one sentence, with the figures that decided
	Old     Health `json:"old"`
	New     Health `json:"new"`
}

// Values of [Verdict.Verdict].
const (
	VerdictGood         = "good"
	VerdictBad          = "bad"
	VerdictInconclusive = "inconclusive"
)

// PromoteRequest gives a staged generation a larger share, or all: then the
// upgrade goes on as one without a stage, and ends with its result.
type PromoteRequest struct {
	Share   float64 `json:"share_pct,omitempty"` // 0: all, and the end of the stage
	Wait    string  `json:"wait,omitempty"`      // as in [UpgradeRequest]
	Timeout float64 `json:"timeout_s,omitempty"` // as in [UpgradeRequest]
	Reason  string  `json:"reason,omitempty"`    // as in [UpgradeRequest]
	Via     string  `json:"via,omitempty"`       // as in [UpgradeRequest]
}

// RollbackRequest ends an upgrade in progress in favour of the old generation, or,
// where there is none, runs the previous version again, as an upgrade.
type RollbackRequest struct {
	Wait    string  `json:"wait,omitempty"`      // as in [UpgradeRequest]
	Timeout float64 `json:"timeout_s,omitempty"` // as in [UpgradeRequest]
	Reason  string  `json:"reason,omitempty"`    // as in [UpgradeRequest]
	Via     string  `json:"via,omitempty"`       // as in [UpgradeRequest]
}

// Program is a version of the service that ran before.
type Program struct {
	Generation int    `json:"generation"`
	Version    string `json:"version"`
	Path       string `json:"path"`             // where its file was; there may be another one by now, or none
	Digest     string `json:"sha256,omitempty"` // of the file, in hexadecimal
}

// PauseRequest has upgrades refused, or not any more. A rollback is not refused.
// An automatic upgrade in progress stays at its step.
type PauseRequest struct {
	Undo   bool   `json:"undo,omitempty"`
	Reason string `json:"reason,omitempty"` // why; at most 256 bytes are kept
	Via    string `json:"via,omitempty"`    // as in [UpgradeRequest]
}

// Pause is a [PauseRequest] in force. It survives upgrades, and, if the service has
// a state directory, restarts.
type Pause struct {
	Since   time.Time `json:"since"`
	Trigger Trigger   `json:"trigger"`
	User    string    `json:"user,omitempty"` // name of Trigger.UID
}

// ReconfigureRequest has the service read its configuration again, without a new
// process.
type ReconfigureRequest struct {
	Reason string `json:"reason,omitempty"` // as in [UpgradeRequest]
	Via    string `json:"via,omitempty"`    // as in [UpgradeRequest]
}

// ReconfigureResult is the answer where that has worked.
type ReconfigureResult struct {
	Took float64 `json:"took_s"`
}
