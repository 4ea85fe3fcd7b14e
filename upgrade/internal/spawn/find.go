package spawn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// finder looks for the process that tableflip has started, among the children
// of this one. There can be others: helpers of the service, started at the same
// moment. The process is the one that was executed with tableflip's sentinel in
// its environment, which New has removed from the environment of this process,
// and so of all others that it starts.
//
// Two kinds of programs do not show it. The kernel lets nobody look into one
// that has capabilities of its file, or cannot be read: such a one is known by
// its arguments. And a script may have executed another program with an empty
// environment: such a one is known by the pipe that it has as stdout or stderr,
// if it is the only one for a while, since a helper can have that too.
type finder struct {
	known map[int]bool // children from before
	path  string       // what was executed
	pipes []inode      // stdout and stderr of the child

	heir     int // who has one of the pipes
	heirSeen int // how often in a row
}

// inode identifies a file.
type inode struct{ dev, ino uint64 }

func inodeOf(st *unix.Stat_t) inode { return inode{dev: uint64(st.Dev), ino: st.Ino} }

// heirScans is how often heir must be the only candidate.
const heirScans = 100

// newFinder remembers the children of this process, and so must be called
// before the start. It fails if /proc is of no use.
func newFinder(path string, out *output) (*finder, error) {
	f := &finder{path: path, known: make(map[int]bool)}
	pids, err := children()
	if err != nil {
		return nil, fmt.Errorf("list child processes: %w", err)
	}
	for _, pid := range pids {
		f.known[pid] = true
	}
	for _, s := range out.streams {
		var st unix.Stat_t
		if err := unix.Fstat(s.w, &st); err != nil {
			return nil, os.NewSyscallError("fstat", err)
		}
		f.pipes = append(f.pipes, inodeOf(&st))
	}
	return f, nil
}

// scan looks once. It returns a zero process if there is none yet, which can
// also mean that it came and went.
func (f *finder) scan() (process, error) {
	pids, err := children()
	if err != nil {
		return process{}, err
	}
	var heirs []process
	executing := false
	for _, pid := range pids {
		if f.known[pid] {
			continue
		}
		p, err := readProcess(pid)
		switch {
		case outOfFDs(err):
			return process{}, err
		case err != nil || p.ppid != os.Getpid() || p.zombie:
			continue
		case !p.executed:
			// Its environment is still that of this process.
			executing = true
			continue
		}
		is, err := f.isSuccessor(pid)
		if outOfFDs(err) {
			return process{}, err
		}
		if is {
			return p, nil
		}
		if f.hasPipe(pid) {
			heirs = append(heirs, p)
		}
	}
	if executing || len(heirs) != 1 || heirs[0].pid != f.heir {
		f.heir, f.heirSeen = 0, 0
	}
	if !executing && len(heirs) == 1 {
		f.heir = heirs[0].pid
		if f.heirSeen++; f.heirSeen >= heirScans {
			return heirs[0], nil
		}
	}
	return process{}, nil
}

// isSuccessor reports whether pid was executed by tableflip.
func (f *finder) isSuccessor(pid int) (bool, error) {
	env, err := os.ReadFile(procFile(pid, "environ"))
	if err == nil {
		return slices.Contains(strings.Split(string(env), "\x00"), sentinelName+"="+sentinelValue), nil
	}
	if !errors.Is(err, fs.ErrPermission) {
		return false, err
	}
	args, err := os.ReadFile(procFile(pid, "cmdline"))
	if err != nil {
		return false, err
	}
	// A script is an argument of its interpreter.
	return slices.Contains(strings.Split(string(args), "\x00"), f.path), nil
}

// hasPipe reports whether pid has one of the pipes as stdout or stderr.
func (f *finder) hasPipe(pid int) bool {
	for _, n := range []string{"1", "2"} {
		var st unix.Stat_t
		if unix.Stat(procFile(pid, "fd/"+n), &st) == nil && slices.Contains(f.pipes, inodeOf(&st)) {
			return true
		}
	}
	return false
}

// process is what the kernel says of a process in proc_pid_stat(5).
type process struct {
	pid, ppid int
	zombie    bool
	executed  bool // has left the program of its parent
	started   uint64
}

// pfForkNoExec is PF_FORKNOEXEC: forked, but has not executed anything.
const pfForkNoExec = 0x40

// readProcess describes pid.
func readProcess(pid int) (process, error) {
	data, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return process{}, err
	}
	return parseStat(string(data))
}

// parseStat parses the content of a stat file.
func parseStat(stat string) (process, error) {
	var p process
	// The second field is the name in parentheses, of which it may have some.
	open, end := strings.Index(stat, " ("), strings.LastIndex(stat, ") ")
	if open < 0 || end < open {
		return p, errors.New("malformed stat of a process")
	}
	fields := strings.Fields(stat[end+2:])
	const ( // numbers in proc_pid_stat(5), minus 3
		state     = 0
		ppid      = 1
		flags     = 6
		starttime = 19
	)
	if len(fields) <= starttime {
		return p, errors.New("short stat of a process")
	}
	bits, err1 := strconv.ParseUint(fields[flags], 10, 64)
	started, err2 := strconv.ParseUint(fields[starttime], 10, 64)
	parent, err3 := strconv.Atoi(fields[ppid])
	pid, err4 := strconv.Atoi(stat[:open])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return p, fmt.Errorf("malformed stat of a process: %w", err)
	}
	return process{
		pid:      pid,
		ppid:     parent,
		zombie:   fields[state] == "Z" || fields[state] == "X",
		executed: bits&pfForkNoExec == 0,
		started:  started,
	}, nil
}

// pidfd opens a pidfd of p, and makes sure that it is not of another process
// that got the number after p was reaped: unix.ESRCH.
func (p process) pidfd() (int, error) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	now, err := readProcess(p.pid)
	if outOfFDs(err) {
		unix.Close(fd)
		return -1, err
	}
	if err != nil || now.ppid != p.ppid || now.started != p.started {
		unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// checkPidfd finds out whether pidfds work here, as long as there is no process
// that nothing could be done about.
func checkPidfd() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("%w (needs Linux 5.3, and a system call filter that lets it pass)", os.NewSyscallError("pidfd_open", err))
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, 0, nil, 0); err != nil {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	return nil
}

// children lists the child processes. A list may lack one that is there if
// others end at the same time: proc_tid_children(5).
func children() ([]int, error) {
	const tasks = "/proc/self/task"
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return nil, err
	}
	var pids []int
	read := false
	for _, thread := range threads {
		data, err := os.ReadFile(tasks + "/" + thread.Name() + "/children")
		switch {
		case err == nil:
			read = true
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
			continue // the thread has ended
		default:
			return nil, err
		}
		for field := range strings.FieldsSeq(string(data)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return nil, fmt.Errorf("malformed list of children: %w", err)
			}
			pids = append(pids, pid)
		}
	}
	if !read {
		return childrenOf(os.Getpid()) // CONFIG_PROC_CHILDREN is not set
	}
	return pids, nil
}

// childrenOf looks through all processes, which takes longer.
func childrenOf(parent int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := readProcess(pid)
		if outOfFDs(err) {
			return nil, err
		}
		if err == nil && p.ppid == parent {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func procFile(pid int, name string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + name
}
