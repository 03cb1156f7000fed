package observe

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics are the numbers of one process. All methods may be called on nil, and
// do nothing then. Names and labels never hold a tenant, a job or anything else
// that grows with use.
type Metrics struct {
	registry *prometheus.Registry

	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	inFlight  prometheus.Gauge

	jobs        *prometheus.GaugeVec
	jobsEnded   *prometheus.CounterVec
	jobRetries  prometheus.Counter
	jobDuration prometheus.Histogram
	waited      prometheus.Histogram
	steps       *prometheus.HistogramVec

	workers      prometheus.Gauge
	workersEnded *prometheus.CounterVec
	workerStart  *prometheus.HistogramVec

	commits    *prometheus.HistogramVec
	commitRows *prometheus.HistogramVec
	queues     *depths
	outboxes   *depths

	spans        prometheus.Counter
	spansDropped prometheus.Counter
	alerts       *prometheus.CounterVec
	setAside     *prometheus.CounterVec
}

var (
	fast = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	slow = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}
	size = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}
)

func newMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		c := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	histogram := func(buckets []float64, name, help string, labels ...string) *prometheus.HistogramVec {
		c := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(c)
		return c
	}
	one := func(h *prometheus.HistogramVec) prometheus.Histogram {
		return h.WithLabelValues().(prometheus.Histogram)
	}

	m.requests = counter("fragua_http_requests_total", "Requests answered", "method", "route", "code")
	m.durations = histogram(fast, "fragua_http_request_duration_seconds", "Time to the end of an answer; streams are not timed", "method", "route")
	m.inFlight = gauge("fragua_http_requests_in_flight", "Requests that are being answered").WithLabelValues()

	m.jobs = gauge("fragua_jobs", "Jobs that have not ended, by state", "state")
	m.jobsEnded = counter("fragua_jobs_ended_total", "Jobs that have ended, by state", "state")
	m.jobRetries = counter("fragua_job_retries_total", "Attempts that were followed by another").WithLabelValues()
	m.jobDuration = one(histogram(slow, "fragua_job_duration_seconds", "Time from a job's first request to its end"))
	m.waited = one(histogram(fast, "fragua_scheduling_latency_seconds", "Time from an attempt's request to its assignment"))
	m.steps = histogram(slow, "fragua_step_duration_seconds", "Time that a try of a step took", "outcome")

	m.workers = gauge("fragua_workers", "Workers that live").WithLabelValues()
	m.workersEnded = counter("fragua_workers_ended_total", "Workers that have ended", "outcome")
	m.workerStart = histogram(fast, "fragua_worker_start_seconds", "Time to make a worker", "provider", "outcome")

	m.commits = histogram(fast, "fragua_db_commit_duration_seconds", "Time of one durable commit", "room")
	m.commitRows = histogram(size, "fragua_db_commit_transactions", "Transactions that shared one commit", "room")
	m.queues = newDepths("fragua_queue_depth", "What waits, by queue", "queue")
	m.outboxes = newDepths("fragua_outbox_depth", "Events on their way to their listeners, by room", "room")
	m.registry.MustRegister(m.queues, m.outboxes)

	m.spans = counter("fragua_spans_total", "Spans handed to the telemetry room").WithLabelValues()
	m.spansDropped = counter("fragua_spans_dropped_total", "Spans lost because the telemetry room did not keep up").WithLabelValues()
	m.alerts = counter("fragua_alerts_total", "Alerts raised", "severity")
	m.setAside = counter("fragua_events_set_aside_total", "Events that a room could not handle", "room")

	m.registry.MustRegister(collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled(), collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsMemory)), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, s := range liveStates {
		m.jobs.WithLabelValues(s)
	}
	return m
}

// liveStates are the states of a job that has not ended.
var liveStates = []string{"PENDING", "SCHEDULED", "RUNNING"}

// Gatherer yields all numbers, for whoever writes them out; it is empty for nil.
func (m *Metrics) Gatherer() prometheus.Gatherer {
	if m == nil {
		return prometheus.NewRegistry()
	}
	return m.registry
}

