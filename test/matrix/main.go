// Matrix runs the tests that boot a systemd under several versions of it: in each
// testbed another Debian (test/testbed).
//
//	make matrix
//	go run ./test/matrix --versions sid --run 'TestReload|TestStop'
//
// Debian 12 has systemd 252, 13 has 257, and sid the newest. debootstrap(8) makes
// their root file systems, of about 300 MB each, the first time; they are kept in
// --cache, and --fresh makes them anew (which is how to get a newer sid). The tests
// are those of all packages whose tests use a testbed. One that fails is run once more,
// alone, and is flaky if it succeeds then.
//
// What happens is printed as it does; the table is the end of it. The whole output of
// each version is in a file beside its root file system. It exits with 1 if a test has
// failed twice, or if something did not work. It needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	var m matrix
	versions := flag.String("versions", "bookworm,trixie,sid", "Debian `suites`, separated by commas")
	flag.StringVar(&m.run, "run", "", "only tests that match `regexp`, as of go test")
	flag.StringVar(&m.cache, "cache", "", "`directory` of the root file systems (default: handoff/rootfs in the user's cache directory)")
	flag.BoolVar(&m.fresh, "fresh", false, "make the root file systems anew")
	flag.BoolVar(&m.race, "race", false, "with the race detector")
	flag.DurationVar(&m.timeout, "timeout", 30*time.Minute, "`limit` for each package under each version")
	flag.Parse()
	err := errors.New("unexpected arguments: " + strings.Join(flag.Args(), " "))
	if flag.NArg() == 0 {
		m.suites, err = parseSuites(*versions)
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = m.main(ctx)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "matrix: error:", err)
		os.Exit(1)
	}
}

// matrix is one run.
type matrix struct {
	suites      []string
	cache       string
	run         string
	fresh, race bool
	timeout     time.Duration
}

// parseSuites reads names of suites. They become names of directories.
func parseSuites(list string) ([]string, error) {
	suites := strings.Split(list, ",")
	for i, s := range suites {
		if s == "" || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz") != "" {
			return nil, fmt.Errorf("version %q: not the name of a Debian suite, such as trixie", s)
		}
		for _, other := range suites[:i] {
			if s == other {
				return nil, fmt.Errorf("version %s: named twice", s)
			}
		}
	}
	return suites, nil
}

func (m matrix) main(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can boot a systemd of its own: try it with sudo")
	}
	if m.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("%w; say where the root file systems are to be: --cache", err)
		}
		m.cache = filepath.Join(dir, "handoff", "rootfs")
	}
	// All root file systems first: what cannot work shall not take an hour to say so.
	var hosts []host
	for _, suite := range m.suites {
		h, err := m.prepare(ctx, suite)
		if err != nil {
			return err
		}
		say("%s: Debian %s with systemd %s in %s", suite, h.debian, h.systemd, h.rootfs)
		hosts = append(hosts, h)
	}
	packages, err := testedPackages(ctx)
	if err != nil {
		return err
	}
	var results []result
	for _, h := range hosts {
		r, err := m.test(ctx, h, packages)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	if !report(os.Stdout, results) {
		return errors.New("not all tests have passed")
	}
	return nil
}

// say prints what happens.
func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
