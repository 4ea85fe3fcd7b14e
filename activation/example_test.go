package activation_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/activation"
)

// A service with one socket, in one line: systemd's under systemd, its own on a
// laptop.
func ExampleListen() {
	ln, err := activation.Listen("http", "tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(ln, http.DefaultServeMux))
}

// A service with several sockets, some of them optional, that says what it was
// passed in vain.
func ExampleTake() {
	sockets, err := activation.Take()
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	web, err := sockets.Listen(ctx, "http", "tcp", ":8080") // all of that name
	if err != nil {
		log.Fatal(err)
	}
	dns, err := sockets.ListenPacket(ctx, "dns", "udp", "127.0.0.1:5353")
	if _, ok := errors.AsType[*activation.NameError](err); ok {
		log.Print("running without dns: ", err)
	} else if err != nil {
		log.Fatal(err)
	}
	for _, s := range sockets.Unclaimed() {
		log.Printf("nobody serves %s (%s %s)", s.Name, s.Network, s.Address)
	}
	serve(web, dns)
}

func serve([]net.Listener, []net.PacketConn) {}

// Without systemd the set is empty, and Listen binds.
func ExampleSockets_Listen() {
	var sockets activation.Sockets // what Take returns on a laptop
	lns, err := sockets.Listen(context.Background(), "http", "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello\n")
	})}
	defer srv.Close()
	go srv.Serve(lns[0])

	resp, err := http.Get("http://" + lns[0].Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(body))
	// Output: hello
}

// A test makes the set that systemd would pass.
func ExampleNewSockets() {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		log.Fatal(err)
	}
	sockets, err := activation.NewSockets(true, activation.NamedFD{Name: "log", FD: fd})
	if err != nil {
		log.Fatal(err)
	}
	defer sockets.Close()

	_, err = sockets.Listen(context.Background(), "log", "unix", "")
	fmt.Println(err)
	_, err = sockets.Listen(context.Background(), "http", "tcp", ":80")
	if e, ok := errors.AsType[*activation.NameError](err); ok {
		fmt.Println(e.Name, "is missing, there are", e.Passed)
	}
	for _, s := range sockets.Unclaimed() {
		fmt.Println("nobody serves", s.Name)
	}
	// Output:
	// activation: socket "log" is a unixgram datagram socket, not a TCP or unix listener (ListenStream= or ListenSequentialPacket=, with Accept=no)
	// http is missing, there are [log]
	// nobody serves log
}

// A FIFO, netlink socket or device comes as a file.
func ExampleSockets_Files() {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		log.Fatal(err)
	}
	defer unix.Close(fds[1])
	sockets, err := activation.NewSockets(true, activation.NamedFD{Name: "commands", FD: fds[0]})
	if err != nil {
		log.Fatal(err)
	}
	files, err := sockets.Files("commands")
	if err != nil {
		log.Fatal(err)
	}
	defer files[0].Close()

	unix.Write(fds[1], []byte("rotate\n"))
	var command string
	fmt.Fscanln(files[0], &command)
	fmt.Println(command)
	// Output: rotate
}
