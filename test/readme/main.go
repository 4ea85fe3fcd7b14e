// Readme is the service of the README, so that it is known to compile and to work.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/hdctl/handoff/upgrade"
)

var version = "v1" // -ldflags "-X main.version=v2"

func main() {
	srv := &http.Server{
		Addr: "127.0.0.1:8080", // under systemd: the socket called "http"
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "hello from", version)
		}),
	}
	if err := upgrade.ListenAndServe(srv, upgrade.Options{Version: version}); err != nil {
		log.Fatal(err)
	}
}
