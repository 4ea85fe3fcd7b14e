package control

import "time"

// Entry is one line of the history of a service: an upgrade that ended.
type Entry struct {
	Record
	Service    string `json:"service"`
	Invocation string `json:"invocation_id,omitempty"` // systemd's id of that start of the service
	// User is the name of Trigger.UID, where the client's credentials are known.
	User string `json:"user,omitempty"`
	// DrainEnded is when the old generation was done; Migrated and Cut of the
	// result are final then. In the file that is a second line, with the same Time.
	DrainEnded time.Time `json:"drain_ended,omitzero"`
}

// Check is one finding of a preflight.
type Check struct {
	Name    string `json:"name"`   // file, executable, architecture, command, descriptors, memory, environment, limits, unit
	Result  string `json:"result"` // ok, warning, failed
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Values of [Check.Result]. A warning stops no upgrade.
const (
	CheckOK      = "ok"
	CheckWarning = "warning"
	CheckFailed  = "failed"
)
