package controld

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/hdctl/handoff/upgrade/control"
)

// AppendConn appends the line for one connection, {"conn":{…}} and a newline,
// and returns the longer slice. It allocates only if b is too small; 512 bytes of
// room are enough for all but strange connections.
//
// The line is byte for byte what encoding/json makes of control.Line{Conn: c}
// without SetEscapeHTML, as every other line of the API is made: a list of
// 100,000 connections takes a tenth of the time this way. It never fails: an age
// that JSON has no number for (NaN, an infinity) is written as 0.
//
// The client has a fast way to read exactly this form. Who adds a field here adds
// it there, too, at the same place; until then all lines go its slow way, which
// is correct.
func AppendConn(b []byte, c *control.Conn) []byte {
	b = append(b, `{"conn":{"generation":`...)
	b = strconv.AppendInt(b, int64(c.Generation), 10)
	b = append(b, `,"pid":`...)
	b = strconv.AppendInt(b, int64(c.PID), 10)
	b = append(b, `,"listener":`...)
	b = appendString(b, c.Listener)
	b = append(b, `,"peer":`...)
	b = appendString(b, c.Peer)
	b = append(b, `,"state":`...)
	b = appendString(b, c.State)
	if c.Doing != "" {
		b = append(b, `,"doing":`...)
		b = appendString(b, c.Doing)
	}
	b = append(b, `,"age_s":`...)
	b = appendFloat(b, c.Age)
	b = append(b, `,"quiet_s":`...)
	b = appendFloat(b, c.Quiet)
	b = append(b, `,"in_bytes":`...)
	b = strconv.AppendInt(b, c.In, 10)
	b = append(b, `,"out_bytes":`...)
	b = strconv.AppendInt(b, c.Out, 10)
	return append(b, "}}\n"...)
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0 // of what is not appended yet
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			b = appendEscape(b, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, s[start:i]...)
			b = append(b, `\ufffd`...)
			start = i + size
		case r == '\u2028', r == '\u2029': // the ends of lines in JavaScript
			b = append(b, s[start:i]...)
			b = append(b, `\u202`...)
			b = append(b, hex[r&0xf])
			start = i + size
		}
		i += size
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

const hex = "0123456789abcdef"

// appendEscape appends an ASCII character that cannot stand in a JSON string.
func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, `\b`...)
	case '\f':
		return append(b, `\f`...)
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	}
	return append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
}

// appendFloat appends f in the way of ECMAScript, as encoding/json does: the
// shortest digits that mean f, with an exponent only where it is very small or
// very large.
func appendFloat(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, '0')
	}
	// What is rounded to milliseconds needs no search for its shortest digits. A
	// decimal of at most 15 digits is not only one that means f, but the only
	// one: no two of them are the same float64.
	const most = 1e15
	if ms := math.Round(f * 1000); ms >= 0 && ms < most && ms/1000 == f && !math.Signbit(f) {
		return appendMillis(b, uint64(ms))
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	b = strconv.AppendFloat(b, f, format, -1, 64)
	if n := len(b); format == 'e' && b[n-4] == 'e' && b[n-3] == '-' && b[n-2] == '0' {
		// e-09 is written as e-9.
		b[n-2] = b[n-1]
		b = b[:n-1]
	}
	return b
}

// appendMillis appends ms thousandths, without zeros at the end.
func appendMillis(b []byte, ms uint64) []byte {
	b = strconv.AppendUint(b, ms/1000, 10)
	rest := ms % 1000
	if rest == 0 {
		return b
	}
	b = append(b, '.', byte('0'+rest/100))
	if rest%100 != 0 {
		b = append(b, byte('0'+rest/10%10))
	}
	if rest%10 != 0 {
		b = append(b, byte('0'+rest%10))
	}
	return b
}
