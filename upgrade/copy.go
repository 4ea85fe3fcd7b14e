package upgrade

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// copyPrevious makes the previous version independent of its file, where that is
// still on disk under some name (a release directory, with a symbolic link to the one
// in use): once nobody runs it, it can be overwritten in place, and the open file
// would have what is written there. It costs the size of the file in memory. A file
// that was replaced by rename(2) or deleted is nobody else's already.
func (u *Upgrader) copyPrevious(p *previous) {
	if sameFile(p.file, u.exe) {
		return // we run it, and what runs cannot be written (ETXTBSY)
	}
	u.wg.Go(func() {
		f, err := copyLinked(p.file)
		if err != nil {
			// The open file stays: its digest is looked at before it is run.
			u.log.LogAttrs(u.ctx, slog.LevelWarn, "a rollback depends on the previous file as it is on disk", slog.Any("err", err))
		}
		if f == nil {
			return
		}
		if !u.box.post(func() {
			if u.previous != p {
				_ = f.Close()
				return
			}
			old := p.file
			u.previous = &previous{Program: p.Program, file: f}
			u.closeLater(old)
		}) {
			_ = f.Close()
		}
	})
}

// sameFile tells whether two open files are one.
func sameFile(a, b *os.File) bool {
	if a == nil || b == nil {
		return false
	}
	infoA, errA := a.Stat()
	infoB, errB := b.Stat()
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// closeLater closes a file that an upgrade in progress may be about to run.
func (u *Upgrader) closeLater(f *os.File) {
	if a := u.attempt; a != nil && a.program.File == f {
		a.closing = append(a.closing, f)
		return
	}
	_ = f.Close()
}

// copyLinked copies f into memory, as a file that cannot be changed; nil if f has no
// name any more. f's offset stays.
func copyLinked(f *os.File) (*os.File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if ctlErr := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }); ctlErr != nil {
		return nil, ctlErr
	}
	if err != nil || st.Nlink == 0 {
		return nil, os.NewSyscallError("fstat", err)
	}
	fd, err := unix.MemfdCreate("previous", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 all can be executed
		fd, err = unix.MemfdCreate("previous", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("copy the previous version: %w", os.NewSyscallError("memfd_create", err))
	}
	m := os.NewFile(uintptr(fd), f.Name())
	n, err := io.Copy(m, io.NewSectionReader(f, 0, info.Size()))
	if err == nil && n != info.Size() { // somebody is writing into it
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("copy the previous version: %w", err)
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("copy the previous version: %w", os.NewSyscallError("fcntl", err))
	}
	// A file that is open for writing cannot be executed.
	ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	_ = m.Close()
	if err != nil {
		return nil, fmt.Errorf("copy the previous version: %w", err)
	}
	return ro, nil
}
