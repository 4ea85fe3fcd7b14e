package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// printReport prints a report for people.
func (a *app) printReport(r *statusReport) {
	if r.Status == nil {
		a.printAbsent(r)
		return
	}
	wide := a.globals.Format == "wide"
	a.printf("%s: %s\n", a.paint(bold, clean(r.title())), a.headline(r.Status))
	field := func(name, format string, args ...any) {
		a.printf("  %-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	if list := a.socketList(r.Sockets, wide); len(list) > 0 && !wide {
		field("sockets", "%s", strings.Join(list, " · "))
	} else {
		for i, s := range list { // one a line, with their connections
			field([]string{"sockets", ""}[min(i, 1)], "%s", s)
		}
	}
	if r.Paused != nil {
		field("upgrades", "%s", a.paint(yellow, pausedText(r.Paused, r.Time)))
	}
	if r.Upgrade != nil {
		field("upgrade", "%s", progressText(r.Upgrade, r.Time))
		if r.Upgrade.Stage != nil {
			field("staged", "%s", stageText(r.Upgrade.Stage, r.Time))
		}
	}
	if r.Last != nil {
		field("last", "%s", a.lastText(r.Last, r.Time))
	}
	if s := a.diskText(r.Status); s != "" {
		field("on disk", "%s", s)
	}
	if p := r.Previous; p != nil && wide {
		field("previous", "%s", previousText(p))
	}
	for _, s := range a.systemdText(r, wide) {
		field("systemd", "%s", s)
	}
	if wide {
		field("options", "%s", optionsText(r.Options))
		field("control", "%s", clean(r.Path))
	}
	for _, w := range r.Warnings {
		field("warning", "%s", a.paint(yellow, clean(w)))
	}
	a.printf("\n")
	a.generations(r.Status, wide).print(&a.terminal, !a.globals.NoLegend)
	if t := a.stages(r.Status); t != nil {
		a.printf("\n")
		t.print(&a.terminal, !a.globals.NoLegend)
	}
	for _, g := range r.Generations {
		for _, s := range []string{g.Reason, g.Note} {
			if s != "" {
				a.printf("generation %d: %s\n", g.Number, clean(s))
			}
		}
	}
}

// title names the service.
func (r *statusReport) title() string {
	switch {
	case r.Unit != "":
		return r.Unit
	case r.Service != "":
		return r.Service
	}
	return r.Path
}

// headline is the service in one line.
func (a *app) headline(s *control.Status) string {
	var main, serving *control.Generation
	draining := 0
	for i, g := range s.Generations {
		if g.Number == s.Main {
			main = &s.Generations[i]
		}
		switch g.State {
		case control.StateServing:
			serving = &s.Generations[i]
		case control.StateDraining:
			if s.Held == nil || g.Number != s.Main { // else its door is closed, and that is said below
				draining++
			}
		}
	}
	var b strings.Builder
	switch {
	case s.Stopping:
		b.WriteString(a.paint(yellow, "stopping"))
	case s.Held != nil && main != nil:
		b.WriteString(a.paint(yellow, fmt.Sprintf("draining %s, %s", named(main.Number, main.Version), holdText(s.Held, s.Time))))
	case serving == nil && main == nil:
		b.WriteString(a.paint(red, "nobody serves"))
	case serving == nil:
		fmt.Fprintf(&b, "%s %s", a.paint(yellow, clean(string(main.State))), named(main.Number, main.Version))
	default:
		fmt.Fprintf(&b, "%s %s", a.paint(green, "serving"), named(serving.Number, serving.Version))
		if serving.Number != s.Main {
			fmt.Fprintf(&b, " on probation, generation %d stands by", s.Main)
		}
	}
	if p := s.Upgrade; p != nil && p.Stage != nil {
		fmt.Fprintf(&b, ", %s", a.paint(yellow, fmt.Sprintf("generation %d staged at %s", p.To, percent(p.Stage.Share))))
	}
	if draining > 0 {
		fmt.Fprintf(&b, ", %d draining", draining)
	}
	return b.String()
}

// socketList has a text for each socket, with counts also how many connections
// the main generation has on it, by state.
func (a *app) socketList(sockets []control.Socket, counts bool) []string {
	var list []string
	for _, s := range sockets {
		text := clean(fmt.Sprintf("%s %s %s", s.Name, s.Network, s.Address))
		switch c := s.Conns; {
		case !s.Claimed:
			text += " " + a.paint(red, "NOT SERVED")
		case counts:
			text += fmt.Sprintf(": %d new, %d active, %d idle, %d stream", c.New, c.Active, c.Idle, streams(c))
			if c.Hijacked > 0 {
				text += fmt.Sprintf(" (%d hijacked)", c.Hijacked)
			}
		}
		list = append(list, text)
	}
	return list
}

func progressText(p *control.Progress, now time.Time) string {
	text := fmt.Sprintf("%d -> %d in progress: %s for %s", p.From, p.To, clean(p.Phase), since(now, p.Since))
	if p.PID != 0 {
		text += fmt.Sprintf(" (pid %d)", p.PID)
	}
	text += viaText(p.Trigger)
	if p.Queued > 0 {
		text += fmt.Sprintf(", %d waiting", p.Queued)
	}
	return text
}

// viaText is " via hdctl (reason)".
func viaText(t control.Trigger) string {
	if t.Via == "" {
		return ""
	}
	return " via " + clean(t.Via) + inParens(t.Reason)
}

// systemdText says what systemd thinks, as far as it is news.
func (a *app) systemdText(r *statusReport, wide bool) []string {
	var out []string
	for _, m := range r.Mismatch {
		out = append(out, a.paint(red, "MISMATCH: "+m))
	}
	v := r.Systemd
	switch {
	case v == nil && r.Status != nil && r.Invocation == "" && !wide:
		// Not started by systemd, and it cannot be asked: nothing is missing.
	case v == nil && r.SystemdError != "":
		s := "not available"
		if wide {
			s += inParens(r.SystemdError)
		}
		out = append(out, s)
	case v == nil:
	case !v.exists():
		if wide {
			out = append(out, "has no unit "+clean(v.Unit))
		}
	default:
		if wide || v.state() != "active (running)" {
			out = append(out, fmt.Sprintf("%s, main PID %d", v.state(), v.MainPID))
		}
		if wide && v.StatusText != "" {
			out = append(out, "status: "+clean(v.StatusText))
		}
		if v.NRestarts > 0 {
			out = append(out, "has restarted the service "+count(v.NRestarts, "time"))
		}
		if v.NeedDaemonReload {
			out = append(out, fmt.Sprintf("%s changed on disk: systemctl %sdaemon-reload", clean(v.Unit), a.userFlag()))
		}
	}
	return out
}

func optionsText(o control.Settings) string {
	value := func(seconds float64) string {
		if seconds <= 0 {
			return "none"
		}
		return brief(seconds)
	}
	text := fmt.Sprintf("ready timeout %s, probation %s, drain timeout %s, stop timeout %s, max draining %d",
		value(o.ReadyTimeout), value(o.Probation), value(o.DrainTimeout), value(o.StopTimeout), o.MaxDraining)
	if o.Overflow != "" {
		text += " then " + clean(o.Overflow)
	}
	if o.DrainDelay > 0 {
		text += ", drain delay " + brief(o.DrainDelay)
	}
	if o.DrainSpread > 0 {
		text += ", drain spread " + brief(o.DrainSpread)
	}
	text += ", migrate " + map[bool]string{true: "on", false: "off"}[o.Migrate]
	if o.Watchdog > 0 {
		text += ", watchdog " + brief(o.Watchdog)
	}
	return text
}

// generations is the table.
func (a *app) generations(s *control.Status, wide bool) *table {
	t := &table{columns: []column{
		right("GEN"), right("PID"), left("VERSION"), left("STATE"), right("SINCE"),
		right("CONNS"), right("ACTIVE"), right("IDLE"), right("STREAM"), right("OLDEST"), right("DEADLINE"), right("RSS"),
	}}
	if wide {
		t.columns = append(t.columns, right("NEW"), right("HIJACKED"), right("MIGRATED"), right("CUT"), left("EXE"))
	}
	number := func(n int) cell { return cell{text: strconv.Itoa(n)} } // 0 is known, too
	for _, g := range s.Generations {
		deadline := "-"
		if !g.Deadline.IsZero() {
			deadline = age(g.Deadline.Sub(s.Time))
		}
		row := []cell{
			number(g.Number), number(g.PID), text(g.Version),
			{stateText(s, g), stateStyle(g.State)},
			{text: since(s.Time, g.Since)},
			number(g.Conns.Total), number(g.Conns.Active), number(g.Conns.Idle), number(streams(g.Conns)),
			{text: since(s.Time, g.Oldest)},
			{text: deadline},
			{text: size(g.RSS)},
		}
		if wide {
			row = append(row, number(g.Conns.New), number(g.Conns.Hijacked), number(g.Migrated), number(g.Cut), text(g.Executable))
		}
		t.add(row...)
	}
	return t
}

// streams are connections without the end of a request to wait for: for who
// waits for the end of a drain, those that net/http has given away are the same.
func streams(c control.Counts) int { return c.Stream + c.Hijacked }

// kindsText is "1 active, 1 hijacked".
func kindsText(c control.Counts) string {
	var kinds []string
	for _, k := range []struct {
		n    int
		name string
	}{
		{c.New, control.ConnNew},
		{c.Active, control.ConnActive},
		{c.Idle, control.ConnIdle},
		{c.Stream, control.ConnStream},
		{c.Hijacked, control.ConnHijacked},
	} {
		if k.n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", k.n, k.name))
		}
	}
	return strings.Join(kinds, ", ")
}

