package units_test

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hdctl/handoff/units"
)

func ExampleService_Render() {
	files, err := units.Service{
		Name: "app",
		Exec: "/usr/bin/app",
		User: "app",
		Sockets: []units.Socket{
			{Name: "http", Listen: []units.Listen{{Address: "80"}}},
			{Name: "dgram", Listen: []units.Listen{{Kind: units.Datagram, Address: "5353"}}},
		},
	}.Render()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		fmt.Println(file)
	}
	// Output:
	// app-dgram.socket
	// app.service
	// app.socket
}
