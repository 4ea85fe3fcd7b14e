package spawn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"
)

// created says that New was called: what it takes over is there once a process,
// as is tableflip's Upgrader.
var created atomic.Bool

// errSpent is the answer of Start after a child that was ready in tableflip's
// sense: the Upgrader is finished.
var errSpent = errors.New("a program that does not use this library was started before: the service must be restarted")

// Tableflip starts processes through tableflip. It is a Starter. Its methods
// may be called concurrently.
type Tableflip struct {
	opts     Options
	logger   *slog.Logger
	upgrader upgrader
	path     string // to execute
	wd       string // to execute it in

	successor bool

	slots int        // registered with tableflip so far; by the attempt that runs
	stdio sync.Mutex // held by who changes what 1 and 2 are

	mu      sync.Mutex
	in      inheritance
	current *attempt // or nil
	spent   bool
}

// upgrader is what is used of tableflip's Upgrader after New.
type upgrader interface {
	AddFile(name string, file *os.File) error
	Upgrade() error
}

var _ Starter = (*Tableflip)(nil)

// New takes over what the parent has passed, if this process was started by
// [Tableflip.Start] of another one. It can be called once a process, and should
// be the first thing that is done in it, before there are goroutines: it works
// on file descriptors 3 and up, and removes tableflip's variable from the
// environment, so that programs that this one starts do not take themselves for
// its successor.
//
// What Start will run is settled here: os.Args[0], which is made an absolute
// path, so that a change of directory or of PATH does not matter later. A path
// is taken relative to the current directory, a name without slash is looked up
// in PATH. Symlinks are kept, and followed anew at each Start. If that does not
// lead to a program (systemd's "ExecStart=@path argv0"), or a name leads to
// another program, it is the path of the executable. A process that was started
// by Start has the path from its parent, whatever [Program] it was started as.
//
// An error means that this process cannot take over and should end.
func New(opts Options) (*Tableflip, error) {
	if created.Swap(true) {
		return nil, errors.New("spawn: New was called before in this process")
	}
	t := &Tableflip{opts: opts, logger: opts.Logger, slots: firstSlot}
	if t.logger == nil {
		t.logger = slog.New(slog.DiscardHandler)
	}
	if err := t.init(); err != nil {
		os.Unsetenv(sentinelName)
		t.in.close()
		return nil, fmt.Errorf("spawn: %w", err)
	}
	return t, nil
}

func (t *Tableflip) init() error {
	t.in = inheritance{stdout: -1, stderr: -1}
	if t.successor = isSuccessor(); t.successor {
		in, err := inherit()
		if err != nil {
			return err
		}
		t.in = *in
	} else {
		os.Unsetenv(sentinelName)
	}

	if err := checkPidfd(); err != nil {
		return err
	}
	var err error
	if t.wd, err = os.Getwd(); err != nil {
		return fmt.Errorf("find the working directory: %w", err)
	}
	if t.path = t.in.path; t.path == "" {
		if t.path, err = programPath(os.Args[0], t.wd); err != nil {
			return err
		}
	}
	t.nameProcess(os.Args[0])
	os.Args[0] = t.path // tableflip reads it in each Upgrade

	// Deadlines are the business of who waits, and time has none here.
	upg, err := tableflip.New(tableflip.Options{UpgradeTimeout: math.MaxInt64})
	if err != nil {
		return withErrno(err.Error())
	}
	os.Unsetenv(sentinelName) // only now: tableflip goes by it
	if err := upg.Ready(); err != nil {
		return withErrno(err.Error())
	}
	t.upgrader = upg
	return nil
}

// nameProcess gives this process back the name that ps(1) and pgrep(1) know it
// by, if it was executed by the number of an open file.
func (t *Tableflip) nameProcess(executed string) {
	if !strings.HasPrefix(executed, fdDir) {
		return
	}
	if err := os.WriteFile("/proc/self/comm", []byte(filepath.Base(t.path)), 0); err != nil {
		t.logger.Debug("name this process", "err", err)
	}
}

// Path returns the path that the next Start executes, if not told otherwise. It
// is absolute; its symlinks are followed then.
func (t *Tableflip) Path() string { return t.path }

// Successor reports whether this process was started by Start.
func (t *Tableflip) Successor() bool { return t.successor }

// Inherited returns the files that were passed to Start, by name. They belong
// to the caller, and are close-on-exec; whether they block is as it was. A
// second call returns nothing.
func (t *Tableflip) Inherited() []File {
	t.mu.Lock()
	defer t.mu.Unlock()
	files := t.in.files
	t.in.files = nil
	return files
}

// RestoreOutput puts the service's real stdout and stderr in the place of the
// pipes to the parent. A successor calls it when it is ready. Others may print
// at the same time: each write goes to the one or the other. Without parent,
// and a second time, it does nothing.
func (t *Tableflip) RestoreOutput() error {
	t.stdio.Lock() // not in the middle of a Start
	defer t.stdio.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()

	var errs []error
	for fd, inherited := range map[int]*int{1: &t.in.stdout, 2: &t.in.stderr} {
		if *inherited < 0 {
			continue
		}
		if err := replace(*inherited, fd, 0); err != nil {
			errs = append(errs, err)
			continue
		}
		unix.Close(*inherited)
		*inherited = -1
	}
	return errors.Join(errs...)
}

// Start implements Starter. It returns when the program has been executed, or
// ctx ends: then there is no process, or it is killed as soon as it can be
// found. An error tells why the program could not be executed, and wraps the
// error number, such as [io/fs.ErrNotExist], unix.EACCES, unix.ENOEXEC,
// unix.EMFILE.
//
// The program starts in the working directory that this one had at its start,
// with the current environment, os.Args and os.Stdin; os.Stdout and os.Stderr
// must not have been closed, and its output is seen only if they have not been
// replaced.
//
// With a p that is not zero, os.Args[0] is another for a moment: nobody may read
// it during the call, nor until the process is gone after the end of ctx.
func (t *Tableflip) Start(ctx context.Context, files []File, p Program) (Child, error) {
	g, err := newTarget(p, t.path)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", g.name, err)
	}
	c, err := t.start(ctx, files, g)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", g.name, err)
	}
	return c, nil
}

func (t *Tableflip) start(ctx context.Context, files []File, g target) (Child, error) {
	a, err := t.begin(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.prepare(files, g); err != nil {
		runtime.GC() // as in run
		t.release(a)
		return nil, err
	}
	go a.run()
	select {
	case err := <-a.started:
		if err != nil {
			return nil, err
		}
		return a.child, nil
	case <-ctx.Done():
		close(a.abandoned)
		return nil, ctx.Err()
	}
}

// begin makes a new attempt the current one. It waits for the end of one that
// was abandoned.
func (t *Tableflip) begin(ctx context.Context) (*attempt, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t.mu.Lock()
		current, spent := t.current, t.spent
		if current == nil && !spent {
			a := newAttempt(t)
			t.current = a
			t.mu.Unlock()
			return a, nil
		}
		t.mu.Unlock()
		switch {
		case spent:
			return nil, errSpent
		case !current.isAbandoned():
			return nil, ErrAlive
		}
		select {
		case <-current.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// release ends a.
func (t *Tableflip) release(a *attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current = nil
	close(a.done)
}

// spend notes that tableflip will not start anything any more.
func (t *Tableflip) spend() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spent = true
}
