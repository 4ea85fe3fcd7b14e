package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// TestTwoHundredUpgradesLoseNothing upgrades 200 times, by hdctl and by systemctl
// in turn, under every kind of load: clients that connect for each request, 500
// that keep an idle connection and send a POST now and then, spare connections that
// have not carried a byte, and requests in pieces. No request fails, no connection
// of HTTP/1.1 is closed by the server, announced or not, and nothing piles up.
func TestTwoHundredUpgradesLoseNothing(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	s := newSite(t, options{probation: 50 * time.Millisecond})
	known := map[int]int{1: mainOf(t, s.status()).PID} // PID by generation
	began := make(map[int]time.Time)                   // the upgrade that ended the generation
	upgrade := func() int {
		from := len(known)
		began[from] = time.Now()
		if from%2 == 0 {
			s.reload()
		} else {
			r := s.hdctl("upgrade", "demo")
			require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
		}
		st := s.status()
		require.Equal(t, from+1, st.Main)
		known[st.Main] = mainOf(t, st).PID
		return st.Main
	}
	underLoad := func(n int) load.Report {
		l := s.startLoad(load.MixWithPool())
		for range n {
			if main := upgrade(); main%10 == 0 {
				s.deploy("demo-" + versions[main/10%len(versions)])
			}
		}
		r := l.Stop()
		total := r.Total()
		require.NoError(t, r.Err(), "%v", r)
		require.Equal(t, total.Requests, total.Responses)
		assert.Zero(t, r.ClosedByServer(), "connections that the server has closed\n%v", r)
		for _, served := range r.Served {
			assert.Equal(t, known[served.Generation], served.PID, "generation %d, as the answers say", served.Generation)
		}
		t.Logf("%d upgrades in %v, each of %d generations answered\n%s", n, r.Elapsed.Round(time.Millisecond),
			len(r.Generations()), table(r))
		return r
	}
	// What a process holds is compared between two that have had no load.
	sample := func() usage {
		upgrade()
		return s.quiet()
	}
	start := time.Now()
	underLoad(rounds / 20)
	before := sample()
	underLoad(rounds - rounds/20)
	after := sample()

	t.Logf("%v in all\n%v\n%v\nfrom the trigger to the end of the old process: %v", time.Since(start).Round(time.Second),
		before, after, s.drains(began))
	assert.Len(t, after.fds, len(before.fds), "file descriptors\n%s\n%s", strings.Join(before.fds, "\n"), strings.Join(after.fds, "\n"))
	assert.InDelta(t, before.goroutines, after.goroutines, 5)
	assert.InDelta(t, before.rss, after.rss, 0.1*float64(before.rss))
	s.noZombies()
}

// table is a report without the generations, of which there are many.
func table(r load.Report) string {
	r.Served = nil
	return r.String()
}

// drains tells how long generations have lived after the upgrades that ended them
// had begun, as far as the journal has them.
func (s *site) drains(began map[int]time.Time) string {
	s.t.Helper()
	var all []time.Duration
	for _, e := range s.drainRecords() {
		all = append(all, e.Time.Sub(began[e.number]).Round(time.Millisecond))
	}
	require.NotEmpty(s.t, all)
	slices.Sort(all)
	return fmt.Sprintf("median %v, 90%% within %v, all within %v", all[len(all)/2], all[len(all)*9/10], all[len(all)-1])
}

// drainRecord is what the journal has of the end of a generation.
type drainRecord struct {
	testbed.JournalEntry
	number int
}

func (s *site) drainRecords() (records []drainRecord) {
	s.t.Helper()
	entries, err := s.Journal("MESSAGE_ID=" + drainedID)
	require.NoError(s.t, err)
	for _, e := range entries {
		number, err := strconv.Atoi(e.Fields["HANDOFF_GENERATION"])
		require.NoError(s.t, err)
		records = append(records, drainRecord{e, number})
	}
	return records
}

