package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/common/expfmt"

	"fragua.dev/fragua/contract/authz"
)

// Routes registers the operations of telemetry.
func (r *Room) Routes(api huma.API) {
	tags := []string{"telemetry"}
	schema := api.OpenAPI().Components.Schemas
	huma.Register(api, huma.Operation{
		OperationID: "metrics", Method: http.MethodGet, Path: "/metrics", Tags: tags,
		Summary: "Numbers of this server",
		Description: "OpenMetrics text for scrapers. With Accept: application/json, the last hour of each series, " +
			"a reading every ten seconds; of a histogram its count and its sum.",
		Responses: map[string]*huma.Response{"200": {Description: "The numbers", Content: map[string]*huma.MediaType{
			openMetrics:        {Schema: &huma.Schema{Type: huma.TypeString}},
			"text/plain":       {Schema: &huma.Schema{Type: huma.TypeString}},
			"application/json": {Schema: huma.SchemaFromType(schema, typeOf[metricsBody]())},
		}}},
	}, r.metrics)
	huma.Register(api, huma.Operation{
		OperationID: "list-spans", Method: http.MethodGet, Path: "/traces", Tags: tags,
		Summary:     "Spans of recent work",
		Description: "Of a job: all spans of its trace that are the job's or no job's, oldest first. Without job_id and trace_id: the latest.",
	}, r.traces)
}

const openMetrics = "application/openmetrics-text"

type metricsIn struct {
	Accept string `header:"Accept"`
	Name   string `query:"name" maxLength:"256" doc:"Only this series; for application/json"`
	Since  string `query:"since" maxLength:"64" doc:"Only readings from this time on, as RFC 3339, or a duration before now such as 5m; for application/json" example:"5m"`
}

type metricsOut struct {
	Type string `header:"Content-Type"`
	Body []byte
}

// metricsBody is the answer in JSON.
type metricsBody struct {
	Items []seriesBody `json:"items" nullable:"false"`
	Next  string       `json:"next_cursor"`
}

type seriesBody struct {
	Name    string            `json:"name"`
	Kind    string            `json:"type" enum:"counter,gauge,histogram"`
	Labels  map[string]string `json:"labels"`
	Samples []sampleBody      `json:"samples" nullable:"false"`
}

type sampleBody struct {
	Time  time.Time `json:"time"`
	Value float64   `json:"value"`
}

func (r *Room) metrics(ctx context.Context, in *metricsIn) (*metricsOut, error) {
	since, err := r.moment(in.Since)
	if err != nil {
		return nil, err
	}
	if err := r.gate.Pass(ctx, "Telemetry::read", authz.Resource{Type: "Telemetry", ID: "metrics", Tenant: authz.From(ctx).Tenant}); err != nil {
		return nil, err
	}
	if wantsJSON(in.Accept) {
		return r.query(in.Name, since)
	}
	families, err := r.cfg.Observe.Metrics().Gatherer().Gather()
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	format, err := expfmt.NewOpenMetricsFormat(expfmt.OpenMetricsVersion_1_0_0)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	if strings.Contains(in.Accept, "text/plain") && !strings.Contains(in.Accept, openMetrics) {
		format = expfmt.NewFormat(expfmt.TypeTextPlain)
	}
	var b bytes.Buffer
	enc := expfmt.NewEncoder(&b, format)
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return nil, fmt.Errorf("telemetry: %w", err)
		}
	}
	if c, ok := enc.(io.Closer); ok { // writes # EOF
		if err := c.Close(); err != nil {
			return nil, fmt.Errorf("telemetry: %w", err)
		}
	}
	return &metricsOut{string(format), b.Bytes()}, nil
}

// wantsJSON says whether a client would rather have JSON than text.
func wantsJSON(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(part, ";")
		switch strings.TrimSpace(media) {
		case "application/json":
			return true
		case openMetrics, "text/plain", "*/*", "text/*":
			return false
		}
	}
	return false
}

// moment reads a time, or how long ago it was; none is the beginning.
func (r *Room) moment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	d, err := time.ParseDuration(strings.TrimPrefix(s, "-"))
	if err != nil || d < 0 {
		return time.Time{}, huma.Error422UnprocessableEntity("the input is not valid",
			&huma.ErrorDetail{Location: "query.since", Message: "want a time such as 2026-11-24T10:00:00Z, or a duration such as 5m"})
	}
	return r.cfg.Now().Add(-d), nil
}

func (r *Room) query(name string, since time.Time) (*metricsOut, error) {
	now, err := r.read()
	if err != nil {
		return nil, err
	}
	out := metricsBody{Items: []seriesBody{}}
	latest := map[string]reading{}
	for _, s := range now {
		latest[key(s)] = s.readings[0]
		if name == "" || s.name == name {
			r.ring.meet(s)
		}
	}
	for _, s := range r.ring.find(name, since) {
		b := seriesBody{Name: s.name, Kind: s.kind, Labels: s.labels, Samples: []sampleBody{}}
		for _, p := range s.readings {
			b.add(p)
		}
		if p, lives := latest[key(s)]; lives { // what it reads at this moment
			b.add(p)
		}
		out.Items = append(out.Items, b)
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	return &metricsOut{"application/json", append(body, '\n')}, nil
}

// add adds a reading that JSON can hold.
func (b *seriesBody) add(p reading) {
	if !math.IsNaN(p.value) && !math.IsInf(p.value, 0) {
		b.Samples = append(b.Samples, sampleBody{p.at, p.value})
	}
}
