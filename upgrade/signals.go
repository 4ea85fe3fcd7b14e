package upgrade

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"syscall"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// Action is what a signal does: [Options.Signals]. A signal to a whole control group
// reaches old generations as well; but for ActionStop and ActionQuit only the main
// one acts on it.
type Action int

// The actions.
const (
	// ActionIgnore: nothing. The signal is caught all the same.
	ActionIgnore Action = iota
	// ActionUpgrade starts an upgrade.
	ActionUpgrade
	// ActionStop stops the service.
	ActionStop
	// ActionReconfigure calls [Options.Reconfigure].
	ActionReconfigure
	// ActionBeside starts the new generation beside this one: a staged upgrade in
	// which each gets half of the new connections.
	ActionBeside
	// ActionPark gives the new one everything. This one stands by until
	// ActionTakeBack or ActionQuit.
	ActionPark
	// ActionTakeBack ends the upgrade in progress: this generation goes on. Where
	// there is none it is ActionReconfigure.
	ActionTakeBack
	// ActionQuit ends this generation after its drain: the new one is confirmed.
	// Where there is none it is ActionStop.
	ActionQuit
)

var actionNames = [...]string{"ignore", "upgrade", "stop", "reconfigure", "beside", "park", "take-back", "quit"}

// String returns the name of the action.
func (a Action) String() string {
	if a < 0 || int(a) >= len(actionNames) {
		return fmt.Sprintf("Action(%d)", int(a))
	}
	return actionNames[a]
}

// NginxSignals are the signals of nginx's upgrade on the fly, for scripts that
// exist (nginx: Controlling nginx): USR2 starts the new version beside the old one,
// WINCH to the old one parks it, HUP to the old one takes back, QUIT to the old one
// ends it after its drain. TERM and INT stop.
//
// With a PIDFile the new generation's PID is in it from USR2 on, and the old one's
// in a second file, whose name ends in ".oldbin", until that one is gone.
func NginxSignals() map[os.Signal]Action {
	return map[os.Signal]Action{
		syscall.SIGUSR2:  ActionBeside,
		syscall.SIGWINCH: ActionPark,
		syscall.SIGHUP:   ActionTakeBack,
		syscall.SIGQUIT:  ActionQuit,
	}
}

// signalTable is what signals do, with the defaults.
func (s settings) signalTable() map[os.Signal]Action {
	table := map[os.Signal]Action{syscall.SIGTERM: ActionStop, syscall.SIGINT: ActionStop, syscall.SIGHUP: ActionUpgrade}
	if len(s.signals) > 0 {
		table[syscall.SIGHUP] = ActionIgnore // it shall not kill
	}
	maps.Copy(table, s.signals)
	if s.noSIGHUP {
		table[syscall.SIGHUP] = ActionIgnore
	}
	return table
}

func (u *Upgrader) catchSignals() {
	table := u.set.signalTable()
	ch := make(chan os.Signal, 8)
	for s := range table {
		signal.Notify(ch, s)
	}
	// They stay caught to the very end: a second SIGTERM, or a SIGHUP, shall not
	// kill a process that is saying goodbye.
	u.wg.Go(func() {
		for {
			select {
			case s := <-ch:
				u.act(table[s], s)
			case <-u.ending:
				return
			}
		}
	})
}

// act does what a signal stands for.
func (u *Upgrader) act(a Action, s os.Signal) {
	trigger := control.Trigger{Via: control.ViaSignal, Reason: s.String()}
	switch main := u.view.Load().state.Main; {
	case a == ActionStop, a == ActionQuit && !main:
		u.box.post(func() { u.step(machine.Stop{}) })
	case u.set.notifyReload && s == syscall.SIGHUP:
		u.box.post(func() { u.reloadSignal(a, trigger) })
	case main:
		u.doAction(a, trigger)
	}
}

// doAction does it in the main generation.
func (u *Upgrader) doAction(a Action, trigger control.Trigger) {
	switch a {
	case ActionUpgrade:
		u.requestBySignal(control.UpgradeRequest{})
	case ActionBeside:
		u.requestBySignal(control.UpgradeRequest{Stage: 50})
	case ActionReconfigure:
		u.reconfigureBySignal(trigger, func(error) {})
	case ActionPark:
		u.box.post(func() { u.step(machine.Promote{Manual: true}) })
	case ActionTakeBack:
		u.box.post(func() {
			if u.state.Candidate.Phase == machine.None {
				u.reconfigureBySignal(trigger, func(error) {})
				return
			}
			u.takeBackRequest(trigger)
		})
	case ActionQuit:
		u.box.post(u.quit)
	}
}

// quit is nginx's QUIT to the old master.
func (u *Upgrader) quit() {
	switch u.state.Candidate.Phase {
	case machine.OnStage: // it was not parked before
		u.step(machine.Promote{})
	case machine.Opening:
		u.quitLater = true
	case machine.Probation:
		u.step(machine.Confirm{})
	case machine.Notifying: // that is under way
	default:
		u.step(machine.Stop{})
	}
}

// requestBySignal is an upgrade that nobody waits for.
func (u *Upgrader) requestBySignal(req control.UpgradeRequest) {
	u.wg.Go(func() {
		ctx := context.Background()
		r, _ := u.request(ctx, req, control.Trigger{Via: control.ViaSignal}, func(control.Event) {})
		if r != nil && r.Outcome == control.OutcomeRefused {
			u.log.LogAttrs(ctx, slog.LevelWarn, "upgrade by signal refused", slog.Any("err", r.Error))
		}
	})
}
