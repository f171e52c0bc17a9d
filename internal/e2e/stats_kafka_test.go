//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	commonpb "go.opentelemetry.io/proto/slim/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec"
	"github.com/kemi-go/kemi/bus/codec/jsonl"
	kafkabus "github.com/kemi-go/kemi/bus/kafka"
	"github.com/kemi-go/kemi/rule/promql"
	"github.com/kemi-go/kemi/sink"
	"github.com/kemi-go/kemi/sink/opentsdb"
	"github.com/kemi-go/kemi/source/inventory"
	"github.com/kemi-go/kemi/transform"
	"github.com/kemi-go/kemi/transform/counter"
	"github.com/kemi-go/kemi/transform/derive"
)

// takingTurns fires for four seconds and is resolved for four, on every host.
const takingTurns = `
groups:
- name: turns
  interval: 1s
  rules:
  - alert: Turn
    expr: up * 0 + time() % 8 < 4
`

// told keeps alerts.
type told struct {
	mu  sync.Mutex
	all []kemi.Alert
}

func (s *told) Write(_ context.Context, batch []kemi.Alert) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, batch...)
	return nil
}

func (s *told) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

func (y *tally) count() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return len(y.all)
}

// until ends a source before the pipeline is stopped.
func until[T any](quit context.Context, s kemi.Source[T]) kemi.Source[T] {
	return kemi.SourceFunc[T](func(ctx context.Context, out kemi.Sink[T]) error {
		ctx, cancel := context.WithCancel(ctx)
		defer context.AfterFunc(quit, cancel)()
		return s.Run(ctx, out)
	})
}

// lag is how many records of a topic a group has not committed.
func lag(t *testing.T, admin *kadm.Client, group, topic string) (n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	ends, err1 := admin.ListEndOffsets(ctx, topic)
	at, err2 := admin.FetchOffsets(ctx, group)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		c, _ := at.Lookup(topic, o.Partition)
		n += o.Offset - c.At
	})
	return n
}

