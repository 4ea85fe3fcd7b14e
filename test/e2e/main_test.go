package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hdctl/handoff/test/leak"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "handoff-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries.dir = dir
	code := leak.Run(m)
	os.RemoveAll(dir)
	os.Exit(code)
}

// binaries are built once, when the first test asks for them.
var binaries programs

type programs struct {
	dir  string
	once sync.Once
	err  error
}

// versions of the demo service that exist.
var versions = []string{"v1", "v2", "v3"}

// path returns the path of a program: hdctl, faulty, kinds, readme,
// readme-v2, or demo-VERSION.
func (p *programs) path(t testing.TB, name string) string {
	t.Helper()
	p.once.Do(p.build)
	if p.err != nil {
		t.Fatal(p.err)
	}
	return filepath.Join(p.dir, name)
}

func (p *programs) build() {
	build := func(out, pkg string, flags ...string) {
		args := append([]string{"build", "-o", filepath.Join(p.dir, out)}, flags...)
		cmd := exec.Command("go", append(args, pkg)...)
		if output, err := cmd.CombinedOutput(); err != nil && p.err == nil {
			p.err = fmt.Errorf("build %s: %w\n%s", out, err, output)
		}
	}
	const module = "github.com/hdctl/handoff"
	build("hdctl", module+"/cmd/hdctl")
	build("faulty", module+"/test/faulty", raceFlags...)
	build("kinds", module+"/test/kinds", raceFlags...)
	build("readme", module+"/test/readme")
	build("readme-v2", module+"/test/readme", "-ldflags=-X main.version=v2")
	for _, v := range versions {
		build("demo-"+v, module+"/cmd/handoff-demo", append(raceFlags, "-ldflags=-X main.version="+v)...)
	}
}
