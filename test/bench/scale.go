package main

import (
	"time"

	"github.com/hdctl/handoff/test/load"
)

// scale is how much is measured.
type scale struct {
	// Tracking.
	rounds      int           // in turns
	span        time.Duration // of each measurement
	clients     int           // at the same time
	allocs      int           // requests of which the allocations are counted
	idle        int           // connections of which the memory is measured
	fileSize    int64         // bytes
	fileClients int

	// Migration.
	pools     []pool
	postRate  float64       // requests a second, on all connections together
	before    time.Duration // of requests without a migration
	postConns int           // requests at the same time, at most

	// Upgrades.
	loadRounds int
	upgrades   int           // in each round
	interval   time.Duration // between two of them, at least
	newRate    float64       // new connections a second
	kept       int           // connections
	keptRate   float64       // requests a second on them
	quiet      int           // upgrades without clients

	// Faults.
	arrivals    float64 // new connections a second
	faults      int     // of each kind
	largeFaults int     // of each kind in which the process is large
	memory      int     // MiB of such a process
}

// pool is how many idle connections move, and how often that is measured.
type pool struct{ conns, rounds int }

// full is what make bench measures: less than six minutes.
var full = scale{
	rounds: 5, span: time.Second, clients: 16, allocs: 10_000, idle: 10_000, fileSize: 64 << 20, fileClients: 2,
	pools: []pool{{1000, 4}, {10_000, 3}}, postRate: 500, before: 2 * time.Second, postConns: 32,
	loadRounds: 2, upgrades: 20, interval: 700 * time.Millisecond, newRate: 250, kept: 128, keptRate: 1000, quiet: 5,
	arrivals: load.DefaultArrivals, faults: 20, largeFaults: 5, memory: 2048,
}

// tiny is for the tests of this program.
var tiny = scale{
	rounds: 1, span: 20 * time.Millisecond, clients: 2, allocs: 50, idle: 20, fileSize: 1 << 20, fileClients: 1,
	pools: []pool{{30, 1}}, postRate: 200, before: 50 * time.Millisecond, postConns: 4,
	loadRounds: 1, upgrades: 1, interval: 500 * time.Millisecond, newRate: 50, kept: 8, keptRate: 100, quiet: 1,
	arrivals: 200, faults: 1, largeFaults: 1, memory: 8,
}
