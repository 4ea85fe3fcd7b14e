// Command faulty is a service that goes wrong, in a way that the file beside its
// executable, NAME.mode, says: the bad versions that the end-to-end tests install.
//
//	exit0, exit1      ends before it is ready
//	early             the same, before it has an Upgrader
//	panic             panics before it is ready
//	hang              says hello and never gets ready
//	mute              does not even say hello
//	notify            finds a way to systemd, if there is one, and tells lies
//	serve             serves, until its process is killed or told to stop
//	panic-serving     is ready, and panics when it has answered a request
//	exit-serving      is ready, and exits with status 0 when it has answered one
//	own-way           serves HTTP without the Upgrader, which only gives the listener
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/hdctl/handoff/upgrade"
)

func main() {
	mode, err := os.ReadFile(os.Args[0] + ".mode")
	if err == nil {
		err = run(strings.TrimSpace(string(mode)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "faulty:", err)
		os.Exit(1)
	}
}

func run(mode string) error {
	fmt.Println("faulty: going to", mode)
	switch mode {
	case "early":
		fmt.Fprintln(os.Stderr, "faulty: cannot read my configuration")
		os.Exit(3)
	case "mute":
		select {}
	case "notify":
		return lie()
	}
	u, err := upgrade.New(upgrade.Options{Version: "faulty"})
	if err != nil {
		return err
	}
	ln, err := u.Listen("http", "tcp", "127.0.0.1:8080")
	if err != nil {
		return err
	}
	switch mode {
	case "exit0":
		return nil
	case "exit1":
		return errors.New("the database is away")
	case "panic":
		panic("faulty: this cannot be")
	case "hang":
		select {}
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Handoff-Generation", fmt.Sprint(u.Generation()))
		fmt.Fprintln(w, "faulty")
		switch mode {
		case "panic-serving":
			go panic("faulty: as asked for")
		case "exit-serving":
			os.Exit(0)
		}
	})}
	if mode == "own-way" {
		go func() { _ = srv.Serve(ln) }() // it ends with the listener
	} else {
		u.Serve(ln, upgrade.HTTP(srv))
	}
	return u.Run(context.Background())
}

// lie sends systemd what only the main process may send, wherever a socket for it
// can be found.
func lie() error {
	places := []string{os.Getenv("NOTIFY_SOCKET")}
	for _, v := range os.Environ() {
		if _, value, _ := strings.Cut(v, "="); strings.Contains(value, "notify") {
			places = append(places, value)
		}
	}
	told := 0
	for _, place := range places {
		if place == "" {
			continue
		}
		c, err := net.Dial("unixgram", place)
		if err != nil {
			continue
		}
		for _, lie := range []string{"STOPPING=1", "READY=1", fmt.Sprintf("MAINPID=%d", os.Getpid())} {
			if _, err := c.Write([]byte(lie)); err == nil {
				told++
			}
		}
	}
	return fmt.Errorf("told %d lies", told)
}
