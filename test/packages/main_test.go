package packages

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/hdctl/handoff/test/leak"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "handoff-packages-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.dir = dir
	code := leak.Run(m)
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// built are the packages. They are built once, when the first test asks for them.
var built dist

// The versions of the demo service: the third cannot start.
const (
	v1     = "1.0"
	v2     = "2.0"
	broken = "3.0"
)

type dist struct {
	dir  string
	once sync.Once
	err  error
}

// path returns the path of a package file by a pattern for its name.
func (d *dist) path(t testing.TB, pattern string) string {
	t.Helper()
	d.once.Do(func() { d.err = d.build() })
	if d.err != nil {
		t.Fatal(d.err)
	}
	return one(t, filepath.Join(d.dir, "dist", pattern))
}

// one returns the only path that matches.
func one(t testing.TB, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) != 1 {
		t.Fatalf("%s: %v (%v)", pattern, paths, err)
	}
	return paths[0]
}

func (d *dist) build() error {
	if err := d.tools(); err != nil {
		return err
	}
	builds := [][]string{
		{"VERSION=" + v1},
		{"VERSION=" + v2, "PACKAGES=handoff-demo"},
		{"VERSION=" + broken, "PACKAGES=handoff-demo", "DEMO=./test/demo/broken"},
	}
	errs := make([]error, len(builds))
	var wg sync.WaitGroup
	for i, env := range builds {
		wg.Go(func() { errs[i] = d.run("../..", filepath.Join(d.dir, "dist"), env...) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// tools installs what the build otherwise starts by "go run", and an hdctl, so that
// it is not done for each of the builds. All with the flags of build.sh: so Go's own
// packages are compiled once where the cache is empty.
func (d *dist) tools() error {
	script, err := os.ReadFile("../../packaging/build.sh")
	if err != nil {
		return err
	}
	pinned := regexp.MustCompile(`=go run (\S+)}`).FindAllStringSubmatch(string(script), -1)
	if len(pinned) != 2 {
		return fmt.Errorf("build.sh has %d tools, not nfpm and go-md2man", len(pinned))
	}
	var errs []error
	for _, args := range [][]string{
		{"install", "-trimpath", pinned[0][1]},
		{"install", "-trimpath", pinned[1][1]},
		{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(d.dir, "hdctl"), "github.com/hdctl/handoff/cmd/hdctl"},
	} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "GOBIN="+d.dir, "CGO_ENABLED=0")
		if output, err := cmd.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("go %v: %w\n%s", args, err, output))
		}
	}
	return errors.Join(errs...)
}

// run runs the build of a source tree, into the directory out.
func (d *dist) run(tree, out string, env ...string) error {
	cmd := exec.Command(filepath.Join(tree, "packaging/build.sh"))
	cmd.Env = append(os.Environ(),
		"OUT="+out,
		"SOURCE_DATE_EPOCH=1767225600",
		"NFPM="+filepath.Join(d.dir, "nfpm"),
		"GO_MD2MAN="+filepath.Join(d.dir, "go-md2man"),
		"HDCTL="+filepath.Join(d.dir, "hdctl"),
	)
	cmd.Env = append(cmd.Env, env...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w\n%s", cmd, env, err, output)
	}
	return nil
}
