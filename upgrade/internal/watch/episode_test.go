package watch

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// The pace and the limits of these tests. No time passes in them.
const (
	interval = grain
	limit    = 5 * interval
)

// look is one reading with one socket, or with none of a change.
type look struct {
	reading
	socketReading
	limits *Limits // new ones, from here on
	times  int     // how often; 0: once
	want   string  // the finding of the last time; of the others: none
}

// on returns a look that comes on time, of a process that runs.
func on(change func(*look)) look {
	l := look{reading: reading{took: interval, process: running}}
	if change != nil {
		change(&l)
	}
	return l
}

func waits(accepts uint64) look {
	return on(func(l *look) { l.pending, l.accepts = true, accepts })
}

func is(c condition) look { return on(func(l *look) { l.process = c }) }

// and modifies a look.
func (l look) and(c condition) look              { l.process = c; return l }
func (l look) busyNow() look                     { l.busy = true; return l }
func (l look) late(took time.Duration) look      { l.took = took; return l }
func (l look) throttledFor(d time.Duration) look { l.throttled = d; return l }
func (l look) working() look                     { l.wanting = true; return l }
func (l look) x(times int) look                  { l.times = times; return l }
func (l look) finds(want string) look            { l.want = want; return l }
func (l look) with(limits Limits) look           { l.limits = &limits; return l }
func (f found) text() string                     { return f.Kind.String() + " " + f.For.String() }
func nobody(accepts uint64) look                 { return on(func(l *look) { l.accepts = accepts }) }

func both(stopped, stalled time.Duration) *Limits { return &Limits{Stopped: stopped, Stalled: stalled} }

