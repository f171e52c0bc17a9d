package kemi_test

import (
	"context"
	"strings"
	"testing"

	"github.com/kemi-go/kemi"
)

// named is a topic for the topology: it has the same name on both of its sides.
type named string

func (n named) String() string                             { return string(n) }
func (n named) Write(context.Context, []item) error        { return nil }
func (n named) Run(context.Context, kemi.Sink[item]) error { return nil }
func (n named) Group() kemi.Source[item]                   { return group{n, true} }
func (n named) All() kemi.Source[item]                     { return group{n, false} }

// group is the reading side of named.
type group struct {
	named
	shared bool
}

func (g group) Shares() bool { return g.shared }

// plain is a sink without a name.
type plain struct{ _ int }

func (*plain) Write(context.Context, []item) error { return nil }

// total is a rule that sums over hosts; forking, it would be two things at once.
type total struct{ aggregates, forks bool }

func (total) String() string     { return "total" }
func (a total) Aggregates() bool { return a.aggregates }
func (total) Apply(_ context.Context, dst, src []item) ([]item, error) {
	return append(dst, src...), nil
}

func (a total) Fork() kemi.Transform[item, item] {
	if a.forks {
		return a
	}
	return nil
}

func TestTheTopologyIsAMermaidFlowchart(t *testing.T) {
	raw, metrics := named("topic raw"), named(`topic "metrics"`)
	tsdb, other := &plain{}, &plain{}
	p := &kemi.Pipeline{Flows: []*kemi.Flow{
		kemi.Connect("poll", once[item](), raw),
		kemi.Connect("push", once[item](), raw),
		kemi.Pipe("calculate", raw.Group(), kemi.Transform[item, item](total{}), metrics),
		kemi.Connect("store", metrics.Group(), tsdb),
		kemi.Connect("again", metrics.Group(), tsdb),
		kemi.Connect("elsewhere", metrics.Group(), other),
	}}
	want := `flowchart LR
    n0["kemi.SourceFunc[github.com/kemi-go/kemi_test.item]"]
    n1["topic raw"]
    n0 -->|"poll"| n1
    n2["kemi.SourceFunc[github.com/kemi-go/kemi_test.item]"]
    n2 -->|"push"| n1
    n3["topic 'metrics'"]
    n1 -->|"calculate: total"| n3
    n4["kemi_test.plain"]
    n3 -->|"store"| n4
    n3 -->|"again"| n4
    n5["kemi_test.plain"]
    n3 -->|"elsewhere"| n5
`
	if got := p.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestAWrongWiringIsRefusedAtStart asks Run, which must not have started anything,
// for words that say what to do.
func TestAWrongWiringIsRefusedAtStart(t *testing.T) {
	var noSource kemi.Source[item]
	var noSink kemi.Sink[item]
	var noTransform kemi.Transform[item, item]
	topic := named("topic metrics")
	sum := kemi.Transform[item, item](total{aggregates: true})
	for name, c := range map[string]struct {
		flows []*kemi.Flow
		want  []string
	}{
		"no flows":  {nil, []string{"has no flows"}},
		"nil flow":  {[]*kemi.Flow{nil}, []string{"flow 0 is nil"}},
		"zero flow": {[]*kemi.Flow{{}}, []string{"flow 0 is nil"}},
		"no name":   {[]*kemi.Flow{kemi.Connect("", topic.Group(), topic)}, []string{"a flow from topic metrics to topic metrics has no name"}},
		"no stages": {[]*kemi.Flow{kemi.Connect("f", noSource, noSink)}, []string{`flow "f" has no source`, `flow "f" has no sink`}},
		"no transform": {[]*kemi.Flow{kemi.Pipe("f", topic.Group(), noTransform, topic)},
			[]string{`flow "f" has no transform`, "use Connect"}},
		"one name twice": {[]*kemi.Flow{kemi.Connect("f", topic.Group(), topic), kemi.Connect("f", topic.Group(), topic)},
			[]string{`two flows are called "f"`}},
		"a part of what it adds up": {[]*kemi.Flow{kemi.Pipe("rules", topic.Group(), sum, topic)},
			[]string{`flow "rules"`, "total", "needs the whole topic", "All instead of Group"}},
		"adds up in forks": {[]*kemi.Flow{kemi.Pipe("rules", topic.All(), kemi.Transform[item, item](total{true, true}), topic)},
			[]string{`flow "rules"`, "a fork sees a part only"}},
		"several at once": {[]*kemi.Flow{kemi.Connect("", topic.Group(), topic), kemi.Connect("g", topic.Group(), noSink)},
			[]string{"has no name", `flow "g" has no sink`}},
	} {
		t.Run(name, func(t *testing.T) {
			started := false
			src := kemi.SourceFunc[item](func(context.Context, kemi.Sink[item]) error { started = true; return nil })
			p := &kemi.Pipeline{Name: "stats", Flows: c.flows}
			if c.flows != nil {
				p.Flows = append([]*kemi.Flow{kemi.Connect("good", src, topic)}, c.flows...)
				if c.flows[0] == nil || *c.flows[0] == (kemi.Flow{}) {
					p.Flows = c.flows
				}
			}
			err := p.Run(t.Context())
			if err == nil {
				t.Fatal("Run returned nil")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("Run: %v; want word of %q", err, w)
				}
			}
			if started {
				t.Error("a flow was started")
			}
		})
	}
}

func TestTheWholeTopicMayBeAddedUp(t *testing.T) {
	topic := named("topic metrics")
	sum := kemi.Transform[item, item](total{aggregates: true})
	run(t,
		kemi.Pipe("all", topic.All(), sum, topic),
		kemi.Pipe("not shared", once[item](), sum, topic),
		kemi.Pipe("does not add up", topic.Group(), kemi.Transform[item, item](total{}), topic),
	)
}

func TestAFlowRunsOnce(t *testing.T) {
	f := kemi.Connect("f", once(items(0, 3)), nowhere[item]())
	run(t, f)
	err := (&kemi.Pipeline{Flows: []*kemi.Flow{f}}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), `"f" was started before`) {
		t.Errorf("Run: %v", err)
	}
	if s := f.Stats(); s.In != 3 {
		t.Errorf("ledger %+v", s)
	}

	// A pipeline that was refused leaves its good flows as they were.
	good := kemi.Connect("good", once(items(0, 3)), nowhere[item]())
	bad := kemi.Connect("", once(items(0, 3)), nowhere[item]())
	if err := (&kemi.Pipeline{Flows: []*kemi.Flow{good, bad}}).Run(t.Context()); err == nil {
		t.Error("Run returned nil")
	}
	run(t, good)
}
