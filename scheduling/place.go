package scheduling

import (
	"crypto/sha256"
	"encoding/base32"
	"strconv"
	"time"

	"fragua.dev/fragua/contract/event"
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// A State is how far an attempt has come with its place.
type State string

// The states.
const (
	Pending  State = "PENDING"  // in the queue
	Created  State = "CREATED"  // has a node
	Rejected State = "REJECTED" // in the queue, and no node there is could ever take it
	Revoked  State = "REVOKED"  // left the queue without a place, or had to give it back
)

// A place is what the room knows of one attempt: in the queue, on a node, or done.
type place struct {
	Waiting
	id       ident.Assignment
	state    State
	body     body
	node     ident.Node
	offer    ident.Offer
	provider string
	reason   string
	rejected bool // has been said
	started  bool // a worker was made
	round    int  // how often it was said again
	placed   time.Time
	said     time.Time
	ended    time.Time

	stored  bool // there is a row
	touched bool // the row has to be written in this turn
	noted   bool // the row says started
}

// body is the part of a place that is only passed on.
type body struct {
	Affinity    spec.Affinity     `json:"affinity"`
	Image       string            `json:"image,omitempty"`
	SecretRefs  []string          `json:"secret_refs,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Correlation string            `json:"correlation_id,omitempty"`
	TraceParent string            `json:"traceparent,omitempty"`
}

func (p *place) waits() bool { return p.node == "" && p.ended.IsZero() }

type jobKey struct {
	tenant ident.Tenant
	job    ident.Job
}

func (p *place) key() jobKey { return jobKey{p.Tenant, p.Job} }

var digits = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// assignmentID follows from the attempt. The digest keeps apart tenants that
// chose the same job id, and job ids that were too long to be repeated whole.
func assignmentID(a Attempt) ident.Assignment {
	n := strconv.Itoa(a.N)
	sum := sha256.Sum256([]byte(string(a.Tenant) + "\x00" + string(a.Job) + "\x00" + n))
	job := string(a.Job)
	return ident.Assignment("asg_" + job[:min(len(job), 80)] + "_" + n + "_" + digits.EncodeToString(sum[:8]))
}

// fromRequest returns the place that a JobRequested asks for.
func fromRequest(e event.Event, d event.JobRequest) place {
	p := place{
		Waiting: Waiting{
			Attempt: Attempt{e.Tenant, d.Job, d.Attempt},
			Order:   Order{Priority: d.Priority, Since: e.Time.UnixNano()},
			Ask:     Ask{Resources: d.Spec.Resources},
		},
		state: Pending,
		body: body{
			Image: d.Spec.Image, SecretRefs: d.Spec.SecretRefs, Correlation: e.CorrelationID, TraceParent: e.TraceParent,
			Labels: map[string]string{"fragua.dev/job": string(d.Job), "fragua.dev/attempt": strconv.Itoa(d.Attempt)},
		},
	}
	if d.Spec.Affinity != nil {
		p.Ask.Affinity = *d.Spec.Affinity
	}
	if d.Pipeline != "" {
		p.body.Labels["fragua.dev/pipeline"] = string(d.Pipeline)
	}
	if d.Run != "" {
		p.body.Labels["fragua.dev/run"] = string(d.Run)
	}
	p.Ask.Resources = atLeast(p.Ask.Resources)
	p.body.Affinity = p.Ask.Affinity
	p.id = assignmentID(p.Attempt)
	return p
}

// atLeast returns q with the defaults of what nobody does without, and a worker.
func atLeast(q spec.Quota) spec.Quota {
	q.Workers = 1
	if q.CPUm == 0 {
		q.CPUm = spec.DefaultCPUm
	}
	if q.MemoryMB == 0 {
		q.MemoryMB = spec.DefaultMemoryMB
	}
	return q
}

// about says what an event of p is about. What is said again gets another id.
func (p *place) about(now time.Time) event.About {
	twist := strconv.Itoa(p.N)
	if p.round > 0 {
		twist += ".r" + strconv.Itoa(p.round)
	}
	return event.About{Tenant: p.Tenant, Key: string(p.Job), Twist: twist,
		Correlation: p.body.Correlation, TraceParent: p.body.TraceParent, At: now}
}

func (p *place) createdEvent(now time.Time) event.Event {
	return event.AssignmentCreated.Event(p.about(now), event.Assignment{
		Assignment: p.id, Job: p.Job, Node: p.node, Policy: Policy, Attempt: p.N, Offer: p.offer, Provider: p.provider,
		Runtime: spec.RuntimeSpec{Image: p.body.Image, Limits: p.Ask.Resources, Labels: p.body.Labels, SecretRefs: p.body.SecretRefs},
	})
}

func (p *place) rejection() event.Rejection {
	return event.Rejection{Assignment: p.id, Reason: p.reason, Job: p.Job, Attempt: p.N}
}
