// Bench measures what the project costs and what it saves. Everything that is
// compared runs in one go, side by side and in turns, so the ratios are worth more
// than the numbers: those depend on the machine.
//
//	make bench
//	go run ./test/bench migrate     # one topic
//
// The topics:
//
//	tracking   net/http on a plain listener, and on one that package upgrade tracks
//	migrate    idle connections move to the next generation, under requests
//	upgrades   what clients notice of an upgrade: tableflip with Shutdown, lame
//	           duck, migration
//	faults     a new version dies or hangs: until the old one answers again
//
// The services are processes of their own, which this program is, too ("bench
// serve", not for people). They need no systemd and no privileges. Clients and
// services share the machine, as nothing else should.
//
// The tables are Markdown, and the last one is the summary for the README.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// limit is when something is so wrong that the end of it is not worth waiting for.
const limit = 10 * time.Minute

func main() {
	if len(os.Args) > 1 && os.Args[1] == serveCommand {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench serve: error:", err)
			os.Exit(1)
		}
		return
	}
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: bench [topic ...]\ntopics: %s (default: all)\n", strings.Join(topicNames(), ", "))
		flag.PrintDefaults()
	}
	small := flag.Bool("small", false, "so little of everything that the numbers mean nothing: does it work at all?")
	flag.Parse()
	scale := full
	if *small {
		scale = tiny
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Stderr, scale, flag.Args())
	stop()
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	scale   scale
	out     io.Writer // tables
	log     io.Writer // what happens at the moment
	start   time.Time
	summary summary
	felt    []felt // of each kind of fault
}

// topics are what can be measured, in the order in which it is.
var topics = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"tracking", (*bench).tracking},
	{"migrate", (*bench).migrate},
	{"upgrades", (*bench).upgrades},
	{"faults", (*bench).faults},
}

func topicNames() []string {
	var names []string
	for _, t := range topics {
		names = append(names, t.name)
	}
	return names
}

// run measures the topics that have been asked for, or all.
func run(ctx context.Context, out, log io.Writer, s scale, asked []string) error {
	for _, name := range asked {
		if !slices.Contains(topicNames(), name) {
			return fmt.Errorf("unknown topic %q (there are: %s)", name, strings.Join(topicNames(), ", "))
		}
	}
	b := &bench{scale: s, out: out, log: log, start: time.Now()}
	fmt.Fprintf(out, "%s\n", machine())
	for _, t := range topics {
		if len(asked) > 0 && !slices.Contains(asked, t.name) {
			continue
		}
		if err := t.run(b, ctx); err != nil {
			if ctx.Err() != nil {
				err = errors.Join(err, context.Cause(ctx))
			}
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	b.summary.print(out)
	fmt.Fprintf(out, "\n%.0f s, load average at the end %s\n", time.Since(b.start).Seconds(), loadAverage())
	return nil
}

// say tells what happens at the moment.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, "[%5.1fs] %s\n", time.Since(b.start).Seconds(), fmt.Sprintf(format, args...))
}