// Request counts an answered request. A duration of 0 is not timed.
func (m *Metrics) Request(method, route string, status int, took time.Duration) {
	if m == nil {
		return
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
	if took > 0 {
		m.durations.WithLabelValues(method, route).Observe(seconds(took))
	}
}

// Jobs says how many jobs are in a state that is no end.
func (m *Metrics) Jobs(state string, n int) {
	if m != nil {
		m.jobs.WithLabelValues(state).Set(float64(n))
	}
}

// JobEnded counts a job that ended in state, took after it was first asked for.
func (m *Metrics) JobEnded(state string, took time.Duration) {
	if m != nil {
		m.jobsEnded.WithLabelValues(state).Inc()
		m.jobDuration.Observe(seconds(took))
	}
}

// JobRetried counts an attempt that is followed by another.
func (m *Metrics) JobRetried() {
	if m != nil {
		m.jobRetries.Inc()
	}
}

// Placed times how long an attempt waited for its place.
func (m *Metrics) Placed(waited time.Duration) {
	if m != nil {
		m.waited.Observe(seconds(waited))
	}
}

// StepEnded times a try of a step; outcome is completed or failed.
func (m *Metrics) StepEnded(outcome string, took time.Duration) {
	if m != nil {
		m.steps.WithLabelValues(outcome).Observe(seconds(took))
	}
}

// Workers says how many workers live.
func (m *Metrics) Workers(n int) {
	if m != nil {
		m.workers.Set(float64(n))
	}
}

// WorkerEnded counts a worker that ended; outcome is terminated or failed.
func (m *Metrics) WorkerEnded(outcome string) {
	if m != nil {
		m.workersEnded.WithLabelValues(outcome).Inc()
	}
}

// WorkerMade times the making of a worker by a provider; err says whether it
// failed.
func (m *Metrics) WorkerMade(provider string, took time.Duration, err error) {
	if m == nil {
		return
	}
	outcome := "created"
	if err != nil {
		outcome = "failed"
	}
	m.workerStart.WithLabelValues(provider, outcome).Observe(seconds(took))
}

// Committed counts a commit of a room's database, which transactions shared.
func (m *Metrics) Committed(room string, transactions int, took time.Duration) {
	if m != nil {
		m.commits.WithLabelValues(room).Observe(seconds(took))
		m.commitRows.WithLabelValues(room).Observe(float64(transactions))
	}
}

// WatchQueue has depth asked for how much waits in a queue, whenever the numbers
// are read. It must be quick, and safe to call from any goroutine.
func (m *Metrics) WatchQueue(queue string, depth func() int) {
	if m != nil {
		m.queues.watch(queue, depth)
	}
}

// WatchOutbox has depth asked for how many events of a room are on their way. It
// must be quick, and safe to call from any goroutine.
func (m *Metrics) WatchOutbox(room string, depth func() int) {
	if m != nil {
		m.outboxes.watch(room, depth)
	}
}

// Alert counts an alert.
func (m *Metrics) Alert(severity string) {
	if m != nil {
		m.alerts.WithLabelValues(severity).Inc()
	}
}

// SetAside counts an event that a room could not handle.
func (m *Metrics) SetAside(room string) {
	if m != nil {
		m.setAside.WithLabelValues(room).Inc()
	}
}

// depths are gauges that are asked when they are read.
type depths struct {
	desc *prometheus.Desc
	mu   sync.Mutex
	ask  map[string]func() int
}

func newDepths(name, help, label string) *depths {
	return &depths{desc: prometheus.NewDesc(name, help, []string{label}, nil), ask: map[string]func() int{}}
}

func (d *depths) watch(of string, ask func() int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ask[of] = ask
}

// Describe is a prometheus.Collector's.
func (d *depths) Describe(out chan<- *prometheus.Desc) { out <- d.desc }

// Collect is a prometheus.Collector's.
func (d *depths) Collect(out chan<- prometheus.Metric) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for of, ask := range d.ask {
		out <- prometheus.MustNewConstMetric(d.desc, prometheus.GaugeValue, float64(ask()), of)
	}
}

func seconds(d time.Duration) float64 { return d.Seconds() }