// TestEachDrainIsInTheJournalOnce ends many generations while the next upgrade
// hands over: whoever is main then, each end is recorded by one of them, as what it
// was.
func TestEachDrainIsInTheJournalOnce(t *testing.T) {
	t.Parallel()
	const rounds = 40
	s := newSite(t, options{probation: 20 * time.Millisecond})
	l := s.startLoad(load.Options{
		KeepAlive: load.Traffic{Conns: 100, Rate: 100},
		Slow:      load.Traffic{Conns: 8, Rate: 20}, // so that drains take a random time
		SlowTime:  300 * time.Millisecond,
	})
	for range rounds {
		r := s.hdctl("upgrade", "demo")
		require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	}
	requireNoFailure(t, l)
	s.WaitFor(t, "the end of all drains", func() bool { return len(s.status().Generations) == 1 })
	// That of one whose last report has gone astray comes a little later.
	s.WaitFor(t, "a record of each", func() bool { return len(s.drainRecords()) >= rounds })
	records := make(map[int][]string)
	for _, r := range s.drainRecords() {
		records[r.number] = append(records[r.number], r.Fields["HANDOFF_OUTCOME"])
	}
	for n := 1; n <= rounds; n++ {
		assert.Equal(t, []string{"drained"}, records[n], "generation %d", n)
	}
}

// upgradeDrained runs an upgrade that waits for the end of the old generation,
// which must cut nothing.
func (s *site) upgradeDrained() control.Result {
	s.t.Helper()
	r := s.hdctl("upgrade", "--wait=drained", "-o", "json", "demo")
	require.Equal(s.t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	var result control.Result
	require.NoError(s.t, json.Unmarshal([]byte(r.Stdout), &result), "%s", r.Stdout)
	return result
}

// TestIdleConnectionsNeverMakeADrainLast has connections that do nothing, some of
// which never did: the old generation is gone long before its deadline, and they
// are all there.
func TestIdleConnectionsNeverMakeADrainLast(t *testing.T) {
	const clients = 200
	s := newSite(t, options{unit: func(u *units.Service) { u.DrainTimeout = 10 * time.Minute }})
	f := s.openFleet(clients, clients/4)
	s.WaitFor(t, "all to be accepted", func() bool {
		return mainOf(t, s.status()).Conns == control.Counts{Total: clients, New: clients / 4, Idle: clients * 3 / 4}
	})
	for next := 2; next <= 3; next++ { // those that have moved move again
		result := s.upgradeDrained()
		t.Logf("confirmed after %.3f s, the old generation was gone %.3f s later", result.Confirmed, result.Total-result.Confirmed)
		assert.Less(t, result.Total, 60.0, "seconds, of 600")
		assert.True(t, result.Drained)
		assert.Zero(t, result.Cut)
		assert.Equal(t, clients, result.Migrated)
		// Its last words come a moment before its end.
		s.WaitFor(t, "the end of the old generation", func() bool { return len(s.status().Generations) == 1 })
		main := mainOf(t, s.status())
		assert.Equal(t, clients, main.Adopted)
		assert.Equal(t, control.Counts{Total: clients, Idle: clients}, main.Conns)

		asked := f[:clients/2].ask()
		require.NoError(t, asked.err())
		assert.Equal(t, map[int]int{next: clients / 2}, asked.by)
		assert.Zero(t, asked.announced)
	}
	asked := f.ask()
	require.NoError(t, asked.err())
	assert.Equal(t, map[int]int{3: clients}, asked.by)
	assert.Zero(t, asked.announced)
}

// TestBigMigrationDoesNotDelayRequests moves 10,000 idle connections, of which
// random ones send requests all the time. How long they wait is for the benchmark
// to say; here it is enough that nobody waits for the whole migration.
func TestBigMigrationDoesNotDelayRequests(t *testing.T) {
	clients := 10_000
	if len(raceFlags) > 0 {
		clients = 5_000 // the race detector knows no more than 8,128 goroutines
	}
	var files unix.Rlimit // of this process; those of the service come from it, too
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &files))
	clients = min(clients, int(files.Cur)-500)
	s := newSite(t, options{unit: func(u *units.Service) { u.DrainTimeout = 5 * time.Minute }})
	f := s.openFleet(clients, clients/10)
	s.WaitFor(t, "all to be accepted", func() bool { return mainOf(t, s.status()).Conns.Total == clients })

	stop := f.askAtRandom(300)
	result := s.upgradeDrained()
	during := stop()
	t.Logf("%d connections moved in %.3f s, with the last reports of the old generation", result.Migrated, result.Total-result.Confirmed)
	t.Logf("meanwhile: %v", during)
	require.NoError(t, during.err())
	assert.Zero(t, during.announced)
	assert.Less(t, during.longest, 2*time.Second)
	assert.Equal(t, clients, result.Migrated)
	assert.Zero(t, result.Cut)

	asked := f.ask()
	t.Logf("afterwards: %v", asked)
	require.NoError(t, asked.err())
	assert.Equal(t, map[int]int{2: clients}, asked.by)
	assert.Zero(t, asked.announced)
}