func TestEpisodes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits *Limits // nil: both are limit
		looks  []look
	}{
		{name: "at work, or without CPU: four times as long", looks: []look{
			waits(0).working(), waits(0).working().x(4*5 - 1), waits(0).working().finds("stalled 100ms"),
		}},
		{name: "nothing happens", looks: []look{nobody(0).x(1000)}},
		{name: "connections come and are accepted", looks: []look{
			waits(0), waits(1), waits(2), waits(3), waits(4), waits(5), waits(6), waits(7), nobody(8),
		}},
		{name: "accepts slowly", looks: []look{
			waits(0).x(5), waits(1).x(5), waits(2).x(5), waits(3).x(5),
		}},
		{name: "the socket is read, and empty, in between", looks: []look{
			waits(7).x(5), nobody(7), waits(7).x(5), nobody(7), waits(7).x(5),
		}},

		{name: "stalls from the beginning, is found once, and recovers", looks: []look{
			waits(0).x(6).finds("stalled 100ms"), waits(0).x(100), waits(1).finds("recovered 2.1s"),
			nobody(2).x(100),
		}},
		{name: "stalls after a while, and twice", looks: []look{
			nobody(10).x(3), waits(20), waits(20).x(5).finds("stalled 100ms"), nobody(21).finds("recovered 100ms"),
			waits(21).x(6).finds("stalled 100ms"), nobody(22).finds("recovered 100ms"),
		}},
		{name: "others empty the socket of a stalled one: it has not recovered", looks: []look{
			waits(3).x(6).finds("stalled 100ms"), nobody(3).x(100), waits(3).x(100), waits(4).finds("recovered 2.1s"),
		}},
		{name: "a counter that goes backwards is a sign of life, if of a wild one", looks: []look{
			waits(3).x(6).finds("stalled 100ms"), waits(2).finds("recovered 100ms"),
		}},

		{name: "busy is no stall", looks: []look{waits(3).busyNow().x(100)}},
		{name: "busy for a moment begins anew", looks: []look{
			waits(3).x(5), waits(3).busyNow(), waits(3).x(5), waits(3).finds("stalled 100ms"),
		}},
		{name: "a stalled one that says that it is busy lives", looks: []look{
			waits(3).x(6).finds("stalled 100ms"), waits(3).busyNow().finds("recovered 100ms"), waits(3).busyNow().x(100),
		}},

		{name: "stopped, found once, and continued", looks: []look{
			is(running), is(stopped).x(6).finds("stopped 100ms"), is(stopped).x(100), is(running).finds("recovered 2.1s"),
			is(stopped).x(5), is(running), is(stopped).x(5), is(running),
		}},
		{name: "stopped with clients that wait is one finding", looks: []look{
			waits(1).and(stopped).x(6).finds("stopped 100ms"), waits(1).and(stopped).x(100),
			waits(1).and(running).finds("recovered 2.1s"), waits(1).x(4), waits(1).finds("stalled 100ms"),
		}},
		{name: "stopped is a stall, if it is not looked for itself", limits: both(0, limit), looks: []look{
			waits(1).and(stopped).x(6).finds("stalled 100ms"), waits(1).x(100), waits(2).finds("recovered 2.1s"),
		}},
		{name: "a debugger", looks: []look{is(traced).x(100), waits(1).and(traced).x(100)}},
		{name: "a debugger comes, and goes without a continue", looks: []look{
			is(stopped).x(5), is(traced).x(100), is(stopped).finds("stopped 100ms"), is(traced).x(100),
			is(stopped), is(running).finds("recovered 120ms"),
		}},
		{name: "a debugger comes to a stall, and goes", looks: []look{
			waits(1).x(5), waits(1).and(traced).x(100), waits(1).finds("stalled 100ms"),
		}},
		{name: "nothing is known of the process", looks: []look{
			is(unknown).x(100), is(stopped).x(5), is(unknown).x(100), is(stopped).finds("stopped 100ms"), is(unknown),
		}},
		{name: "nothing is known of the process, but clients wait", looks: []look{
			waits(1).and(unknown).x(6).finds("stalled 100ms"),
		}},

		{name: "dying is found at once, and nothing after it", looks: []look{
			waits(1).x(3), is(dying).finds("exiting 0s"), is(dying).x(100), is(running), is(stopped).x(100), waits(1).x(100),
		}},
		{name: "dying is found without limits", limits: both(0, 0), looks: []look{is(dying).finds("exiting 0s")}},

		{name: "late looks count like others", looks: []look{
			waits(1).x(2), waits(1).late(time.Hour), waits(1).late(time.Minute), waits(1).late(time.Second),
			waits(1).late(time.Second).finds("stalled 100ms"),
		}},
		{name: "late looks at a stopped one", looks: []look{
			is(stopped).late(time.Hour).x(5), is(stopped).late(time.Hour).finds("stopped 100ms"),
		}},
		{name: "early looks count for what they are", looks: []look{
			waits(1), waits(1).late(interval / 2).x(9), waits(1).late(interval / 2).finds("stalled 100ms"),
		}},
		{name: "a look is late, and the next in time", looks: []look{
			waits(1), waits(1).late(interval * 3 / 2), waits(1).late(interval / 2),
			waits(1).late(interval * 3 / 2), waits(1).late(interval / 2), waits(1).finds("stalled 100ms"),
		}},
		{name: "after a long time, no more than one look is made up for", looks: []look{
			waits(1), waits(1).late(time.Hour), waits(1).late(0), waits(1).late(0).x(100),
			waits(1).x(2), waits(1).finds("stalled 100ms"),
		}},
		{name: "looks in which it was throttled do not count", looks: []look{
			waits(1).x(5), waits(1).throttledFor(time.Millisecond).x(100), waits(1).finds("stalled 100ms"),
		}},
		{name: "looks before which it was throttled are taken back", looks: []look{
			waits(1).x(5),                       // 4 intervals
			waits(1).throttledFor(3 * interval), // 1 of this look, 2 of those before
			waits(1).x(2),
			waits(1).finds("stalled 100ms"),
		}},
		{name: "not more than all is taken back", looks: []look{
			waits(1).x(5), waits(1).throttledFor(time.Hour), waits(1).x(5).finds("stalled 100ms"),
		}},
		{name: "a stopped one is throttled", looks: []look{
			is(stopped).x(5), is(stopped).throttledFor(time.Hour).x(10), is(stopped).x(5).finds("stopped 100ms"),
		}},

		{name: "nothing is looked for", limits: both(0, 0), looks: []look{
			waits(1).x(100), is(stopped).x(100), waits(1).and(stopped).x(100),
		}},
		{name: "what is not looked for any more is forgotten", looks: []look{
			waits(1).x(6).finds("stalled 100ms"), waits(1).with(*both(0, 0)), waits(2),
			is(stopped).with(*both(limit, limit)).x(6).finds("stopped 100ms"), is(stopped).with(*both(0, 0)), is(running),
			waits(2).with(*both(limit, limit)).x(5), waits(2).finds("stalled 100ms"),
		}},
		{name: "a shorter limit holds for what has begun", limits: both(time.Hour, time.Hour), looks: []look{
			waits(1).x(100), waits(1).with(*both(limit, limit)).finds("stalled 2s"),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEpisodes(1)
			limits := both(limit, limit)
			if tt.limits != nil {
				limits = tt.limits
			}
			for i, l := range tt.looks {
				if l.limits != nil {
					limits = l.limits
				}
				times := max(l.times, 1)
				for n := range times {
					r := l.reading
					r.sockets = []socketReading{l.socketReading}
					var want, got []string
					if n == times-1 && l.want != "" {
						want = []string{l.want}
					}
					for _, f := range e.step(r, *limits, interval) {
						got = append(got, f.text())
					}
					assert.Equal(t, want, got, "look %d, time %d", i, n+1)
				}
			}
		})
	}
}

func TestEpisodesOfSeveralSockets(t *testing.T) {
	e := newEpisodes(3)
	accepts := uint64(0)
	var got []found
	for range 7 {
		accepts++
		got = append(got, e.step(reading{took: interval, process: running, sockets: []socketReading{
			{accepts: accepts, pending: true},
			{accepts: 5, pending: true},
			{accepts: 7},
		}}, *both(limit, limit), interval)...)
	}
	assert.Equal(t, []found{{Finding{Kind: Stalled, For: limit}, 1}}, got)
}
