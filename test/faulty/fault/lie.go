package fault

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// lie sends systemd what only the main process may send, wherever a socket for it
// can be found, and counts what was taken.
func lie() (told int) {
	places := []string{os.Getenv("NOTIFY_SOCKET")}
	for _, v := range os.Environ() {
		if _, value, _ := strings.Cut(v, "="); strings.Contains(value, "notify") {
			places = append(places, value)
		}
	}
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
		_ = c.Close()
	}
	return told
}