// The whole STATS pipeline, from real agents over real Kafka into a real OpenTSDB. What
// is read back is what the agent served. HBase is killed while points flow: its flow
// waits, the others go on, and nothing is lost. The topics are read by tools that are
// not ours.
func TestStatsOverKafkaIntoOpenTSDB(t *testing.T) {
	agent := startSnmpd(t)
	k := startKafka(t, kafkaOptions{})
	h := startHBase(t)
	server := startOpenTSDB(t, h, nil)

	var targets []inventory.Target
	for i := range 4 {
		targets = append(targets, inventory.Target{
			Address: agent.addr, Resource: fmt.Sprint("box", i), Auth: "sha256-aes", Labels: kemi.LabelsOf("rack", "r 7/서울"),
		})
	}
	schedule, err1 := inventory.New(inventory.Static(targets...), inventory.Config{Interval: 2 * time.Second})
	rates, err2 := counter.New(counter.Config{Interval: 2 * time.Second, KeepCounters: true})
	formulas, err3 := derive.New(derive.Config{Formulas: derive.Linux()})
	rules, err4 := promql.New(promql.Config{Files: []string{"r.yml"}, FS: fstest.MapFS{"r.yml": {Data: []byte(takingTurns)}}})
	tsd, err5 := opentsdb.New(opentsdb.Config{URL: server.URL, SyncTimeout: 2 * time.Second, Timeout: 3 * time.Second})
	c, err6 := kafkabus.Open(kafkabus.Config{Brokers: k.Brokers()})
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		t.Fatal(err)
	}
	defer tsd.Close()
	defer c.Close()
	const partitions = 4
	jobs := kafkaTopic(t, c, "jobs", kafkabus.TopicConfig[kemi.Job]{Partitions: partitions})
	raw := kafkaTopic(t, c, "raw", kafkabus.TopicConfig[kemi.Metric]{Partitions: partitions})
	metrics := kafkaTopic(t, c, "metrics", kafkabus.TopicConfig[kemi.Metric]{
		Partitions: partitions, Codecs: codec.For[kemi.Metric]().Writing(jsonl.Codec[kemi.Metric]()),
	})
	alerts := kafkaTopic(t, c, "alerts", kafkabus.TopicConfig[kemi.Alert]{Partitions: partitions})

	served, made, people, dead := &tally{}, &tally{}, &told{}, &letters{}
	quitting, quit := context.WithCancel(t.Context())
	store := kemi.Connect("store", metrics.Group("store"), tsd, kemi.Backoff(50*time.Millisecond, time.Second))
	p := kemi.Pipeline{
		Flows: []*kemi.Flow{
			kemi.Connect("schedule", until(quitting, schedule), kemi.Sink[kemi.Job](jobs)),
			kemi.Pipe("poll", jobs.Group("poll"), newPoller(t), sink.Tee[kemi.Metric](raw, served)),
			kemi.Pipe("calculate", raw.Group("calculate"), transform.Then(rates, formulas), metrics),
			store,
			kemi.Connect("count", metrics.Group("count"), kemi.Sink[kemi.Metric](made)),
			kemi.Pipe("judge", metrics.All("judge"), rules, alerts),
			kemi.Connect("tell", alerts.Group("tell"), kemi.Sink[kemi.Alert](people)),
		},
		DeadLetters: dead, DrainTimeout: time.Minute,
	}
	before := agent.readAll(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	more := func(what string, n int, count func() int) {
		t.Helper()
		from, since := count(), time.Now()
		eventually(t, hang, what, func() error {
			select {
			case err := <-ended:
				t.Fatalf("the pipeline has ended: %v", err)
			default:
			}
			if got := count() - from; got < n {
				return fmt.Errorf("%d of %d", got, n)
			}
			return nil
		})
		t.Logf("%s: %s", what, time.Since(since).Round(100*time.Millisecond))
	}
	written := func() int { return int(store.Stats().Written) }
	more("points are stored", 500, written)
	more("people are told", 4, people.count)

	admin := kadm.NewClient(k.Client())
	lags := func() map[string]int64 {
		all := map[string]int64{}
		for group, topic := range map[string]string{
			"jobs.poll": "jobs", "raw.calculate": "raw", "metrics.store": "metrics", "metrics.count": "metrics",
			"metrics.judge.all": "metrics", "alerts.tell": "alerts",
		} {
			all[group] = lag(t, admin, group, topic)
		}
		return all
	}
	h.Kill()
	gone := written()
	more("without HBase, people go on being told", 12, people.count) // each host: two turns at least
	more("without HBase, metrics go on", 1000, made.count)
	eventually(t, hang, "the others keep up without HBase", func() error {
		wait := lags()
		for group, n := range wait {
			if (n > 12) != (group == "metrics.store") { // polls, and ticks
				return fmt.Errorf("records that wait: %v", wait)
			}
		}
		t.Logf("records that wait without HBase: %v", wait)
		return nil
	})
	if n := written() - gone; n > 1000 { // the server's buffer
		t.Errorf("%d points were stored without HBase", n)
	}
	h.Restart()
	more("points are stored again", 1500, written)
	quit()
	still := time.Now()
	eventually(t, hang, "everything is stored", func() error {
		all := map[string]kemi.FlowStats{}
		for _, s := range p.Stats() {
			all[s.Name] = s
		}
		// Each has had all of what the one before it has made, but the metrics that judge
		// makes alerts of with the time.
		for _, c := range [][2]uint64{
			{all["schedule"].InFlight, 0},
			{all["poll"].Done, all["schedule"].Written},
			{all["calculate"].Done, uint64(served.count())},
			{all["store"].Written, all["calculate"].Written},
			{all["count"].Written, all["calculate"].Written},
		} {
			if c[0] != c[1] {
				still = time.Now()
				return fmt.Errorf("%d of %d: %+v", c[0], c[1], all)
			}
		}
		if time.Since(still) < time.Second {
			return errors.New("the schedule may not have heard yet")
		}
		return nil
	})
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	after := agent.readAll(t)
	for _, s := range p.Stats() {
		if err := s.Balance(); err != nil {
			t.Error(err)
		}
		if s.InFlight+s.Pending+s.Failed+s.Abandoned+s.Dead+s.Dropped+s.Mismatches != 0 {
			t.Errorf("%s: not all is delivered: %+v", s.Name, s)
		}
	}
	if len(dead.all) > 0 {
		t.Errorf("dead letters: %+v", dead.all)
	}
	t.Logf("%d retries, and afterwards wait: %v", store.Stats().Retries, lags())

	t.Run("what is stored was calculated", func(t *testing.T) { checkStored(t, server, made.all) })
	t.Run("what was calculated was served", func(t *testing.T) { checkCalculated(t, served.all, made.all) })
	t.Run("what was served snmpget says", func(t *testing.T) { checkServed(t, served.all, before, after) })
	t.Run("people heard each turn once", func(t *testing.T) { checkTold(t, people.all) })
	t.Run("kcat reads JSON", func(t *testing.T) { checkKcat(t, k, "metrics", made.all) })
	t.Run("a library reads OTLP", func(t *testing.T) { checkOTLP(t, k, "raw", served.all) })
}

