package telemetry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/internal/observe"
	"fragua.dev/fragua/internal/sqldb"
)

// Bounds of what is remembered of the numbers: an hour, unless samples are taken
// more often than every ten seconds.
const (
	maxSeries  = 2000
	maxSamples = 360
)

// A reading is one number at one time.
type reading struct {
	at    time.Time
	value float64
}

// A series is one number over time.
type series struct {
	name, kind string
	labels     map[string]string
	readings   []reading // in order; the oldest goes when there are too many
}

// ring remembers the latest readings of every series.
type ring struct {
	mu  sync.Mutex
	all map[string]*series
}

func newRing() *ring { return &ring{all: map[string]*series{}} }

// add takes readings of all numbers at one time.
func (r *ring) add(now []series) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range now {
		k := key(s)
		had := r.all[k]
		if had == nil {
			if len(r.all) >= maxSeries {
				continue
			}
			had = &series{name: s.name, kind: s.kind, labels: s.labels}
			r.all[k] = had
		}
		if len(had.readings) == maxSamples && len(s.readings) > 0 {
			copy(had.readings, had.readings[1:])
			had.readings = had.readings[:maxSamples-1]
		}
		had.readings = append(had.readings, s.readings...)
	}
}

// meet makes a series known that no sample has held yet.
func (r *ring) meet(s series) {
	s.readings = nil
	r.add([]series{s})
}

// find returns the series called name, or all for "", with what they read since.
func (r *ring) find(name string, since time.Time) []series {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []series
	for _, s := range r.all {
		if name != "" && s.name != name {
			continue
		}
		from, _ := slices.BinarySearchFunc(s.readings, since, func(a reading, t time.Time) int { return a.at.Compare(t) })
		out = append(out, series{s.name, s.kind, s.labels, slices.Clone(s.readings[from:])})
	}
	slices.SortFunc(out, func(a, b series) int { return cmp.Compare(key(a), key(b)) })
	return out
}

// key tells series apart, and sorts them.
func key(s series) string {
	var b strings.Builder
	b.WriteString(s.name)
	for _, k := range slices.Sorted(maps.Keys(s.labels)) {
		fmt.Fprintf(&b, "\x00%s=%s", k, s.labels[k])
	}
	return b.String()
}

// read reads all numbers. Of a histogram it reads how many there were, and their
// sum.
func (r *Room) read() ([]series, error) {
	families, err := r.cfg.Observe.Metrics().Gatherer().Gather()
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	now := r.cfg.Now().UTC()
	var out []series
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := make(map[string]string, len(m.GetLabel()))
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			one := func(suffix, kind string, v float64) {
				out = append(out, series{f.GetName() + suffix, kind, labels, []reading{{now, v}}})
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				one("", "counter", m.GetCounter().GetValue())
			case dto.MetricType_GAUGE:
				one("", "gauge", m.GetGauge().GetValue())
			case dto.MetricType_HISTOGRAM:
				one("_count", "histogram", float64(m.GetHistogram().GetSampleCount()))
				one("_sum", "histogram", m.GetHistogram().GetSampleSum())
			case dto.MetricType_SUMMARY:
				one("_count", "histogram", float64(m.GetSummary().GetSampleCount()))
				one("_sum", "histogram", m.GetSummary().GetSampleSum())
			}
		}
	}
	return out, nil
}

// sample remembers what all numbers read now.
func (r *Room) sample() error {
	now, err := r.read()
	if err == nil {
		r.ring.add(now)
	}
	return err
}

// mainOnes are told by events; for all others one must ask.
var mainOnes = map[string]bool{
	"fragua_jobs": true, "fragua_jobs_ended_total": true, "fragua_queue_depth": true, "fragua_outbox_depth": true, "fragua_workers": true,
	"fragua_scheduling_latency_seconds_count": true, "fragua_scheduling_latency_seconds_sum": true,
	"fragua_step_duration_seconds_count": true, "fragua_step_duration_seconds_sum": true,
}

const maxEmitted = 100 // measurements told at once

// emit tells the house the main numbers.
func (r *Room) emit(ctx context.Context) error {
	now, err := r.read()
	if err != nil {
		return err
	}
	var events []event.Event
	for _, s := range now {
		if !mainOnes[s.name] || len(events) == maxEmitted {
			continue
		}
		v := s.readings[0]
		at, end := observe.EmitMetric(ctx, house, s.name, v.value, s.labels)
		id := r.cfg.IDs("met")
		events = append(events, event.MetricEmitted.Event(
			event.About{Tenant: house, Key: id, Correlation: id, TraceParent: observe.TraceParent(at), At: v.at},
			event.Metric{Name: s.name, Value: v.value, Kind: s.kind, Tags: s.labels, At: v.at}))
		end(nil)
	}
	if len(events) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	if err := r.db.Write(ctx, func(tx *sqldb.Tx) error { return tx.Emit(events...) }); err != nil {
		return fmt.Errorf("metrics are not told: %w", err)
	}
	return nil
}
