package control

import (
	"encoding/json"
	"iter"
	"time"
)

// Entry is an upgrade that ended, in the history of a service.
type Entry struct {
	Record
	Service    string `json:"service"`
	Invocation string `json:"invocation_id,omitempty"` // systemd's id of that start of the service
	// User is the name of Trigger.UID, where the client's credentials are known.
	User string `json:"user,omitempty"`
	// DrainEnded is when the old generation was done; Migrated and Cut of the
	// result are final then. Until then it is zero. In the file that is a line of
	// its own, see [ReadHistory].
	DrainEnded time.Time `json:"drain_ended,omitzero"`
}

// ReadHistory makes entries of the lines of a history, both the newest first: at most
// limit, or all if that is 0. A line is the JSON of an Entry. One without an outcome
// tells only that the old generation From of an earlier one was done, however many
// upgrades there were since. ReadHistory skips, and counts, lines that are no JSON,
// such as a crash leaves.
func ReadHistory(lines iter.Seq[[]byte], limit int) (entries []Entry, skipped int) {
	type old struct { // a generation
		invocation string
		number     int
	}
	drained := make(map[old]Entry)
	for line := range lines {
		if limit > 0 && len(entries) == limit {
			break
		}
		var e Entry
		if json.Unmarshal(line, &e) != nil || e.Outcome == "" && e.DrainEnded.IsZero() {
			skipped++
			continue
		}
		from := old{e.Invocation, e.From}
		if e.Outcome == "" {
			drained[from] = e
			continue
		}
		if end, ok := drained[from]; ok && e.Outcome == OutcomeConfirmed {
			delete(drained, from) // it may have taken over again before, and drained once more
			e.Drained, e.DrainEnded, e.Migrated, e.Cut = true, end.DrainEnded, end.Migrated, end.Cut
		}
		entries = append(entries, e)
	}
	return entries, skipped
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