// stateText is the state of a generation; "staged 5%" of one that is staged.
func stateText(s *control.Status, g control.Generation) string {
	text := clean(string(g.State))
	if p := s.Upgrade; g.State == control.StateStaged && p != nil && p.Stage != nil && p.To == g.Number {
		text += " " + percent(p.Stage.Share).String()
	}
	return text
}

func stateStyle(s control.State) style {
	switch s {
	case control.StateServing:
		return green
	case control.StateStarting, control.StateStaged, control.StateParked, control.StateDraining:
		return yellow
	case control.StateFailed:
		return red
	}
	return plain
}

// printAbsent prints what is known of a service that does not say it itself.
func (a *app) printAbsent(r *statusReport) {
	word := strings.ReplaceAll(r.Condition, "-", " ")
	a.printf("%s: %s\n", a.paint(bold, clean(r.title())), a.paint(red, word))
	if r.Condition != condNotRunning || r.Systemd == nil || !r.Systemd.exists() {
		a.printf("  %-9s %s\n", "reason", clean(r.Error.Message))
	}
	switch v := r.Systemd; {
	case v == nil && r.SystemdError != "":
		a.printf("  %-9s not available%s\n", "systemd", inParens(r.SystemdError))
	case v == nil:
	case !v.exists():
		a.printf("  %-9s has no unit %s\n", "systemd", clean(v.Unit))
	default:
		text := v.state()
		if v.MainPID != 0 {
			text += fmt.Sprintf(", main PID %d", v.MainPID)
		}
		if v.StatusText != "" {
			text += ", status: " + clean(v.StatusText)
		}
		a.printf("  %-9s %s\n", "systemd", text)
	}
	if r.Error.Hint != "" {
		a.printf("  %-9s %s\n", "hint", clean(r.Error.Hint))
	}
	if len(r.Processes) == 0 {
		return
	}
	a.printf("\n")
	t := &table{columns: []column{right("PID"), left("STATE"), right("AGE"), right("RSS"), left("EXE")}}
	for _, p := range r.Processes {
		t.add(cell{text: strconv.Itoa(p.PID)}, text(p.State), cell{text: since(a.now(), p.Started)}, cell{text: size(p.RSS)}, text(p.Exe))
	}
	t.print(&a.terminal, !a.globals.NoLegend)
}
