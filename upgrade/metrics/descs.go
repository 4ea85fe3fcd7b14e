package metrics

import "github.com/prometheus/client_golang/prometheus"

// descs describe the metrics of one service.
type descs struct {
	service prometheus.Labels
	all     []*prometheus.Desc

	up, main, info *prometheus.Desc

	connections, memory, oldest, deadline *prometheus.Desc // of a generation

	generation, generations, socketClaimed *prometheus.Desc
	inProgress, share                      *prometheus.Desc
	paused, held, stopping                 *prometheus.Desc
	diskDiffers, diskFailed, diskState     *prometheus.Desc
	lastTime, lastSuccess                  *prometheus.Desc
	start, upgrades, fallBacks             *prometheus.Desc
	upgradeDuration, drainDuration         *prometheus.Desc
	connectionsMigrated, connectionsCut    *prometheus.Desc
}

func newDescs(service string) descs {
	d := descs{service: prometheus.Labels{"service": service}}
	d.up = d.add("up", "Whether the service has answered.")
	d.main = d.add("main", "Whether the main generation has answered. If not, only what is about the one that did is here.")
	d.info = d.add("info", "What runs: version of the service, version of its handoff library, and number of the generation. Always 1.", "version", "library", "generation")

	d.connections = d.add("connections", "Open connections, by generation and by what they are doing.", "generation", "state")
	d.memory = d.add("resident_memory_bytes", "Resident memory of a generation.", "generation")
	d.oldest = d.add("oldest_connection_timestamp_seconds", "When the oldest open connection of a generation was accepted.", "generation")
	d.deadline = d.add("drain_deadline_timestamp_seconds", "When a draining generation ends the connections that are left.", "generation")

	d.generation = d.add("generation", "Number of the main generation.")
	d.generations = d.add("generations", "Generations whose process lives, by state.", "state")
	d.socketClaimed = d.add("socket_claimed", "Whether the running version serves the socket. If not, clients wait in vain.", "socket", "network", "address")
	d.inProgress = d.add("upgrade_in_progress", "Whether an upgrade is in progress, a staged one included.")
	d.share = d.add("staged_share_ratio", "Share of the new connections that the new generation of a staged upgrade gets. 0: none is staged.")
	d.paused = d.add("paused", "Whether an operator has upgrades refused.")
	d.held = d.add("held", "Whether an operator has closed the door: nothing is accepted.")
	d.stopping = d.add("stopping", "Whether the service is being stopped.")
	d.diskDiffers = d.add("disk_differs", "Whether the file that a restart would start is not the one that runs, or cannot be started.")
	d.diskFailed = d.add("disk_failed", "Whether the file that a restart would start is the one with which the last upgrade failed.")
	d.diskState = d.add("disk_state", "How the file that a restart would start compares with the one that runs.", "state")
	d.lastTime = d.add("last_upgrade_timestamp_seconds", "When the last upgrade ended, good or bad, since systemd started the service.")
	d.lastSuccess = d.add("last_upgrade_success", "Whether the last upgrade was confirmed, and still is.")

	d.start = d.add("start_time_seconds", "When the counters of the service began: its start by systemd. They go on at upgrades.")
	d.upgrades = d.add("upgrades_total", "Upgrades that have ended, by outcome.", "outcome")
	d.fallBacks = d.add("fall_backs_total", "Times that the old generation had to serve again after its successor was confirmed.")
	d.upgradeDuration = d.add("upgrade_duration_seconds", "Time from the trigger of a confirmed upgrade until its new generation was serving, or confirmed.", "until")
	d.drainDuration = d.add("drain_duration_seconds", "Time that old generations have drained that are gone.")
	d.connectionsMigrated = d.add("connections_migrated_total", "Connections that were handed to a later generation.")
	d.connectionsCut = d.add("connections_cut_total", "Connections that a deadline has ended, by what they were doing.", "state")
	return d
}

func (d *descs) add(name, help string, labels ...string) *prometheus.Desc {
	desc := prometheus.NewDesc("handoff_"+name, help, labels, d.service)
	d.all = append(d.all, desc)
	return desc
}
