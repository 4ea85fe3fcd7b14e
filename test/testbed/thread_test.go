package testbed_test

import (
	"os"
	"strconv"
	"testing"

	"github.com/hdctl/handoff/test/testbed"
	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
)

// It is never the main thread, not even when nothing else has time, and it is
// not used for anything else.
func TestOnThread(t *testing.T) {
	var main, again int
	tids := make(map[int]bool)
	for range 200 {
		testbed.OnThread(func() {
			tid := unix.Gettid()
			if tid == unix.Getpid() {
				main++
			}
			if tids[tid] {
				again++
			}
			tids[tid] = true
		})
	}
	assert.Zero(t, main, "times on the main thread")
	assert.Zero(t, again, "times on a used thread")

	assert.True(t, eventually(func() bool {
		for tid := range tids {
			if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(tid)); err == nil {
				return false
			}
		}
		return true
	}), "threads are left")
}
