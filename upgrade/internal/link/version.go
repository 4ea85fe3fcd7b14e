package link

import "fmt"

// The versions of the protocol that this library speaks. A version changes when
// a message that the other side does not know, or misunderstands, would do harm;
// new fields and new kinds that may be ignored need none.
const (
	MinVersion = 1
	MaxVersion = 1
)

// Range is a range of protocol versions, both ends included. Versions begin
// with 1.
type Range struct{ Min, Max int }

// Supported returns the range of this library.
func Supported() Range { return Range{Min: MinVersion, Max: MaxVersion} }

// String returns "version 1" or "versions 1 to 3".
func (r Range) String() string {
	if r.Min == r.Max {
		return fmt.Sprintf("version %d", r.Min)
	}
	return fmt.Sprintf("versions %d to %d", r.Min, r.Max)
}

func (r Range) valid() bool { return 1 <= r.Min && r.Min <= r.Max }

// Negotiate returns the version that two generations use: the highest that both
// speak. Both sides come to the same answer without a further message. The error
// is a [*VersionError].
func Negotiate(ours, theirs Range) (version int, err error) {
	version = min(ours.Max, theirs.Max)
	if !ours.valid() || !theirs.valid() || version < max(ours.Min, theirs.Min) {
		return 0, &VersionError{Ours: ours, Theirs: theirs}
	}
	return version, nil
}

// VersionError says that two generations have no version of the protocol in
// common. The upgrade is refused, and the old generation goes on.
type VersionError struct{ Ours, Theirs Range }

// Error names both ranges.
func (e *VersionError) Error() string {
	return fmt.Sprintf("no common protocol: this generation speaks %v, the other one %v", e.Ours, e.Theirs)
}
