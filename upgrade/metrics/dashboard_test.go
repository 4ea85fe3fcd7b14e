package metrics_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/metrics"
)

// dashboard is as much of a Grafana dashboard as is checked here.
type dashboard struct {
	Inputs []struct {
		Name, Type, PluginID string
	} `json:"__inputs"`
	Templating struct {
		List []struct {
			Name, Definition string
			Datasource       datasource
		}
	}
	Annotations struct {
		List []struct {
			Expr, TitleFormat string
			Datasource        datasource
		}
	}
	Panels []panel
}

type datasource struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               datasource
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct {
		Defaults struct{ Unit string }
	}
	Targets []struct {
		Datasource                datasource
		RefID, Expr, LegendFormat string
	}
}

// units of Grafana, by what the query is about.
var unitOf = []struct {
	pattern *regexp.Regexp
	units   []string
}{
	{regexp.MustCompile(`_bytes\b`), []string{"bytes"}},
	{regexp.MustCompile(`_seconds(_bucket|_sum)?\b`), []string{"s"}},
	{regexp.MustCompile(`_ratio\b`), []string{"percentunit"}},
	{regexp.MustCompile(``), []string{"short", "none"}},
}

var (
	metricName  = regexp.MustCompile(`\bhandoff_\w+`)
	legendLabel = regexp.MustCompile(`{{(\w+)}}`)
	grouped     = regexp.MustCompile(`\b(sum|min|max|count)( by \(([^)]*)\))?`)
)

// exported is what the collector exports, by the name that queries use, with the
// labels.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(metrics.New("app", always(busy())))
	families, err := r.Gather()
	require.NoError(t, err)
	names := make(map[string][]string)
	for _, f := range families {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		if f.GetType().String() != "HISTOGRAM" {
			names[f.GetName()] = labels
			continue
		}
		names[f.GetName()+"_sum"], names[f.GetName()+"_count"] = labels, labels
		names[f.GetName()+"_bucket"] = append(labels, "le")
	}
	return names
}

// The dashboard shows what is exported, of the services that were chosen, with labels
// that the series have.
func TestDashboard(t *testing.T) {
	data, err := os.ReadFile("../../packaging/grafana/handoff.json")
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(data, &d))
	names := exported(t)
	prom := datasource{"prometheus", "${DS_PROMETHEUS}"}
	used := make(map[string]bool)
	query := func(expr string) {
		t.Helper()
		found := metricName.FindAllString(expr, -1)
		assert.NotEmpty(t, found, expr)
		for _, name := range found {
			assert.Contains(t, names, name, expr)
			used[name] = true
			assert.Contains(t, expr, name+`{service=~"$service"`, "the services that were chosen")
		}
		assert.Equal(t, strings.Count(expr, "("), strings.Count(expr, ")"), expr)
	}

	require.Len(t, d.Inputs, 1)
	assert.Equal(t, "DS_PROMETHEUS", d.Inputs[0].Name)
	require.Len(t, d.Templating.List, 1)
	assert.Equal(t, "service", d.Templating.List[0].Name)
	assert.Equal(t, prom, d.Templating.List[0].Datasource)
	assert.Equal(t, "label_values(handoff_up, service)", d.Templating.List[0].Definition)
	for _, a := range d.Annotations.List {
		query(a.Expr)
		assert.Equal(t, prom, a.Datasource)
	}

	ids, places := make(map[int]bool), make(map[[2]int]string)
	for _, p := range d.Panels {
		t.Run(p.Title, func(t *testing.T) {
			assert.False(t, ids[p.ID], "two of ID %d", p.ID)
			ids[p.ID] = true
			assert.NotEmpty(t, p.Title)
			assert.NotEmpty(t, p.Description)
			assert.Equal(t, prom, p.Datasource)
			assert.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, "the width of a dashboard")
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					require.Empty(t, places[at], "in the same place")
					places[at] = p.Title
				}
			}
			require.NotEmpty(t, p.Targets)
			refs := make(map[string]bool)
			for _, q := range p.Targets {
				assert.False(t, refs[q.RefID])
				refs[q.RefID] = true
				assert.Equal(t, prom, q.Datasource)
				query(q.Expr)
				for _, u := range unitOf {
					if u.pattern.MatchString(q.Expr) {
						assert.Contains(t, u.units, p.FieldConfig.Defaults.Unit, q.Expr)
						break
					}
				}
				require.NotEmpty(t, q.LegendFormat)
				name := metricName.FindString(q.Expr)
				labels := names[name]
				if g := grouped.FindStringSubmatch(q.Expr); g != nil {
					labels = nil
					for l := range strings.SplitSeq(g[3], ",") {
						if l = strings.TrimSpace(l); l != "" {
							assert.Contains(t, names[name], l, q.Expr)
							labels = append(labels, l)
						}
					}
				}
				for _, l := range legendLabel.FindAllStringSubmatch(q.LegendFormat, -1) {
					assert.Contains(t, labels, l[1], "the legend of %s", q.Expr)
				}
			}
		})
	}
	for _, name := range []string{
		"handoff_generations", "handoff_connections", "handoff_upgrades_total", "handoff_upgrade_duration_seconds_bucket",
		"handoff_connections_cut_total", "handoff_disk_differs", "handoff_paused", "handoff_resident_memory_bytes",
	} {
		assert.True(t, used[name], "%s is shown", name)
	}
}
