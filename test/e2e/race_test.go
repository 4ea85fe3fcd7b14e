//go:build race

package e2e

// raceFlags build the services with the race detector when the tests are.
var raceFlags = []string{"-race"}
