package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hdctl/handoff/upgrade/control"
)

// Timeout is how long a source may take to answer a scrape. A service that takes
// longer is not up.
const Timeout = 5 * time.Second

// Source is whom a [Collector] asks for each scrape. It may be called by several
// goroutines at the same time. [control.Client.Status] is one.
type Source func(ctx context.Context) (*control.Status, error)

// Of is the source of a service that asks itself: u is its *upgrade.Upgrader. It does
// not wait for anything, and never fails.
func Of(u interface{ Status() *control.Status }) Source {
	return func(context.Context) (*control.Status, error) { return u.Status(), nil }
}

// Collector makes metrics of the status of one service. Collectors of several services
// may be in the same registry. It may be used by several goroutines.
type Collector struct {
	source Source
	descs  descs
}

// New returns a collector. Service is the value of the label service of all its
// metrics, for which the name of the service is the one to use.
func New(service string, source Source) *Collector {
	return &Collector{source: source, descs: newDescs(valid(service))}
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs.all {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. Where the source fails handoff_up is 0,
// and nothing else is known: it does not fail the scrape, which may be about more.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	s, err := c.source(ctx)
	e := emitter{descs: &c.descs, ch: ch}
	e.flag(c.descs.up, err == nil && s != nil)
	if err == nil && s != nil {
		e.status(s)
	}
}