// checkCalculated holds that what the agent served has come through as it was, and that
// each rate is that of its counter: by the clock of the agent, as the machine's may
// have polled late.
func checkCalculated(t *testing.T, served, made []kemi.Metric) {
	type series struct {
		name   string
		labels kemi.Labels
	}
	type reading struct {
		series
		time time.Time
	}
	uptimes := map[string]map[time.Time]float64{}
	for _, m := range served {
		if m.Name == "agent_uptime_seconds" {
			if uptimes[m.Host()] == nil {
				uptimes[m.Host()] = map[time.Time]float64{}
			}
			uptimes[m.Host()][m.Time] = m.Float()
		}
	}
	came, want, wantRates := map[string]int{}, map[string]int{}, map[reading]float64{}
	last := map[series]kemi.Metric{}
	for _, m := range served {
		want[m.String()]++
		s := series{m.Name, m.Labels}
		if m.Kind == kemi.KindGauge {
			continue
		}
		if l, ok := last[s]; ok && m.Uint() >= l.Uint() {
			d := m.Time.Sub(l.Time).Seconds()
			if a := uptimes[m.Host()][m.Time] - uptimes[m.Host()][l.Time]; math.Abs(a-d) <= d/10 {
				d = a
			}
			wantRates[reading{series{m.Name + "_rate", m.Labels}, m.Time}] = float64(m.Uint()-l.Uint()) / d
		}
		last[s] = m
	}
	rates := 0
	derived := map[string]int{}
	for _, m := range made {
		switch {
		case want[m.String()] > 0:
			came[m.String()]++
		case strings.HasSuffix(m.Name, "_rate"):
			w, ok := wantRates[reading{series{m.Name, m.Labels}, m.Time}]
			if v := m.Float(); !ok || math.Abs(v-w) > 1e-9*math.Abs(w) {
				t.Errorf("%s, and the counters say %v", m, w)
			}
			rates++
		default:
			derived[m.Name]++
		}
	}
	if !maps.Equal(came, want) {
		t.Errorf("of %d readings %d came through", len(want), len(came))
	}
	if rates != len(wantRates) || rates == 0 {
		t.Errorf("%d rates were calculated, and the counters make %d", rates, len(wantRates))
	}
	for _, name := range []string{"cpu_used_percent", "memory_used_percent", "disk_used_percent", "if_in_bits_per_second", "load1_per_cpu"} {
		if derived[name] == 0 {
			t.Errorf("no %s was calculated", name)
		}
	}
	t.Logf("%d readings equal, %d rates equal, derived %v", len(came), rates, derived)
}

