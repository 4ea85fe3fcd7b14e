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
func decodeConns(query string) (control.ConnFilter, *control.Error) {
	var f control.ConnFilter
	e := decodeFilter(query, []string{"generation", "state", "listener"}, func(name, value string) (e *control.Error) {
		switch name {
		case "generation":
			f.Generation, e = parseGeneration(value)
		case "state":
			f.State, e = parseState(value)
		default:
			f.Listener, e = parseListener(value)
		}
		return e
	})
	if e != nil {
		return control.ConnFilter{}, e
	}
	return f, nil
}

// maxHistory is the largest limit of a history request.
const maxHistory = 10_000

// decodeHistory reads the query of a history request: how many entries at most,
// or 0.
func decodeHistory(query string) (int, *control.Error) {
	limit := 0
	e := decodeFilter(query, []string{"limit"}, func(_, value string) (e *control.Error) {
		limit, e = parseLimit(value)
		return e
	})
	if e != nil {
		return 0, e
	}
	return limit, nil
}

func parseLimit(value string) (int, *control.Error) {
	n, err := strconv.ParseUint(value, 10, strconv.IntSize-1)
	if err != nil || n > maxHistory {
		return 0, badRequest("parameter limit: %.40q is no number between 0 and %d", value, maxHistory).
			WithHint("without the parameter, or with 0, the list has all that is kept")
	}
	return int(n), nil
}

// decodeFilter reads a query that has each of names at most once, and calls set
// for those that are there.
//
// Here an unknown parameter is an error, in contrast to everywhere else: a filter
// that is not applied is a list of the wrong things.
func decodeFilter(query string, names []string, set func(name, value string) *control.Error) *control.Error {
	values, e := decodeQuery(query)
	if e != nil {
		return e
	}
	for _, name := range slices.Sorted(maps.Keys(values)) { // of two mistakes always the same one
		switch all := values[name]; {
		case len(all) > 1:
			e = badRequest("parameter %.40q is given %d times", name, len(all)).WithHint("ask once for each value")
		case !slices.Contains(names, name):
			e = badRequest("there is no parameter %.40q", name).WithHint("there is: %s", strings.Join(names, ", "))
		default:
			e = set(name, all[0])
		}
		if e != nil {
			return e
		}
	}
	return nil
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
