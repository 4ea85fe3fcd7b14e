package lint

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

const (
	askLimit = 5 * time.Second
	nobody   = 65534 // the kernel's overflow UID and GID
	maxNeeds = 64 << 10
)

// ErrNotOnLibrary says that a program is not written with this library, as far as
// its build information tells, and so would not understand the question of [Ask].
var ErrNotOnLibrary = errors.New("not a program on the handoff library")

// Ask executes the program of a service, to have it say which sockets it asks for
// ([control.NeedsEnv]), for [Options.Needs].
//
// It is the program of ExecStart=, with its arguments, but as the user nobody if the
// caller is root, with an empty environment, in the directory /, and for no more than
// five seconds: then it is killed with what it has started. A program whose build
// information does not name this library is not executed, which is
// [ErrNotOnLibrary].
func Ask(ctx context.Context, service *Unit) (*control.Needs, error) {
	commands := service.commands("ExecStart")
	if len(commands) == 0 {
		return nil, fmt.Errorf("%s has no ExecStart=", service.Name)
	}
	argv := commands[len(commands)-1].argv
	if strings.Contains(commands[len(commands)-1].prefix, "@") && len(argv) > 1 {
		argv = append(argv[:1:1], argv[2:]...)
	}
	if !path.IsAbs(argv[0]) {
		return nil, fmt.Errorf("ExecStart= of %s: %q is not an absolute path", service.Name, argv[0])
	}
	if err := onLibrary(argv[0]); err != nil {
		return nil, fmt.Errorf("ask %s for its sockets: %w", argv[0], err)
	}
	needs, err := execute(ctx, argv)
	if errors.Is(err, os.ErrPermission) && os.Geteuid() == 0 {
		return nil, fmt.Errorf("ask %s for its sockets (as the user nobody): %w", argv[0], err)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s for its sockets: %w", argv[0], err)
	}
	return needs, nil
}

// onLibrary returns nil if a program is written with this library.
func onLibrary(program string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		if _, ok := errors.AsType[*os.PathError](err); ok {
			return err
		}
		return ErrNotOnLibrary
	}
	if _, ok := control.LibraryIn(info); !ok {
		return ErrNotOnLibrary
	}
	return nil
}

func execute(ctx context.Context, argv []string) (*control.Needs, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askLimit, fmt.Errorf("no answer within %v", askLimit))
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{control.NeedsEnv + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	stdout, stderr := &limited{limit: maxNeeds}, &limited{limit: 4 << 10}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if said := bytes.TrimSpace(stderr.Bytes()); len(said) > 0 {
			return nil, fmt.Errorf("%w: %s", err, said)
		}
		return nil, err
	}
	// The program may have printed something before.
	for line := range bytes.Lines(stdout.Bytes()) {
		var needs control.Needs
		if json.Unmarshal(line, &needs) == nil && needs.Library != "" {
			return &needs, nil
		}
	}
	return nil, errors.New("it has not answered: its library may be too old for the question")
}

// limited keeps the beginning of what is written to it.
type limited struct {
	bytes.Buffer
	limit int
}

// Write never fails, so that the program goes on.
func (l *limited) Write(p []byte) (int, error) {
	_, _ = l.Buffer.Write(p[:min(len(p), max(l.limit-l.Len(), 0))])
	return len(p), nil
}