// constant are the metrics that do not move while a test runs.
var constant = map[string]bool{
	"memory_total_bytes": true, "swap_total_bytes": true, "cpu_count": true, "disk_total_bytes": true,
	"if_speed_bits": true, "if_admin_up": true, "if_up": true,
}

// reply is what an agent says of a series, and of which kind the series is.
type reply struct {
	value float64
	kind  kemi.Kind
}

// readAll asks snmpget for everything that a poll has.
func (s *snmpd) readAll(t *testing.T) map[string]reply {
	t.Helper()
	all := map[string]reply{}
	for _, m := range pollOnce(t, newPoller(t), s.addr, "sha256-aes") {
		if ownMetrics[m.Name] || passing(m) || m.Kind == kemi.KindGauge && !constant[m.Name] {
			continue
		}
		o, err := s.oracleOf("sha256-aes", m)
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.read("sha256-aes", o)
		if err != nil {
			t.Fatal(err)
		}
		all[m.Name+m.Labels.Without("host", "rack").String()] = reply{v, m.Kind}
	}
	return all
}

// checkServed holds that every reading lies between what snmpget said before and after
// all: what stands still is equal. The agent keeps its numbers for some seconds, so the
// last may be a little ahead of what it said.
func checkServed(t *testing.T, served []kemi.Metric, before, after map[string]reply) {
	equal, between := 0, 0
	for _, m := range served {
		key := m.Name + m.Labels.Without("host", "rack").String()
		low, ok1 := before[key]
		high, ok2 := after[key]
		if !ok1 || !ok2 {
			continue
		}
		v := m.Float()
		switch {
		case constant[m.Name]:
			if v != low.value || v != high.value {
				t.Errorf("%s, and snmpget says %v and %v", m, low.value, high.value)
			}
			equal++
		default:
			if v < low.value || v > high.value+0.02*(high.value-low.value) {
				t.Errorf("%s is not between %v and %v, which snmpget says", m, low.value, high.value)
			}
			between++
		}
	}
	if equal == 0 || between == 0 {
		t.Errorf("%d equal, %d between: nothing was compared", equal, between)
	}
	t.Logf("%d equal, %d between", equal, between)
}

// checkTold holds that of each host people hear firing and resolved in turn.
func checkTold(t *testing.T, all []kemi.Alert) {
	hosts := map[string][]kemi.Alert{}
	for _, a := range all {
		hosts[a.Labels.Get("host")] = append(hosts[a.Labels.Get("host")], a)
	}
	for host, told := range hosts {
		for i, a := range told {
			want := kemi.StateFiring
			if i%2 == 1 {
				want = kemi.StateResolved
			}
			if a.State != want || i > 0 && !a.Time.After(told[i-1].Time) {
				t.Errorf("%s: number %d is %v of %s", host, i, a.State, a.Time)
			}
		}
	}
	if len(hosts) != 4 {
		t.Errorf("people heard of %d hosts", len(hosts))
	}
	t.Logf("%d alerts", len(all))
}

// line is a metric as one of another language would see it.
func line(name string, labels map[string]string, at time.Time, kind, value string) string {
	return fmt.Sprint(name, labels, at.UTC().Format(time.RFC3339Nano), kind, value) // maps print sorted
}

func number(m kemi.Metric) string {
	if m.Kind == kemi.KindGauge || m.Kind == kemi.KindFloatCounter {
		return strconv.FormatFloat(m.Float(), 'g', -1, 64)
	}
	return strconv.FormatUint(m.Uint(), 10)
}

func linesOf(ms []kemi.Metric, kind func(kemi.Kind) string) (lines []string) {
	for _, m := range ms {
		lines = append(lines, line(m.Name, maps.Collect(m.Labels.All()), m.Time, kind(m.Kind), number(m)))
	}
	slices.Sort(lines)
	return lines
}

