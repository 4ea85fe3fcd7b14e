package launch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/activation"
	"github.com/hdctl/handoff/activation/launch"
	"github.com/hdctl/handoff/test/leak"
)

// The test binary is the shim and the program, too. The program is what $LAUNCH_CHILD
// says.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "__exec" {
		fmt.Fprintln(os.Stderr, launch.Exec(os.Args[2:]))
		os.Exit(127)
	}
	if name := os.Getenv("LAUNCH_CHILD"); name != "" {
		os.Exit(children[name]())
	}
	leak.Main(m)
}

// children are programs; they return their exit status.
var children = map[string]func() int{
	"report":    childReport,
	"serve":     childServe,
	"replace":   childReplace,
	"last word": childLastWord,
	"exit 3":    func() int { return 3 },
	"killed":    func() int { _ = unix.Kill(os.Getpid(), unix.SIGKILL); return 0 },
	"leave":     childLeave,
	"foreign":   childForeign,
	"wait":      func() int { awaitTerm(); return 7 },
	"notify": func() int {
		notify(os.Args[1])
		awaitTerm()
		return 0
	},
}

// report is what a program sees.
type report struct {
	PID, Group int
	Environ    map[string]string
	Sockets    []activation.Socket
	Args       []string
	Dir        string
	FDs        int // sockets and pipes from 3 on
	Err        string
}

func childReport() int {
	r := report{PID: os.Getpid(), Environ: make(map[string]string), Args: os.Args}
	r.Group, _ = unix.Getpgid(0)
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		r.Environ[name] = value
	}
	r.Dir, _ = os.Getwd()
	for fd := 3; fd < 100; fd++ { // the runtime has some of its own
		link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if strings.HasPrefix(link, "socket:") || strings.HasPrefix(link, "pipe:") {
			r.FDs++
		}
	}
	s, err := activation.Take()
	if err != nil {
		r.Err = err.Error()
	} else {
		r.Sockets = s.All()
	}
	data, _ := json.Marshal(r)
	if err := os.WriteFile(os.Getenv("REPORT"), data, 0o600); err != nil {
		return 1
	}
	return 0
}

// childServe answers with its PID until SIGTERM.
func childServe() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ln, err := activation.Listen("echo", "", "")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, os.Getpid())
			c.Close()
		}
	}()
	notify("READY=1\nSTATUS=serving")
	<-ctx.Done()
	return 0
}

// childReplace starts another one, makes it the main process, and leaves.
func childReplace() int {
	next := exec.Command(os.Args[0])
	next.Env = append(os.Environ(), "LAUNCH_CHILD=wait")
	if err := next.Start(); err != nil {
		return 1
	}
	notify(fmt.Sprintf("MAINPID=%d\nREADY=1", next.Process.Pid))
	barrier()
	return 0
}

// childLastWord is the same, in a hurry: what it has said before its end counts.
func childLastWord() int {
	next := exec.Command(os.Args[0])
	next.Env = append(os.Environ(), "LAUNCH_CHILD=wait")
	if err := next.Start(); err != nil {
		return 1
	}
	notify(fmt.Sprintf("MAINPID=%d\nREADY=1", next.Process.Pid))
	return 0
}

// childLeave ends, and leaves a child behind, that ends by SIGTERM only.
func childLeave() int {
	next := exec.Command(os.Args[0])
	next.Env = append(os.Environ(), "LAUNCH_CHILD=wait")
	if err := next.Start(); err != nil {
		return 1
	}
	return 3
}

// childForeign says things that it has no right to, from another process group.
func childForeign() int {
	cmd := exec.Command(os.Args[0], "READY=1\nSTATUS=lies")
	cmd.Env = append(os.Environ(), "LAUNCH_CHILD=notify")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 1
	}
	awaitTerm()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return 0
}

func awaitTerm() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if ready := os.Getenv("WAITING"); ready != "" { // the test may send it now
		_ = os.WriteFile(ready, []byte(strconv.Itoa(os.Getpid())), 0o600)
	}
	<-ctx.Done()
}

func notify(text string) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, text)
}

// barrier waits until all that was said before is heard.
func barrier() {
	r, w, err := os.Pipe()
	if err != nil {
		os.Exit(1)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
	if err != nil {
		os.Exit(1)
	}
	defer conn.Close()
	if _, _, err := conn.WriteMsgUnix([]byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), nil); err != nil {
		os.Exit(1)
	}
	w.Close()
	_, _ = r.Read(make([]byte, 1))
}
