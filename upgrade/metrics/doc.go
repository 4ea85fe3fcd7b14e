// Package metrics makes Prometheus metrics of what a service tells about its
// generations and its upgrades. It is for the service itself, that mounts a
// [Collector] beside its own metrics, and for programs that ask it on its control
// socket: hdctl metrics prints the same.
//
//	collector := metrics.New("app", metrics.Of(u)) // u is the *upgrade.Upgrader
//	registry.MustRegister(collector)
//
// # Who answers
//
// A scraper gets its answer from one generation. Counters are those of the service and
// go on at an upgrade: each main generation begins where the one before has ended
// ([control.Totals]). They begin again at 0 where systemd starts the service anew,
// which Prometheus takes as it does any restart, and handoff_start_time_seconds tells.
//
// Only the main generation knows the service. Another one may be asked, too: a
// connection of the scraper may have stayed with an old generation, or have come to a
// new one on probation or on stage. That one answers for itself alone: handoff_main is
// 0, and there are its handoff_info, its connections and its memory. What is about the
// service is left out: Prometheus then sees a gap of one scrape, which rate() and
// increase() bridge, instead of a counter that seems to fall back, or the state of an
// upgrade that is over. A scraper that keeps a connection open meets this at most once
// an upgrade, since idle connections move, or are closed with their next answer: unless
// that is put off (DrainDelay).
//
// Where upgrades are staged for long, many of the scrapes may come to the generation on
// stage. A source that asks the control socket avoids all this, as main answers there
// whichever generation is scraped:
//
//	client := &control.Client{Socket: control.DefaultSocket("app")}
//	collector := metrics.New("app", client.Status)
//
// # Metrics
//
// All have the label service. Series with the label generation exist for generations
// that live; their number is bounded by the limit of draining generations.
//
//	handoff_up                                   1 if the service has answered
//	handoff_main                                 1 if the main generation has answered
//	handoff_info{version,library,generation}     1; of the generation that is main, or has answered
//	handoff_generation                           number of the main generation
//	handoff_generations{state}                   generations whose process lives
//	handoff_connections{generation,state}        open connections
//	handoff_resident_memory_bytes{generation}
//	handoff_oldest_connection_timestamp_seconds{generation}
//	handoff_drain_deadline_timestamp_seconds{generation}
//	handoff_socket_claimed{socket,network,address}
//	handoff_upgrade_in_progress, handoff_staged_share_ratio
//	handoff_paused, handoff_held, handoff_stopping
//	handoff_disk_differs, handoff_disk_failed, handoff_disk_state{state}
//	handoff_last_upgrade_timestamp_seconds, handoff_last_upgrade_success
//	handoff_start_time_seconds                   when the counters began
//	handoff_upgrades_total{outcome}
//	handoff_fall_backs_total                     after the confirm
//	handoff_upgrade_duration_seconds{until}      histogram: until serving, confirmed
//	handoff_drain_duration_seconds               histogram
//	handoff_connections_migrated_total
//	handoff_connections_cut_total{state}
//
// Of a service with a library that does not count there are none of the last seven.
//
// [control.Totals]: https://pkg.go.dev/github.com/hdctl/handoff/upgrade/control#Totals
package metrics
