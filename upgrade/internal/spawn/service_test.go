package spawn_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/internal/spawn"
)

// tableflip's Upgrader is there once a process, and so is what New takes over.
// So the tests are about other processes: this test binary as a service, which
// does what it is told on a unix socket, in all of its generations.

const (
	modeEnv   = "SPAWN_TEST_MODE"   // what this process is instead of a test
	socketEnv = "SPAWN_TEST_SOCKET" // where a service reports
	depthEnv  = "SPAWN_TEST_DEPTH"  // how many successors in a row start without being told
)

// hello is the first message of a service.
type hello struct {
	PID       int
	Successor bool
	Path      string
	Args      []string
	Err       string // of New, or of the Start of Child
	Child     int    // PID, see depthEnv
}

// request tells a service what to do: see service.do.
type request struct {
	Op    string
	Text  string
	Args  []string
	N     int
	Limit time.Duration

	Path string // of the program to start
	Held string // file of the program to start: what "hold" has opened
}

// reply is the answer.
type reply struct {
	Err      string
	Errno    syscall.Errno // in Err's chain
	Alive    bool          // Err is spawn.ErrAlive
	Canceled bool          // Err is the end of the context

	PID    int
	N      int
	Text   string
	Lines  []string
	Files  []fileInfo
	Code   int
	Signal int
	ExitOf string // error in Exit
}

// fileInfo describes a file descriptor.
type fileInfo struct {
	Name        string
	FD          int
	Link        string // what it refers to, as /proc has it
	Nonblock    bool
	CloseOnExec bool
}

type service struct {
	tf    *spawn.Tableflip
	files map[string]int
	held  map[string]*os.File // by path
	child spawn.Child

	mu      sync.Mutex
	printed []string // by children, "STREAM LINE"
}

// runService is the main of a service. It ends with the connection.
func runService() {
	s := &service{files: make(map[string]int), held: make(map[string]*os.File)}
	tf, err := spawn.New(spawn.Options{Output: s.output})
	h := hello{PID: os.Getpid(), Args: os.Args}
	if err != nil {
		h.Err = err.Error()
	} else {
		s.tf = tf
		h.Successor, h.Path = tf.Successor(), tf.Path()
		for _, f := range tf.Inherited() {
			s.files[f.Name] = f.FD
		}
	}
	if depth, _ := strconv.Atoi(os.Getenv(depthEnv)); depth > 0 && err == nil {
		os.Setenv(depthEnv, strconv.Itoa(depth-1))
		s.child, err = tf.Start(context.Background(), nil, spawn.Program{})
		if err != nil {
			h.Err = err.Error()
		} else {
			h.Child = s.child.PID()
		}
	}
	conn, err := net.Dial("unix", os.Getenv(socketEnv))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	if out.Encode(h) != nil {
		os.Exit(1)
	}
	for {
		var req request
		if in.Decode(&req) != nil {
			os.Exit(0)
		}
		rep, err := s.do(req)
		if err != nil {
			rep.Err = err.Error()
			rep.Alive = errors.Is(err, spawn.ErrAlive)
			rep.Canceled = errors.Is(err, context.DeadlineExceeded)
			errors.As(err, &rep.Errno)
		}
		if out.Encode(rep) != nil {
			os.Exit(0)
		}
	}
}

func (s *service) output(stream int, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.printed = append(s.printed, strconv.Itoa(stream)+" "+line)
}

