package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"time"
)

// JournalEntry is a message in the journal.
type JournalEntry struct {
	Message  string
	Priority int       // 3 error, 4 warning, 6 info; see syslog(3)
	PID      int       // who logged it
	Unit     string    // of the one who logged it; for PID 1 that is init.scope
	Time     time.Time // when the journal received it
	Cursor   string    // the place in the journal, for --after-cursor=
	// Fields has all fields, see systemd.journal-fields(7). Of a field that
	// occurs more than once, it has the first.
	Fields map[string]string
}

// Journal returns entries of the journal in the order in which they were
// logged, all of them if there are no arguments. Arguments are those of
// journalctl(1): "--unit=app.service".
//
// A message that a process has just written may not be in it yet; see
// [Testbed.WaitJournal].
func (tb *Testbed) Journal(args ...string) ([]JournalEntry, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	var entries []JournalEntry
	err := tb.readJournal(ctx, args, func(entry JournalEntry) bool {
		entries = append(entries, entry)
		return true
	})
	return entries, err
}

// WaitJournal returns the first entry for which match returns true; if there is
// none yet, it waits. Arguments restrict what is looked at, as with
// [Testbed.Journal]. The error wraps that of ctx when ctx is done first.
func (tb *Testbed) WaitJournal(ctx context.Context, match func(JournalEntry) bool, args ...string) (JournalEntry, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var found *JournalEntry
	err := tb.readJournal(ctx, append([]string{"--follow", "--lines=all"}, args...), func(entry JournalEntry) bool {
		if match(entry) {
			found = &entry
		}
		return found == nil
	})
	switch {
	case found != nil:
		return *found, nil
	case ctx.Err() != nil:
		return JournalEntry{}, fmt.Errorf("wait for a journal entry: %w", context.Cause(ctx))
	case err == nil:
		err = errors.New("journalctl ended")
	}
	return JournalEntry{}, fmt.Errorf("wait for a journal entry: %w", err)
}

// readJournal calls yield for entries as journalctl prints them, until yield
// returns false.
func (tb *Testbed) readJournal(ctx context.Context, args []string, yield func(JournalEntry) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := tb.Command(ctx, append([]string{"journalctl", "--quiet", "--no-pager", "--all", "--output=json"}, args...)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr tail
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	for decoder := json.NewDecoder(stdout); ; {
		var raw map[string]json.RawMessage
		err = decoder.Decode(&raw)
		if err == nil && yield(parseEntry(raw)) {
			continue
		}
		break
	}
	if err == nil { // yield has had enough
		cancel()
		_ = cmd.Wait()
		return nil
	}
	if !errors.Is(err, io.EOF) {
		cancel()
		_ = cmd.Wait()
		return fmt.Errorf("journalctl: %w", err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		return fmt.Errorf("journalctl: %w: %s", err, &stderr)
	} else if err != nil {
		return fmt.Errorf("journalctl: %w", err)
	}
	return nil
}

// parseEntry understands https://systemd.io/JOURNAL_EXPORT_FORMATS, JSON.
func parseEntry(raw map[string]json.RawMessage) JournalEntry {
	entry := JournalEntry{Priority: 6, Fields: make(map[string]string, len(raw))}
	for name, value := range raw {
		entry.Fields[name] = parseField(value)
	}
	entry.Message = entry.Fields["MESSAGE"]
	entry.Unit = entry.Fields["_SYSTEMD_UNIT"]
	entry.Cursor = entry.Fields["__CURSOR"]
	if priority, err := strconv.Atoi(entry.Fields["PRIORITY"]); err == nil {
		entry.Priority = priority
	}
	entry.PID, _ = strconv.Atoi(entry.Fields["_PID"])
	if usec, err := strconv.ParseInt(entry.Fields["__REALTIME_TIMESTAMP"], 10, 64); err == nil {
		entry.Time = time.UnixMicro(usec)
	}
	return entry
}

// parseField returns the value of a field: a string; or, if it is not valid
// UTF-8, an array of bytes; or, if the field occurs more than once, an array of
// either.
func parseField(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text
	}
	var numbers []int // not []byte, which would be base64
	if json.Unmarshal(value, &numbers) == nil {
		bytes := make([]byte, len(numbers))
		for i, number := range numbers {
			bytes[i] = byte(number)
		}
		return string(bytes)
	}
	var values []json.RawMessage
	if json.Unmarshal(value, &values) == nil && len(values) > 0 {
		return parseField(values[0])
	}
	return ""
}
