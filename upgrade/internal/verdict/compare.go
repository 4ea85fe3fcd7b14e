package verdict

import (
	"fmt"
	"math"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
)

const (
	// proof is how unlikely an accident must be for bad. Compare is called every
	// second of a step, and any of these calls may end it: the chance that one of 30
	// sees an accident is several times that of one.
	proof = 3e-5
	// doubt is how unlikely an accident must be for what is worse than the policy
	// allows not to be called good.
	doubt = 1e-2
	// minErrors is how many requests must have failed for bad: two of fifty may have
	// the same cause, which is none of the version's.
	minErrors = 3
	// medianFloor is how much longer the median must take, whatever the ratio: for a
	// service that answers in 50 µs, 150 µs are noise of the machine.
	medianFloor = time.Millisecond
	// tailFloor is the same for the tail, where the pauses of the scheduler and of
	// the garbage collector are.
	tailFloor = 10 * time.Millisecond
	// minShift is the fraction of requests that must have moved from below to above
	// a limit. Where a service has fast and slow requests, and the median is at the
	// border between them, a small change of what clients want moves it far.
	minShift = 0.1
)

// Compare tells whether a new generation does as well as the old one, by what both
// have counted over the same period, under the given policy. Rates are compared, not
// counts: the shares of the traffic may differ as they like. Of a generation that
// gets nothing any more, which happens to the old one in a last step of 100 %, an
// earlier period may be given instead.
//
// It is bad if more of its requests fail than the policy allows, or its median
// answer takes longer, and that is no accident; inconclusive if one of both has
// answered too few requests, or if what is worse may be an accident; otherwise good.
// If only the old one has too few, more than half of the new one's requests failing
// is bad.
func Compare(old, new pulse.Sample, period time.Duration, p Policy) control.Verdict {
	c := comparison{old: groupOf(old), new: groupOf(new), period: period, policy: p.WithDefaults()}
	v := control.Verdict{Old: Health(old, period), New: Health(new, period)}
	v.Verdict, v.Reason = c.decide()
	return v
}

type comparison struct {
	old, new group
	period   time.Duration
	policy   Policy
}

// finding is one criterion's answer; the zero value has nothing to object.
type finding struct {
	verdict, reason string
}

func (c comparison) decide() (verdict, reason string) {
	if verdict, reason := c.enough(); verdict != "" {
		return verdict, reason
	}
	findings := []finding{c.errors(), c.median(), c.mean(), c.tail()}
	for _, worst := range []string{control.VerdictBad, control.VerdictInconclusive} {
		for _, f := range findings {
			if f.verdict == worst {
				return f.verdict, f.reason
			}
		}
	}
	reason = errorsText(c.old, c.new)
	switch {
	case c.timed():
		reason += "; " + timeText("median", c.old.Quantile(0.5), c.new.Quantile(0.5))
	case c.old.Latency > 0 && c.new.Latency > 0:
		reason += "; " + timeText("mean", c.old.Mean(), c.new.Mean())
	}
	return control.VerdictGood, reason
}

// enough decides if there is too little to compare.
func (c comparison) enough() (verdict, reason string) {
	least := uint64(c.policy.MinRequests)
	switch {
	case c.new.Requests < least:
		reason = fmt.Sprintf("%s requests are too few, %s are needed", count(c.new.Requests), count(least))
		if c.new.Errors > 0 {
			reason += fmt.Sprintf("; %s of them failed", count(c.new.Errors))
		}
		return control.VerdictInconclusive, reason
	case c.old.Requests < least:
		verdict = control.VerdictInconclusive
		if c.new.failed() > 0.5 {
			verdict = control.VerdictBad
		}
		return verdict, fmt.Sprintf("%s of %s requests failed; %s of the old one are too few to compare with",
			percent(c.new.failed()), count(c.new.Requests), count(c.old.Requests))
	}
	return "", ""
}

// errors compares how many requests failed.
func (c comparison) errors() finding {
	if c.new.failed()-c.old.failed() <= c.policy.MaxErrors {
		return finding{}
	}
	chance := accident(c.new.Errors, c.new.Requests, c.old.Errors, c.old.Requests)
	switch {
	case chance < proof && c.new.Errors >= minErrors:
		return finding{control.VerdictBad, errorsText(c.old, c.new)}
	case chance < doubt:
		return finding{control.VerdictInconclusive, errorsText(c.old, c.new) + ": too few to tell whether that is an accident"}
	}
	return finding{}
}

// timed tells whether both have enough requests whose latency is known.
func (c comparison) timed() bool {
	return min(c.old.timed, c.new.timed) >= uint64(c.policy.MinRequests)
}

// median compares the time that half of the answers took at most.
func (c comparison) median() finding {
	was, is := c.old.Quantile(0.5), c.new.Quantile(0.5)
	limit := c.limit(was, medianFloor)
	if !c.timed() || is <= limit {
		return finding{}
	}
	chance, shift := c.slower(limit)
	text := timeText("median", was, is)
	switch {
	case chance >= doubt || shift < minShift:
		return finding{}
	case c.period < c.policy.WarmUp:
		return finding{control.VerdictInconclusive, text + fmt.Sprintf(": too early to tell, %v after it began", c.period.Round(time.Second))}
	case chance >= proof:
		return finding{control.VerdictInconclusive, text + fmt.Sprintf(": %s requests are too few to tell whether that is an accident", count(c.new.timed))}
	}
	return finding{control.VerdictBad, text}
}

// tail compares the time that 95 % of the answers took at most.
func (c comparison) tail() finding {
	was, is := c.old.Quantile(0.95), c.new.Quantile(0.95)
	limit := c.limit(was, tailFloor)
	if !c.timed() || is <= limit {
		return finding{}
	}
	if chance, shift := c.slower(limit); chance >= proof || shift < minShift {
		return finding{}
	}
	return finding{control.VerdictInconclusive, fmt.Sprintf("the slowest 5%% of the requests took more than %v, of the old one %v; %s",
		round(is), round(was), timeText("median", c.old.Quantile(0.5), c.new.Quantile(0.5)))}
}

// mean compares means, where more is not known. One request that has run into a
// timeout of a minute makes a large mean of a thousand fast ones: that is no proof.
func (c comparison) mean() finding {
	was, is := c.old.Mean(), c.new.Mean()
	if c.timed() || was <= 0 || is <= c.limit(was, medianFloor) {
		return finding{}
	}
	return finding{control.VerdictInconclusive, timeText("mean", was, is) + ": a few that took very long would look the same"}
}

// limit is how long something may take that took was in the old generation.
func (c comparison) limit(was, floor time.Duration) time.Duration {
	return max(time.Duration(math.Min(float64(was)*c.policy.MaxSlowdown, math.MaxInt64/2)), was+floor)
}

// slower compares how many requests took longer than limit: how likely it is that
// the difference is an accident, and how large it is, as a fraction of the requests.
// Unlike a comparison of the medians themselves it needs no assumption of how
// latencies are distributed.
func (c comparison) slower(limit time.Duration) (chance, shift float64) {
	was, is := c.old.slowerThan(limit), c.new.slowerThan(limit)
	shift = float64(is)/float64(c.new.timed) - float64(was)/float64(c.old.timed)
	return accident(is, c.new.timed, was, c.old.timed), shift
}
