package activation_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/activation"
)

// children are the programs that the tests have systemd start. Each returns what
// it saw.
var children = map[string]func() any{
	"take":      childTake,
	"take late": childTakeLate,
	"serve":     childServe,
	"listen":    childListen,
	"order":     childOrder,
	"helper":    childHelper,
	"wrapped":   childWrapped,
}

// taken is the result of childTake.
type taken struct {
	Err       string
	Activated bool
	All       []activation.Socket
	Environ   []string // variables of the socket activation that are left
	CloseExec []bool   // of the descriptors 3, 4, ... that are open
	Bind      string   // error of a Listen that would bind
	NameError bool     // its type
}

func childTake() any {
	var r taken
	s, err := activation.Take()
	r.Err = text(err)
	r.Environ = listenVariables()
	for fd := 3; fd < 6; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil {
			break
		}
		r.CloseExec = append(r.CloseExec, flags&unix.FD_CLOEXEC != 0)
	}
	if err != nil {
		return r
	}
	r.Activated, r.All = s.Activated(), s.All()
	lns, err := s.Listen(context.Background(), "not passed", "tcp", "127.0.0.1:0")
	_, r.NameError = errors.AsType[*activation.NameError](err)
	r.Bind = text(err)
	for _, ln := range lns {
		ln.Close()
	}
	return r
}

// childTakeLate takes the sockets after somebody else in the process has.
func childTakeLate() any {
	unix.CloseOnExec(3)
	return childTake()
}

func listenVariables() []string {
	var left []string
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "LISTEN_") {
			left = append(left, kv)
		}
	}
	return left
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// childServe answers once on each of the sockets that it was passed, until stdin
// ends. It returns what it could not do.
func childServe() any {
	s, err := activation.Take()
	must(err)
	ctx := context.Background()
	for _, name := range []string{"tcp", "unix", "abstract", "seqpacket"} {
		lns, err := s.Listen(ctx, name, "tcp", "127.0.0.1:0")
		must(err)
		for i, ln := range lns {
			go answer(ln, fmt.Sprintf("%s %d", name, i))
		}
	}
	for _, name := range []string{"udp", "unixgram"} {
		conns, err := s.ListenPacket(ctx, name, "udp", "127.0.0.1:0")
		must(err)
		for _, conn := range conns {
			go answerPacket(conn, name)
		}
	}
	files, err := s.Files("fifo")
	must(err)
	line, err := bufio.NewReader(files[0]).ReadString('\n')
	must(err)

	io.Copy(io.Discard, os.Stdin)
	must(s.Close())
	return line
}

func answer(ln net.Listener, greeting string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		fmt.Fprintf(c, "%s\n", greeting)
		c.Close()
	}
}

func answerPacket(conn net.PacketConn, greeting string) {
	buf := make([]byte, 100)
	for {
		_, addr, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		conn.WriteTo([]byte(greeting+"\n"), addr)
	}
}

// childListen is a program of the shortest kind: two listeners, two lines.
func childListen() any {
	r := make(map[string]string)
	ln, err := activation.Listen("http", "tcp", "127.0.0.1:0")
	r["http"] = text(err)
	if err == nil {
		r["http address"] = ln.Addr().Network() + " " + ln.Addr().String()
		go answer(ln, "http")
	}
	admin, err := activation.Listen("admin", "unix", os.Getenv("ADMIN"))
	r["admin"] = text(err)
	if err == nil {
		r["admin address"] = admin.Addr().Network() + " " + admin.Addr().String()
	}
	dns, err := activation.ListenPacket("dns", "udp", "127.0.0.1:0")
	r["dns"] = text(err)
	if err == nil {
		r["dns address"] = dns.LocalAddr().Network() + " " + dns.LocalAddr().String()
	}
	io.Copy(io.Discard, os.Stdin)
	for _, c := range []io.Closer{ln, admin, dns} {
		if c != nil {
			c.Close()
		}
	}
	return r
}

// childOrder calls what may be called once in the order that $ORDER says.
func childOrder() any {
	var got []string
	for _, call := range strings.Fields(os.Getenv("ORDER")) {
		var err error
		switch call {
		case "take":
			_, err = activation.Take()
		case "listen":
			_, err = activation.Listen("http", "tcp", "127.0.0.1:0")
		}
		switch {
		case errors.Is(err, activation.ErrTaken):
			got = append(got, "taken")
		case errors.Is(err, activation.ErrClaimed):
			got = append(got, "claimed")
		case err != nil:
			got = append(got, "error: "+err.Error())
		default:
			got = append(got, "ok")
		}
	}
	return got
}

// inherits is the result of childHelper.
type inherits struct{ Before, After []string }

// childHelper starts a helper before and after taking the sockets, and returns the
// descriptors that each of them found open.
func childHelper() any {
	var r inherits
	r.Before = helperFDs()
	_, err := activation.Take()
	must(err)
	r.After = helperFDs()
	return r
}

func helperFDs() []string {
	out, err := exec.Command("/bin/sh", "-c", `for fd in /proc/$$/fd/*; do readlink "$fd" || :; done`).Output()
	must(err)
	return strings.Fields(string(out))
}

// childWrapped wants an address that systemd has bound already.
func childWrapped() any {
	_, err := activation.Listen("http", "tcp", os.Getenv("ADDRESS"))
	return map[string]string{"err": text(err)}
}
