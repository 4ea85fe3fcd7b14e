package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/hdctl/handoff/test/testbed"
)

// The versions of the service, and the directories in which they are built.
const (
	v1     = "v1"
	v2     = "v2"
	broken = "broken"
)

const module = "github.com/hdctl/handoff"

// build makes dir/v1/handoff-demo, the same for the other versions, and
// dir/hdctl.
func build(ctx context.Context, s *stage, dir string) error {
	for _, b := range []struct {
		out, pkg string
		flags    []string
	}{
		{v1 + "/handoff-demo", "./cmd/handoff-demo", []string{"-ldflags", "-X main.version=v1"}},
		{v2 + "/handoff-demo", "./cmd/handoff-demo", []string{"-ldflags", "-X main.version=v2"}},
		{broken + "/handoff-demo", "./test/demo/broken", nil},
		{"hdctl", "./cmd/hdctl", nil},
	} {
		typed := append(append([]string{"go", "build"}, b.flags...), "-o", b.out, b.pkg)
		s.typed("$", typed...)
		// The package path works from anywhere in the module. Without version
		// control information they build in a checkout of somebody else, too.
		args := append([]string{"build", "-buildvcs=false", "-o", filepath.Join(dir, b.out)}, b.flags...)
		cmd := exec.CommandContext(ctx, "go", append(args, module+b.pkg[1:])...)
		if os.Getenv(testbed.RootfsEnv) != "" {
			// They must run with another C library. Not without need: what is
			// built already, for this program, is built with cgo.
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		}
		if err := s.run(cmd).err(); err != nil {
			return err
		}
	}
	return nil
}
