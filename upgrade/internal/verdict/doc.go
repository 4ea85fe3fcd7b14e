// Package verdict compares how two generations have answered requests over the same
// period, so that an upgrade that serves a share of the traffic can decide by itself
// whether the new version stays.
//
// It is pure: counts go in, and a sentence with the figures comes out. What it may
// be wrong about is chosen, and simulated in its tests:
//
//   - It says bad only of what is no accident. [Compare] is called every second
//     while figures come in, and whoever looks often sees an accident sooner: the
//     test of significance is therefore much stricter than one that is made once. In
//     a step of 30 looks fewer than 1 in 1,000 upgrades to an equal version are
//     called bad, and more than 999 in 1,000 that fail 5 % of 300 requests, or are
//     three times as slow, are.
//   - What is worse than the policy allows and may yet be an accident is neither bad
//     nor good, but inconclusive.
//   - Latencies are compared by medians, which neither a pause of the machine, nor a
//     few requests that ran into a timeout, nor the first ones of a process that is
//     still cold move far. A tail that has become longer is a doubt, no proof: where
//     a new generation has a small share, one client with heavy requests makes it.
//     So are means, which are all there is where a service reports its own totals.
//
// What no count of requests can tell: whether they are independent. A client whose
// requests all fail counts with each of them, and if it comes to the new generation
// its errors look like those of the version.
package verdict
