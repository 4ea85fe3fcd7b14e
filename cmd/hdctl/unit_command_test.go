package main

import (
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/units"
)

// TestCommandLineIsNoted sets every flag, notes the command line in a unit, and reads
// the same flags again.
func TestCommandLineIsNoted(t *testing.T) {
	var all unitFlags
	v := reflect.ValueOf(&all).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i).Addr().Interface().(type) {
		case *[]string:
			*f = []string{"a=b", "it's, $HOME", ""}
		case *string:
			*f = `"x" ` + strconv.Itoa(i)
		case *bool:
			*f = true
		case *int:
			*f = 100 + i
		case *time.Duration:
			*f = time.Duration(i) * time.Minute
		case *span:
			*f = span(units.None)
		default:
			t.Fatalf("%s: a kind of flag that words does not know", v.Type().Field(i).Name)
		}
		require.False(t, v.Field(i).IsZero())
	}
	for _, user := range []bool{false, true} {
		for _, flags := range []unitFlags{all, {Exec: "/usr/bin/app", Listen: []string{"http=8080"}}} {
			unit := noted(t, flags.commandLine("app", user))
			got, err := recordedFlags(unit, "app", user)
			require.NoError(t, err)
			assert.Equal(t, flags, got)
			_, err = recordedFlags(unit, "other", user)
			require.ErrorContains(t, err, "for another unit")
			_, err = recordedFlags(unit, "app", !user)
			require.ErrorContains(t, err, "for another unit")
		}
	}
	_, err := recordedFlags(noted(t, []string{"hdctl", "unit", "generate", "app", "--nosuch"}), "app", false)
	require.ErrorContains(t, err, "unknown flag")
	_, err = recordedFlags(noted(t, []string{"hdctl", "status", "app"}), "app", false)
	require.ErrorContains(t, err, "the command line in it")
}

// noted is a service unit with a command line.
func noted(t *testing.T, words []string) []byte {
	t.Helper()
	files, err := units.Service{
		Name: "app", Exec: "/usr/bin/app", Command: words,
		Sockets: []units.Socket{{Name: "http", Listen: []units.Listen{{Address: "8080"}}}},
	}.Render()
	require.NoError(t, err)
	return files["app.service"]
}

// A duration is noted so that nothing of it is lost.
func TestSpan(t *testing.T) {
	for text, d := range map[string]time.Duration{
		"": 0, "none": units.None, "10m": 10 * time.Minute, "1h": time.Hour, "90s": 90 * time.Second, "1h0m5s": time.Hour + 5*time.Second,
		"500ms": 500 * time.Millisecond, "20m": 20 * time.Minute, "10s": 10 * time.Second,
	} {
		if text != "90s" {
			assert.Equal(t, text, span(d).String())
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := span(rapid.Int64Range(1, int64(366*24*time.Hour)).Draw(t, "duration"))
		var got span
		if err := got.UnmarshalText([]byte(d.String())); err != nil || got != d {
			t.Fatalf("%v: %v, %v", d, got, err)
		}
	})
}