func sameLines(t *testing.T, got, want []string) {
	t.Helper()
	slices.Sort(got)
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("%d metrics came, %d were written", len(got), len(want))
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Errorf("%s came, %s was written", got[i], want[i])
				break
			}
		}
	}
	t.Logf("%d metrics equal", len(got))
}

// checkKcat reads a topic with kcat and each line with encoding/json.
func checkKcat(t *testing.T, k *kafka, topic string, want []kemi.Metric) {
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	out, err := run(ctx, need(t, "kcat", "kcat"), "-C", "-b", k.Brokers()[0], "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%s")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var lines []string
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var m struct {
			Name   string
			Labels map[string]string
			Time   time.Time
			Kind   string
			Value  json.Number
		}
		if err := d.Decode(&m); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line(m.Name, m.Labels, m.Time, m.Kind, m.Value.String()))
	}
	sameLines(t, lines, linesOf(want, kemi.Kind.String))
}

// checkOTLP reads a topic with the protobuf library and the messages of OpenTelemetry.
func checkOTLP(t *testing.T, k *kafka, topic string, want []kemi.Metric) {
	attributes := func(dst map[string]string, kvs []*commonpb.KeyValue) {
		for _, kv := range kvs {
			dst[kv.Key] = kv.Value.GetStringValue()
		}
	}
	var lines []string
	points := func(r *kgo.Record, resource map[string]string, name, kind string, points []*metricspb.NumberDataPoint) {
		for _, p := range points {
			labels := maps.Clone(resource)
			attributes(labels, p.Attributes)
			labels["host"] = labels["host.name"]
			delete(labels, "host.name")
			if labels["host"] != string(r.Key) {
				t.Errorf("the key %q has metrics of %q", r.Key, labels["host"])
			}
			value := ""
			switch v := p.Value.(type) {
			case *metricspb.NumberDataPoint_AsDouble:
				value = strconv.FormatFloat(v.AsDouble, 'g', -1, 64)
			case *metricspb.NumberDataPoint_AsInt:
				value = strconv.FormatInt(v.AsInt, 10)
			}
			lines = append(lines, line(name, labels, time.Unix(0, int64(p.TimeUnixNano)), kind, value))
		}
	}
	for _, r := range k.readAll(t, topic) {
		if len(r.Value) == 0 {
			continue // it tells the time
		}
		if !slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool {
			return h.Key == "kemi-codec" && bytes.HasPrefix(h.Value, []byte("otlp"))
		}) {
			t.Fatalf("the headers are %v", r.Headers)
		}
		var data metricspb.MetricsData
		if err := proto.Unmarshal(r.Value, &data); err != nil {
			t.Fatal(err)
		}
		if len(data.ResourceMetrics) != 1 {
			t.Errorf("a record has %d resources", len(data.ResourceMetrics))
		}
		for _, rm := range data.ResourceMetrics {
			resource := map[string]string{}
			attributes(resource, rm.Resource.Attributes)
			for _, sm := range rm.ScopeMetrics {
				for _, m := range sm.Metrics {
					points(r, resource, m.Name, "gauge", m.GetGauge().GetDataPoints())
					points(r, resource, m.Name, "counter", m.GetSum().GetDataPoints())
				}
			}
		}
	}
	sameLines(t, lines, linesOf(want, func(kind kemi.Kind) string {
		if kind == kemi.KindGauge {
			return "gauge"
		}
		return "counter"
	}))
}

// readAll returns what is on a topic, in the order of its partitions.
func (k *kafka) readAll(t *testing.T, topic string) (all []*kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	cl := k.Client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	left := int64(0)
	k.ends(kadm.NewClient(cl), topic).Each(func(o kadm.ListedOffset) { left += o.Offset })
	for left > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			all = append(all, r)
			left--
		})
	}
	slices.SortStableFunc(all, func(a, b *kgo.Record) int { return int(a.Partition) - int(b.Partition) })
	return all
}