func (s *service) do(req request) (rep reply, err error) {
	switch req.Op {
	case "open": // a file named Args[0] of kind Text
		fd, err := openKind(req.Text)
		if err != nil {
			return rep, err
		}
		s.files[req.Args[0]] = fd
	case "alias": // all but the first of Args mean the same as that
		for _, name := range req.Args[1:] {
			s.files[name] = s.files[req.Args[0]]
		}
	case "files": // those that were opened or inherited
		for name, fd := range s.files {
			info, err := describe(name, fd)
			if err != nil {
				return rep, err
			}
			rep.Files = append(rep.Files, info)
		}
		sort.Slice(rep.Files, func(i, j int) bool { return rep.Files[i].Name < rep.Files[j].Name })
	case "hold": // the program at Text open, by flags N
		f, err := os.OpenFile(req.Text, req.N, 0)
		s.held[req.Text] = f
		return rep, err
	case "hold copy": // of the program at Text, in memory
		content, err := os.ReadFile(req.Text)
		if err != nil {
			return rep, err
		}
		fd, err := unix.MemfdCreate("copy", unix.MFD_CLOEXEC)
		if err != nil {
			return rep, err
		}
		s.held[req.Text] = os.NewFile(uintptr(fd), "a copy")
		_, err = s.held[req.Text].Write(content)
		return rep, err
	case "release": // what is held of Text
		return rep, s.held[req.Text].Close()
	case "args":
		rep.Lines = os.Args
	case "start": // with the files Args
		ctx := context.Background()
		if req.Limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, req.Limit)
			defer cancel()
		}
		var files []spawn.File
		for _, name := range req.Args {
			fd, ok := s.files[name]
			if !ok {
				fd = -1
			}
			files = append(files, spawn.File{Name: name, FD: fd})
		}
		child, err := s.tf.Start(ctx, files, s.program(req))
		if err != nil {
			return rep, err
		}
		s.child = child
		rep.PID = child.PID()
	case "start restoring": // in the middle of the start
		before := link(1)
		var started atomic.Bool
		restored := make(chan error)
		go func() {
			for link(1) == before && !started.Load() {
				runtime.Gosched()
			}
			restored <- s.tf.RestoreOutput()
		}()
		child, err := s.tf.Start(context.Background(), nil, spawn.Program{})
		started.Store(true)
		if err != nil {
			return rep, err
		}
		s.child = child
		rep.PID = child.PID()
		return rep, <-restored
	case "wait": // for the end of the child
		<-s.child.Exited()
		exit := s.child.Exit()
		rep.PID, rep.Code, rep.Signal = s.child.PID(), exit.Code, int(exit.Signal)
		if exit.Err != nil {
			rep.ExitOf = exit.Err.Error()
		}
		rep.Text = exit.String()
		rep.Lines = s.child.Output()
	case "exited": // N is 1 if the child has
		select {
		case <-s.child.Exited():
			rep.N = 1
		default:
		}
	case "kill":
		return rep, s.child.Kill()
	case "tail":
		rep.Lines = s.child.Output()
	case "printed": // what Options.Output was called with
		s.mu.Lock()
		defer s.mu.Unlock()
		rep.Lines = s.printed
	case "restore":
		return rep, s.tf.RestoreOutput()
	case "print": // Text on stream N
		f := os.Stdout
		if req.N == 2 {
			f = os.Stderr
		}
		_, err := f.WriteString(req.Text)
		return rep, err
	case "printing": // Text on stdout N times, beside restore
		var printer sync.WaitGroup
		printer.Go(func() {
			for i := range req.N {
				fmt.Printf("%s %d\n", req.Text, i)
			}
		})
		for range 100 {
			if err := s.tf.RestoreOutput(); err != nil {
				return rep, err
			}
		}
		printer.Wait()
	case "fds": // what is open, once garbage is collected
		collect()
		fallthrough
	case "fds now":
		for _, fd := range openFDs() {
			rep.Lines = append(rep.Lines, fmt.Sprint(fd.FD, " ", fd.Link))
		}
	case "goroutines":
		buf := make([]byte, 1<<20)
		rep.N, rep.Text = runtime.NumGoroutine(), string(buf[:runtime.Stack(buf, true)])
	case "run": // a helper with the arguments Args
		out, err := exec.Command(req.Args[0], req.Args[1:]...).CombinedOutput()
		rep.Text = string(out)
		return rep, err
	case "helper": // the same, with this stdout, left alone
		cmd := exec.Command(req.Args[0], req.Args[1:]...)
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			return rep, err
		}
		rep.PID = cmd.Process.Pid
		go cmd.Wait()
	case "setenv":
		return rep, os.Setenv(req.Args[0], req.Args[1])
	case "getenv":
		rep.Text = os.Getenv(req.Text)
	case "chdir":
		return rep, os.Chdir(req.Text)
	case "getwd":
		rep.Text, err = os.Getwd()
		return rep, err
	case "path":
		rep.Text = s.tf.Path()
	case "new":
		_, err := spawn.New(spawn.Options{})
		return rep, err
	case "starved": // starts and ends a child with at most N file descriptors
		return rep, s.starved(uint64(req.N), s.program(req))
	case "exit":
		os.Exit(req.N)
	default:
		return rep, fmt.Errorf("unknown op %q", req.Op)
	}
	return rep, nil
}

// program is what req says to start.
func (s *service) program(req request) spawn.Program {
	return spawn.Program{Path: req.Path, File: s.held[req.Held]}
}

// starved starts a child while file descriptors run out at limit, and sees to
// it that 1 and 2 are what they were.
func (s *service) starved(limit uint64, p spawn.Program) error {
	before := [2]string{link(1), link(2)}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: old.Max}); err != nil {
		return err
	}
	files := make([]spawn.File, 0, len(s.files))
	for name, fd := range s.files {
		files = append(files, spawn.File{Name: name, FD: fd})
	}
	child, startErr := s.tf.Start(context.Background(), files, p)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		return err
	}
	if startErr == nil {
		if err := child.Kill(); err != nil {
			return err
		}
		<-child.Exited()
	}
	if after := [2]string{link(1), link(2)}; after != before {
		return fmt.Errorf("stdio was %v, is %v", before, after)
	}
	return startErr
}

// collect runs the garbage collector, and the finalizers.
func collect() {
	for range 3 {
		done := make(chan struct{})
		mark := new([16]byte)
		runtime.SetFinalizer(mark, func(*[16]byte) { close(done) })
		mark = nil
		runtime.GC()
		<-done
	}
}

func link(fd int) string {
	s, err := os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(fd)))
	if err != nil {
		return err.Error()
	}
	return s
}

// openFDs lists the file descriptors of this process.
func openFDs() []fileInfo {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		panic(err)
	}
	var fds []fileInfo
	for _, name := range names {
		fd, _ := strconv.Atoi(name)
		if info, err := describe("", fd); err == nil && info.Link != "/proc/"+strconv.Itoa(os.Getpid())+"/fd" {
			fds = append(fds, info)
		}
	}
	sort.Slice(fds, func(i, j int) bool { return fds[i].FD < fds[j].FD })
	return fds
}

func describe(name string, fd int) (fileInfo, error) {
	info := fileInfo{Name: name, FD: fd, Link: link(fd)}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return info, err
	}
	info.Nonblock = flags&unix.O_NONBLOCK != 0
	flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	info.CloseOnExec = flags&unix.FD_CLOEXEC != 0
	return info, err
}

// openKind opens something, as a bare number.
func openKind(kind string) (int, error) {
	switch kind {
	case "listener":
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return -1, err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return -1, err
		}
		return fd, unix.Listen(fd, 8)
	case "blocking socket":
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return fds[0], err // the other one stays open, and is not passed
	case "blocking pipe":
		var p [2]int
		err := unix.Pipe2(p[:], unix.O_CLOEXEC)
		return p[0], err
	case "file":
		return unix.Open("/etc/passwd", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	default:
		return -1, fmt.Errorf("unknown kind %q", kind)
	}
}
