// Package e2e holds the end-to-end tests: real unit files in a real systemd, real
// systemctl and hdctl, and a real load on the service.
//
// Every promise of the project has a test here that is named after it, in
// promises_test.go. The tests need root and systemd; elsewhere they are skipped,
// and in CI they fail.
package e2e
