package upgrade

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/verdict"
)

// judgeInterval is how often an automatic upgrade is looked at.
const judgeInterval = time.Second

// defaultSteps are those of an automatic upgrade that names none.
var defaultSteps = [...]control.Step{{Share: 5, Time: 30}, {Share: 25, Time: 30}, {Share: 100, Time: 30}}

// autopilot decides about a staged upgrade by how the two generations do. It
// belongs to the driver.
type autopilot struct {
	steps  []control.Step
	policy verdict.Policy
	step   int // index of the present one
	until  time.Time
	timer  *time.Timer
}

func newAutopilot(a control.Auto) *autopilot {
	p := &autopilot{steps: a.Steps}
	if len(p.steps) == 0 {
		p.steps = defaultSteps[:]
	}
	p.policy = verdict.Policy{MinRequests: a.MinRequests, MaxErrors: a.MaxErrors / 100, MaxSlowdown: a.MaxSlowdown}.WithDefaults()
	for _, step := range p.steps { // a short step has to come to a verdict, too
		p.policy.WarmUp = min(p.policy.WarmUp, durationOf(step.Time/2))
	}
	return p
}

func (p *autopilot) length() time.Duration {
	return durationOf(p.steps[p.step].Time)
}

func (p *autopilot) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}

func (p *autopilot) describe(frozen bool) *control.AutoStep {
	return &control.AutoStep{Step: p.step + 1, Steps: len(p.steps), Until: p.until, Frozen: frozen}
}

// startAutopilot begins the first step.
func (u *Upgrader) startAutopilot() {
	u.wg.Go(func() {
		if text := statusesUnknown(); text != "" {
			u.log.LogAttrs(u.ctx, slog.LevelWarn, "a verdict on this upgrade goes by panics and latency only", slog.String("err", text))
		}
	})
	p := u.attempt.stage.auto
	p.until = time.Now().Add(p.length())
	u.judgeLater(p)
}

func (u *Upgrader) judgeLater(p *autopilot) {
	p.timer = u.after(min(judgeInterval, max(time.Until(p.until), time.Millisecond)), func() { u.judge(p) })
}

// judge compares the two generations, and does what follows from it.
func (u *Upgrader) judge(p *autopilot) {
	a := u.attempt
	if a == nil || a.stage == nil || a.stage.auto != p || u.state.Candidate.Phase != machine.OnStage {
		return
	}
	st, now := a.stage, time.Now()
	ours, theirs, since := st.ours, st.theirs, st.since
	if st.percent >= 100 { // the old one gets nothing to compare with
		ours, theirs, since = st.oursFirst, st.theirsFirst, st.first
	}
	v := verdict.Compare(u.page.Sample().Minus(ours), u.pageOf(a.number).Sample().Minus(theirs), now.Sub(since), p.policy)
	over := !now.Before(p.until)
	switch {
	case v.Verdict == control.VerdictBad:
		u.convict(a, &v)
	case !over:
		u.judgeLater(p)
	case u.paused != nil: // the step goes on until that is over
		p.until = now.Add(judgeInterval)
		u.publish()
		u.judgeLater(p)
	case v.Verdict == control.VerdictInconclusive:
		u.convict(a, &v)
	case p.step == len(p.steps)-1:
		a.verdict = &v
		u.say(a, fmt.Sprintf("promoted after step %d of %d: %s", p.step+1, len(p.steps), v.Reason))
		st.auto = nil
		u.step(machine.Promote{})
	default:
		u.say(a, fmt.Sprintf("step %d of %d is good: %s", p.step+1, len(p.steps), v.Reason))
		p.step++
		p.until = now.Add(p.length())
		u.setStage(p.steps[p.step].Share)
		u.judgeLater(p)
	}
}

// convict rolls back because of a verdict.
func (u *Upgrader) convict(a *attempt, v *control.Verdict) {
	a.verdict = v
	code := control.CodeRolledBack
	if v.Verdict == control.VerdictInconclusive {
		code = control.CodeInconclusive
	}
	a.problem = control.Errorf(code, "rolled back at %s: %s", describeShare(a.stage.percent), v.Reason)
	if code == control.CodeInconclusive {
		a.problem = a.problem.WithHint("give it more time (--step) or a larger share, ask for fewer requests (--min-requests), or decide by hand (--stage)")
	}
	u.say(a, a.problem.Message)
	u.step(machine.Rollback{})
}

func (u *Upgrader) say(a *attempt, text string) {
	u.events.add(control.Event{Phase: control.PhaseStaged, Generation: a.number, PID: a.pid, Message: text})
	u.log.LogAttrs(u.ctx, slog.LevelInfo, "automatic upgrade", slog.Int("generation", a.number), slog.String("verdict", text))
}

// reportHealth puts what the service says of itself into its page, once a second.
func (u *Upgrader) reportHealth() {
	f := u.opts.Health
	if f == nil {
		return
	}
	u.wg.Go(func() { // not in the driver: it is code of the service
		h := f()
		u.page.Report(h.Requests, h.Errors, h.Latency)
		u.after(judgeInterval, u.reportHealth)
	})
}
