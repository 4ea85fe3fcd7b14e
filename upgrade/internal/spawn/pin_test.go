package spawn_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cloudflare/tableflip"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is relied on beyond tableflip's documentation: to be checked anew with
// each of its versions.

func TestTableflipVersion(t *testing.T) {
	mod, err := os.ReadFile("../../../go.mod")
	require.NoError(t, err)
	assert.Contains(t, string(mod), "github.com/cloudflare/tableflip v1.2.3\n",
		"read the diff of the new version, then look at inherit.go, child.go and attempt.go")
}

// TestTableflipTexts runs programs that use tableflip alone.
func TestTableflipTexts(t *testing.T) {
	tests := []struct {
		mode string
		want []string
	}{
		{"refuse", []string{"process is not ready yet", "parent hasn't exited"}},
		{"exit 0", []string{"child pid=N exited"}},
		{"exit 3", []string{"child pid=N exited: exit status 3"}},
		{"kill", []string{"child pid=N exited: signal: killed"}},
		{"missing", []string{"can't start child: can't start process /no/such: exec: \"/no/such\": stat /no/such: no such file or directory"}},
		{"used up", []string{"<nil>", "already upgraded"}},
	}
	for _, test := range tests {
		t.Run(test.mode, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), modeEnv+"="+test.mode)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Equal(t, test.want, strings.Split(strings.TrimSpace(string(out)), "\n"))
		})
	}
}

// runRaw is the main of programs that use tableflip without this package.
func runRaw(mode string) {
	upg, err := tableflip.New(tableflip.Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if upg.HasParent() {
		runRawChild(upg, mode)
	}
	// Once it has not refused.
	upgrade := func() string {
		for {
			err := upg.Upgrade()
			if err == nil {
				return "<nil>"
			}
			if err.Error() != "process is not ready yet" {
				return hidePID(err.Error())
			}
		}
	}
	ready := func() {
		if err := upg.Ready(); err != nil {
			fmt.Println(err)
		}
	}
	switch mode {
	case "refuse":
		fmt.Println(upg.Upgrade())
		r, w, err := os.Pipe()
		if err == nil {
			err = upg.AddFile("life", w)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		w.Close()
		ready()
		if upgrade() == "<nil>" { // or the child is gone already
			r.Read(make([]byte, 1)) // until it is
		}
	case "missing":
		os.Args[0] = "/no/such"
		ready()
		fmt.Println(upgrade())
	case "used up":
		ready()
		fmt.Println(upgrade())
		fmt.Println(upgrade())
	case "hand over": // to a program that uses this package
		os.Setenv(modeEnv, "service")
		ready()
		fmt.Println(upgrade())
	default:
		ready()
		fmt.Println(upgrade())
	}
	os.Exit(0)
}

func runRawChild(upg *tableflip.Upgrader, mode string) {
	switch mode {
	case "refuse":
		upg.File("life") // or Ready closes it
		upg.Ready()
		for {
			if err := upg.Upgrade(); err.Error() != "process is not ready yet" {
				fmt.Println(err)
				os.Exit(0)
			}
		}
	case "exit 0":
		os.Exit(0)
	case "exit 3":
		os.Exit(3)
	case "kill":
		self, _ := os.FindProcess(os.Getpid())
		self.Kill()
	case "used up":
		upg.Ready()
		upg.WaitForParent(context.Background())
		os.Exit(0)
	case "stay":
		fmt.Println("raw child is ready")
		upg.Ready()
	}
	select {}
}

// hidePID replaces the number after "pid=".
func hidePID(s string) string {
	before, after, ok := strings.Cut(s, "pid=")
	if !ok {
		return s
	}
	return before + "pid=N" + strings.TrimLeft(after, "0123456789")
}
