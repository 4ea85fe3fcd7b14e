package upgrade

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/hdctl/handoff/upgrade/control"
)

// The MESSAGE_ID= of the structured records in the journal, one for each way in
// which an upgrade ends:
//
//	journalctl MESSAGE_ID=fb91037ff7744bdda2a636460d2fb376
//
// Every record has HANDOFF_SERVICE=, HANDOFF_OUTCOME=, HANDOFF_GENERATION= (the
// one that serves), HANDOFF_FROM=, HANDOFF_TO=, HANDOFF_FROM_PID=,
// HANDOFF_TO_PID=, HANDOFF_VERSION=, HANDOFF_TRIGGER= and HANDOFF_REASON=;
// failures are of priority 3 (err).
const (
	// MessageUpgraded: a new generation was confirmed.
	MessageUpgraded = "fb91037ff7744bdda2a636460d2fb376"
	// MessageUpgradeFailed: it did not take over, and the old one serves.
	MessageUpgradeFailed = "3aff1bb730d746cc9719a2aff36de031"
	// MessageDrained: an old generation is gone.
	MessageDrained = "454e362ea1f64a2b8f995346e7dd6844"
	// MessageHung: a serving generation accepts nothing, or does again.
	MessageHung = "5d0c1e0a43f14c0f9f6c8a3d1b7e2f64"
	// MessageRolledBack: an upgrade was rolled back, and the old generation serves.
	MessageRolledBack = "b1f7e3c96a5d4b0e8c2d94f0713a6e58"
)

// record writes the outcome of an upgrade to the journal. The reason is the whole
// story, the last line that the new process printed included.
func (u *Upgrader) record(r *control.Result) {
	id, priority := MessageUpgraded, journal.PriNotice
	message := u.name + ": " + describeResult(r)
	generation, reason := r.To, r.Trigger.Reason
	if r.Outcome != control.OutcomeConfirmed {
		id, priority, generation = MessageUpgradeFailed, journal.PriErr, r.From
		switch r.Outcome {
		case control.OutcomeStopped:
			priority = journal.PriNotice
		case control.OutcomeRolledBack, control.OutcomeInconclusive:
			id, priority = MessageRolledBack, journal.PriWarning
		}
		reason = r.Error.Message
		if n := len(r.Output); n > 0 {
			reason += "; it printed: " + strings.Join(r.Output[max(0, n-5):], " | ")
		}
	}
	u.toJournal(id, priority, message, map[string]string{
		"HANDOFF_OUTCOME":    r.Outcome,
		"HANDOFF_GENERATION": strconv.Itoa(generation),
		"HANDOFF_FROM":       strconv.Itoa(r.From),
		"HANDOFF_TO":         strconv.Itoa(r.To),
		"HANDOFF_FROM_PID":   strconv.Itoa(r.FromPID),
		"HANDOFF_TO_PID":     strconv.Itoa(r.ToPID),
		"HANDOFF_VERSION":    r.Version,
		"HANDOFF_TRIGGER":    r.Trigger.Via,
		"HANDOFF_REASON":     reason,
	})
}

// toJournal writes a structured record, if systemd started the service and the
// journal is there.
func (u *Upgrader) toJournal(id string, priority journal.Priority, message string, fields map[string]string) {
	if !u.env.bySystemd {
		return
	}
	fields["MESSAGE_ID"] = id
	fields["HANDOFF_SERVICE"] = u.name
	u.systemd.do(func() {
		if !journal.Enabled() {
			return
		}
		if err := journal.Send(message, priority, fields); err != nil {
			u.log.LogAttrs(context.Background(), slog.LevelWarn, "outcome not written to the journal", slog.Any("err", err))
		}
	})
}

// recordDrained tells the end of an old generation: a good one ends with its
// final report; of another one cause says how it ended, if that is known.
func (u *Upgrader) recordDrained(p *peer, cause string) {
	r, priority := p.report, journal.PriInfo
	message := fmt.Sprintf("generation %d (pid %d) is gone, %d connections handed on, %d cut", p.number, p.pid, r.Migrated, r.Cut.Total)
	switch {
	case !r.Final && cause == exitedWell: // its last report was lost
		message = fmt.Sprintf("generation %d (pid %d) is gone", p.number, p.pid)
	case !r.Final:
		priority = journal.PriErr
		message = fmt.Sprintf("generation %d (pid %d) died while it drained, with %d connections open", p.number, p.pid, r.Total)
		if cause != "" {
			message += ": " + cause
		}
	case r.Cut.Total > 0:
		priority = journal.PriWarning
	}
	u.keepDrained(p)
	u.countDrain(p)
	u.events.add(control.Event{Phase: control.PhaseExited, Generation: p.number, PID: p.pid, Message: message})
	u.toJournal(MessageDrained, priority, u.name+": "+message, map[string]string{
		"HANDOFF_OUTCOME":    map[bool]string{true: "drained", false: "died"}[r.Final || cause == exitedWell],
		"HANDOFF_GENERATION": strconv.Itoa(p.number),
		"HANDOFF_CUT":        strconv.Itoa(r.Cut.Total),
		"HANDOFF_MIGRATED":   strconv.Itoa(r.Migrated),
		"HANDOFF_VERSION":    p.version,
		"HANDOFF_REASON":     cause,
	})
}

// encodeRecord and decodeRecord carry the last upgrade over a link. What cannot
// be decoded is left out.
func encodeRecord(r control.Record) json.RawMessage {
	data, err := json.Marshal(r)
	if err != nil {
		return nil
	}
	return data
}

func decodeRecord(data json.RawMessage) *control.Record {
	var r control.Record
	if len(data) == 0 || json.Unmarshal(data, &r) != nil {
		return nil
	}
	return &r
}
