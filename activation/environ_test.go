package activation

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestAnnounced(t *testing.T) {
	me := process{pid: 100, pidfdID: 7000}
	tests := []struct {
		name string
		env  environ
		want announcement
	}{
		{"nothing", environ{}, announcement{}},
		{
			"ours",
			environ{listenPID: "100", listenFDs: "2", listenFDNames: "a:b"},
			announcement{bySystemd: true, count: 2, names: []string{"a", "b"}},
		},
		{
			"ours, by pidfd",
			environ{listenPID: "100", listenPIDFDID: "7000", listenFDs: "1"},
			announcement{bySystemd: true, count: 1},
		},
		{
			"earlier process of our PID",
			environ{listenPID: "100", listenPIDFDID: "6999", listenFDs: "1", listenFDNames: "a"},
			announcement{foreignPID: 100},
		},
		{"another's", environ{listenPID: "99", listenFDs: "1", listenFDNames: "a"}, announcement{foreignPID: 99}},
		{"without sockets", environ{execPID: "100"}, announcement{bySystemd: true}},
		{"another's exec", environ{execPID: "99"}, announcement{}},
		{"a PID is not a prefix", environ{execPID: "1000", listenPID: "1000"}, announcement{foreignPID: 1000}},
		{"no count", environ{listenPID: "100", listenFDNames: "a"}, announcement{bySystemd: true}},
		{"zero", environ{listenPID: "100", listenFDs: "0"}, announcement{bySystemd: true}},
		{
			"most",
			environ{listenPID: "100", listenFDs: strconv.Itoa(math.MaxInt32 - firstFD)},
			announcement{bySystemd: true, count: math.MaxInt32 - firstFD},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := announced(tt.env, me)
			assert.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}

	got, err := announced(environ{listenPID: "100", listenPIDFDID: "6999", listenFDs: "1"}, process{pid: 100})
	assert.NoError(t, err)
	assert.Equal(t, 1, got.count, "where the kernel has no pidfd id, the PID has to do")
}

func FuzzAnnounced(f *testing.F) {
	f.Add("100", "7000", "2", "http:admin", "100")
	f.Add("100", "", "3", "a", "")
	f.Add("100", "", "3", "a::c", "")
	f.Add("100", "", "1", "a:b", "")
	f.Add("100", "1", "-1", "::", "x")
	f.Add("99", "", "999999999999", ":", "100")
	f.Fuzz(func(t *testing.T, pid, pidfdID, fds, names, execPID string) {
		me := process{pid: 100, pidfdID: 7000}
		env := environ{pid, pidfdID, fds, names, execPID}
		a, err := announced(env, me)
		if a.count < 0 || a.count > math.MaxInt32-firstFD || len(a.names) > a.count {
			t.Fatalf("%+v: %+v", env, a)
		}
		if err != nil && (a.count != 0 || a.names != nil) {
			t.Fatalf("%+v: %+v with error %v", env, a, err)
		}
		if a.count > 0 && (!a.bySystemd || a.foreignPID != 0) {
			t.Fatalf("%+v: descriptors that are not ours: %+v", env, a)
		}
		if execPID == "100" && !a.bySystemd {
			t.Fatalf("%+v: not by systemd", env)
		}
		for i := range min(a.count, len(a.names)+1) {
			if name := a.name(i); name == "" || strings.Contains(name, ":") {
				t.Fatalf("%+v: name %d is %q", env, i, name)
			}
		}
		if a.names != nil && strings.Join(a.names, ":") != names {
			t.Fatalf("%+v: names %q", env, a.names)
		}
	})
}
