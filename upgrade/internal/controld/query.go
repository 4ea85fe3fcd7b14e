package controld

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// decodeFollow reads the query of an events request.
func decodeFollow(query string) (bool, *control.Error) {
	values, e := decodeQuery(query)
	if e != nil {
		return false, e
	}
	if !values.Has("follow") {
		return false, nil
	}
	follow, err := strconv.ParseBool(values.Get("follow"))
	if err != nil {
		return false, badRequest("parameter follow: %.40q is neither 1 nor 0", values.Get("follow"))
	}
	return follow, nil
}

// maxListener is the length of the longest name of a socket, in bytes: systemd's
// FDNAME_MAX, sd_listen_fds_with_names(3).
const maxListener = 255

// decodeConns reads the query of a conns request. The filter that it returns is
// valid: Generation is 0 or positive, State is "" or one that there is, Listener
// is "" or could be the name of a socket.
//
// Here an unknown parameter is an error, in contrast to everywhere else: a filter
// that is not applied is a list of the wrong connections.
func decodeConns(query string) (control.ConnFilter, *control.Error) {
	var f control.ConnFilter
	values, e := decodeQuery(query)
	if e != nil {
		return f, e
	}
	for _, name := range slices.Sorted(maps.Keys(values)) { // of two mistakes always the same one
		all := values[name]
		value := all[0]
		switch {
		case len(all) > 1:
			e = badRequest("parameter %.40q is given %d times", name, len(all)).WithHint("ask once for each value")
		case name == "generation":
			f.Generation, e = parseGeneration(value)
		case name == "state":
			f.State, e = parseState(value)
		case name == "listener":
			f.Listener, e = parseListener(value)
		default:
			e = badRequest("there is no parameter %.40q", name).
				WithHint("there are generation, state and listener")
		}
		if e != nil {
			return control.ConnFilter{}, e
		}
	}
	return f, nil
}

func parseGeneration(value string) (int, *control.Error) {
	n, err := strconv.ParseUint(value, 10, strconv.IntSize-1)
	if err != nil || n == 0 {
		return 0, badRequest("parameter generation: %.40q is no generation", value).
			WithHint("generations are numbered from 1; without the parameter the list has all")
	}
	return int(n), nil
}

func parseState(value string) (string, *control.Error) {
	states := []string{control.ConnNew, control.ConnActive, control.ConnIdle, control.ConnStream, control.ConnHijacked}
	if !slices.Contains(states, value) {
		return "", badRequest("parameter state: there is no %.40q", value).
			WithHint("there are %s", strings.Join(states, ", "))
	}
	return value, nil
}

func parseListener(value string) (string, *control.Error) {
	switch {
	case value == "":
		return "", badRequest("parameter listener is empty").
			WithHint("without the parameter the list has all")
	case len(value) > maxListener || printable(value, maxListener) != value:
		return "", badRequest("parameter listener: %.40q cannot be the name of a socket", value).
			WithHint("the status has their names")
	}
	return value, nil
}

func decodeQuery(query string) (url.Values, *control.Error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, badRequest("the query of the address cannot be read").
			WithHint("it has the form name=value&name=value, with %%XX for special characters")
	}
	return values, nil
}
