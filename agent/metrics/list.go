package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// A Kind is what a metric's numbers do.
type Kind string

// The kinds.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
)

// Metric is one of the list: what its series are called and what they say. Documents, alerts and the dashboard are made from it.
type Metric struct {
	Section string // of the documents and the dashboard
	Kind    Kind
	Name    string
	Title   string // of its panel
	Help    string
	Labels  []string
	Query   string // of its panel, where that is not what its kind says

	desc *prometheus.Desc
}

var list []*Metric

// List returns every metric, in the order in which they are shown. Beside them there are those of client_golang about the process
// (process_*) and Go's runtime (go_*).
func List() []*Metric { return slices.Clone(list) }

func add(section string, k Kind, name, title, help string, labels ...string) *Metric {
	m := &Metric{Section: section, Kind: k, Name: "nemoclaw_" + name, Title: title, Help: help, Labels: labels}
	m.desc = prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
	list = append(list, m)
	return m
}

// shown has the panel show something else than the metric itself.
func (m *Metric) shown(query string) *Metric {
	m.Query = query
	return m
}

// The metrics.
var (
	decisions = add("Decisions", Counter, "decisions_total", "Decisions",
		"Decisions that were recorded, each attempt of a flood among them, since the daemon began.", "sandbox", "plane", "verdict")
	kernelDecisions = add("Decisions", Counter, "kernel_decisions_total", "Decisions in the kernel",
		"Decisions of the BPF programs since the sandbox was started, whether or not an event told of them. Packets that pass are not counted.", "sandbox", "hook", "verdict")
	strays = add("Decisions", Counter, "stray_refusals_total", "Refused outside of any sandbox",
		"Refusals of processes below the cgroup of all sandboxes that are in none, since the BPF programs were loaded.", "hook")
	eventsLost = add("Decisions", Counter, "events_lost_total", "Events that the ring had no room for",
		"Events of the kernel that the ring had no room for. What they were about was judged all the same.", "sandbox")
	eventsSuppressed = add("Decisions", Counter, "events_suppressed_total", "Events held back",
		"Events of the kernel that were held back because one hook had too many in a second. What they were about was judged all the same.", "sandbox")
	recordsFolded = add("Decisions", Counter, "records_folded_total", "Records folded",
		"Records that were not written one by one but as a count, because there were too many at once.", "sandbox")

	held = add("Approvals", Gauge, "approvals_held", "Attempts that wait",
		"Attempts that wait for a person now.", "sandbox")
	open = add("Approvals", Gauge, "approvals_open", "Requests to answer",
		"Requests that a person can answer: of what waits, and of what was refused.", "sandbox")
	waited = add("Approvals", Histogram, "approval_wait_seconds", "Waiting for a person",
		"How long attempts waited for a person, by how that ended.", "sandbox", "outcome")
	unlisted = add("Approvals", Counter, "approvals_unlisted_total", "Denied without being listed",
		"Attempts that were denied without a request that could be answered, because there were too many.", "sandbox")

	conns = add("Network", Counter, "proxy_connections_total", "Connections",
		"Connections that came to the sandbox's proxy, by what became of them.", "sandbox", "outcome")
	connsOpen = add("Network", Gauge, "proxy_connections_open", "Open connections",
		"Connections that the sandbox's proxy has open.", "sandbox")
	bytes = add("Network", Counter, "proxy_bytes_total", "Bytes relayed",
		"Bytes that the sandbox's proxy relayed: sent to servers, received from them.", "sandbox", "direction")
	setup = add("Network", Histogram, "proxy_setup_seconds", "Time until a connection is relayed",
		"From a connection's coming to the server's answering it, without what a person took to allow it.", "sandbox")
	queries = add("Network", Counter, "dns_queries_total", "DNS queries",
		"Queries to the sandbox's resolver, by what they were answered with.", "sandbox", "outcome")

	modelRequests = add("Inference", Counter, "inference_requests_total", "Requests to models",
		"Requests to a model, by the route that the policy chose and how they ended; those that no model was asked are of the model none.", "sandbox", "model", "route", "outcome")
	modelTokens = add("Inference", Counter, "inference_tokens_total", "Tokens",
		"Tokens that a model took: input of prompts, output of answers.", "sandbox", "model", "direction")
	modelTime = add("Inference", Histogram, "inference_seconds", "Time to an answer's end",
		"From a request's going to a model to its answer's end.", "sandbox", "model")
	modelFirst = add("Inference", Histogram, "inference_first_token_seconds", "Time to the first token",
		"From a request's going to a model to the first token, where the answer is a stream.", "sandbox", "model")
	modelUp = add("Inference", Gauge, "inference_model_up", "Models that answer",
		"0 while a model is known to be down, else 1.", "sandbox", "model")

	cpu = add("Resources", Counter, "sandbox_cpu_seconds_total", "CPU time",
		"CPU time of everything inside, since the sandbox was started.", "sandbox")
	memory = add("Resources", Gauge, "sandbox_memory_bytes", "Memory",
		"Memory of everything inside, the kernel's for it among it.", "sandbox")
	memoryLimit = add("Resources", Gauge, "sandbox_memory_limit_bytes", "Limit of memory",
		"How much memory the sandbox may have.", "sandbox")
	oomKills = add("Resources", Counter, "sandbox_oom_kills_total", "Killed for memory",
		"Processes inside that were killed because there was no memory left.", "sandbox")
	processes = add("Resources", Gauge, "sandbox_processes", "Processes",
		"Processes inside, the sandbox's init among them.", "sandbox")
	tasks = add("Resources", Gauge, "sandbox_pids", "Process ids in use",
		"Threads inside, each of which takes one of the ids that the sandbox may have.", "sandbox")
	taskLimit = add("Resources", Gauge, "sandbox_pids_limit", "Limit of process ids",
		"How many threads the sandbox may have.", "sandbox")
	disk = add("Resources", Counter, "sandbox_io_bytes_total", "Disk",
		"Bytes read from and written to disks. With cgroups v1 what the kernel writes later is not counted.", "sandbox", "operation")

	gpuInfo = add("GPU", Gauge, "gpu_info", "GPUs",
		"1, with what the GPU is and the version of its driver. A host without a driver has no series of GPUs.", "gpu", "uuid", "name", "driver")
	gpuHealth = add("GPU", Gauge, "gpu_health", "Health of GPUs",
		"1 for the state that the GPU is in, 0 for the others; `nemoclaw gpus` says why it is not ok.", "gpu", "uuid", "health")
	gpuBusy = add("GPU", Gauge, "gpu_utilisation_ratio", "Utilisation of GPUs",
		"Which part of the time the GPU's processors had something to do, lately.", "gpu", "uuid")
	gpuMemoryBusy = add("GPU", Gauge, "gpu_memory_utilisation_ratio", "Utilisation of GPU memory's bandwidth",
		"Which part of the time the GPU's memory was read or written, lately.", "gpu", "uuid")
	gpuMemory = add("GPU", Gauge, "gpu_memory_bytes", "GPU memory",
		"Memory of the GPU that is in use; of one that shares the host's, the host's.", "gpu", "uuid")
	gpuMemorySize = add("GPU", Gauge, "gpu_memory_size_bytes", "Size of GPU memory",
		"How much memory the GPU has; of one that shares the host's, the host's.", "gpu", "uuid")
	gpuPower = add("GPU", Gauge, "gpu_power_watts", "Power of GPUs",
		"What the GPU takes.", "gpu", "uuid")
	gpuPowerLimit = add("GPU", Gauge, "gpu_power_limit_watts", "Limit of power",
		"What the GPU may take.", "gpu", "uuid")
	gpuTemperature = add("GPU", Gauge, "gpu_temperature_celsius", "Temperature of GPUs",
		"How hot the GPU is.", "gpu", "uuid")
	gpuECC = add("GPU", Counter, "gpu_ecc_errors_total", "Errors of GPU memory",
		"Errors of the GPU's memory since its driver was loaded, where they are looked for (ECC).", "gpu", "uuid", "kind")
	gpuXIDs = add("GPU", Counter, "gpu_xid_errors_total", "XID errors of GPUs",
		"Errors that the driver reported of the GPU since the daemon was started, by NVIDIA's number for their kind (XID); other: kinds beyond the first 32.", "gpu", "uuid", "xid")
	boxGPUMemory = add("GPU", Gauge, "sandbox_gpu_memory_bytes", "GPU memory of sandboxes",
		"Memory of a GPU, or of the instance of one (MIG), that the sandbox's processes have.", "sandbox", "gpu", "uuid")
	boxGPUBusy = add("GPU", Gauge, "sandbox_gpu_utilisation_ratio", "Utilisation by sandboxes",
		"Which part of the time a GPU's processors worked for the sandbox, lately. The driver does not know it of an instance.", "sandbox", "gpu", "uuid")

	state = add("Daemon", Gauge, "sandbox_state", "Sandboxes by state",
		"1 for the state that the sandbox is in, 0 for the others.", "sandbox", "state").
		shown(`sum by (state) (nemoclaw_sandbox_state{sandbox=~"$sandbox"})`)
	started = add("Daemon", Gauge, "sandbox_start_time_seconds", "Time since the start",
		"When the sandbox was started, in seconds since 1970.", "sandbox").
		shown(`time() - nemoclaw_sandbox_start_time_seconds{sandbox=~"$sandbox"}`)
	build = add("Daemon", Gauge, "build_info", "Version",
		"1, with the daemon's version and the enforcement level of this host.", "version", "level")
	auditOK = add("Daemon", Gauge, "audit_ok", "Audit log",
		"1 while decisions can be written down.")
	auditRecords = add("Daemon", Counter, "audit_records_total", "Records written",
		"Records of the audit log, all that there ever were.")
	auditLost = add("Daemon", Counter, "audit_records_lost_total", "Records that a full disk took",
		"Records that were not written down because the disk was full, with audit_full: drop, since the daemon began.")
	forwardLag = add("Daemon", Gauge, "forward_lag_records", "Records that a receiver has not",
		"Records of the audit log that the receiver was not given yet, of those that its filter passes over too.", "receiver")
	forwardBehind = add("Daemon", Gauge, "forward_lag_seconds", "Age of what a receiver has not",
		"Age of the oldest record that could not be given to the receiver; 0 where it has all.", "receiver")
	forwardUp = add("Daemon", Gauge, "forward_up", "Receivers that take records",
		"0 while what was last sent to the receiver did not arrive, else 1.", "receiver")
	forwardLost = add("Daemon", Counter, "forward_lost_records_total", "Records that a receiver never gets",
		"Records that the receiver refused for ever, or that were removed before it had them, since the daemon began. The audit log has those that were refused.", "receiver", "cause")
	tracesSent = add("Daemon", Counter, "traces_spans_sent_total", "Spans sent",
		"Spans of traces that the collector took, since the daemon began. Without traces in agent.yaml there is no such series.")
	tracesLost = add("Daemon", Counter, "traces_spans_lost_total", "Spans lost",
		"Spans of traces that the collector never gets, since the daemon began: full, there was no room for more while it did not take them; refused, it does not take them.", "cause")
	tracesUp = add("Daemon", Gauge, "traces_up", "The collector takes traces",
		"0 while what was last sent to the collector did not arrive, else 1.")
	missed = add("Daemon", Counter, "subscriber_records_lost_total", "Records that followers missed",
		"Records that followers of events were too slow for. The audit log has them.")
	errorsSaid = add("Daemon", Counter, "errors_total", "Errors",
		"Errors and warnings that the daemon wrote to its journal.", "severity")
	lastError = add("Daemon", Gauge, "last_error_timestamp_seconds", "Last error",
		"When the daemon last wrote an error to its journal, in seconds since 1970; 0: never.")
	unread = add("Daemon", Gauge, "unread", "Could not be read",
		"How many things of this scrape could not be read. The journal says which.")

	mapEntries = add("BPF", Gauge, "bpf_map_entries", "Entries of BPF maps",
		"Entries of a map of the BPF programs, of all daemons that share them.", "map")
	mapCapacity = add("BPF", Gauge, "bpf_map_capacity", "Room of BPF maps",
		"How many entries the map has room for.", "map")
	measured = add("BPF", Gauge, "bpf_stats_enabled", "Programs are measured",
		"1 while the kernel measures BPF programs (sysctl kernel.bpf_stats_enabled), which the daemon never has it do.")
	programTime = add("BPF", Counter, "bpf_program_run_seconds_total", "Time of BPF programs",
		"How long the program ran in all, while the kernel measured it.", "program")
	programRuns = add("BPF", Counter, "bpf_program_runs_total", "Runs of BPF programs",
		"How often the program ran, while the kernel measured it.", "program")
)
