package upgrade

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSignalTable(t *testing.T) {
	type table = map[os.Signal]Action
	for _, tt := range []struct {
		name    string
		options Options
		env     map[string]string
		want    table
	}{
		{name: "default", want: table{syscall.SIGTERM: ActionStop, syscall.SIGINT: ActionStop, syscall.SIGHUP: ActionUpgrade}},
		{
			name: "no SIGHUP", options: Options{NoSIGHUP: true},
			want: table{syscall.SIGTERM: ActionStop, syscall.SIGINT: ActionStop, syscall.SIGHUP: ActionIgnore},
		},
		{
			// With signals of its own, SIGHUP does not upgrade unless it says so.
			name: "its own", options: Options{Signals: table{syscall.SIGUSR1: ActionReconfigure, syscall.SIGINT: ActionIgnore}},
			want: table{
				syscall.SIGTERM: ActionStop, syscall.SIGINT: ActionIgnore, syscall.SIGHUP: ActionIgnore,
				syscall.SIGUSR1: ActionReconfigure,
			},
		},
		{
			name: "nginx's", env: map[string]string{"HANDOFF_SIGNALS": "nginx"},
			options: Options{Signals: table{syscall.SIGUSR1: ActionReconfigure}}, // the unit has the last word
			want: table{
				syscall.SIGTERM: ActionStop, syscall.SIGINT: ActionStop, syscall.SIGHUP: ActionTakeBack,
				syscall.SIGUSR2: ActionBeside, syscall.SIGWINCH: ActionPark, syscall.SIGQUIT: ActionQuit,
			},
		},
		{
			name: "no SIGHUP, whatever it was", options: Options{Signals: NginxSignals()}, env: map[string]string{"HANDOFF_SIGHUP": "off"},
			want: table{
				syscall.SIGTERM: ActionStop, syscall.SIGINT: ActionStop, syscall.SIGHUP: ActionIgnore,
				syscall.SIGUSR2: ActionBeside, syscall.SIGWINCH: ActionPark, syscall.SIGQUIT: ActionQuit,
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := tt.options.resolve(func(key string) (string, bool) {
				v, ok := tt.env[key]
				return v, ok
			})
			require.NoError(t, err)
			assert.Equal(t, tt.want, set.signalTable())
		})
	}
}

func TestActionString(t *testing.T) {
	assert.Equal(t, "ignore", ActionIgnore.String())
	assert.Equal(t, "take-back", ActionTakeBack.String())
	assert.Equal(t, "quit", ActionQuit.String())
	assert.Equal(t, "Action(-1)", Action(-1).String())
	assert.Equal(t, "Action(8)", Action(8).String())
}
