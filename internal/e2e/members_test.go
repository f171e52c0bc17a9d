//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec/otlp"
	kafkabus "github.com/kemi-go/kemi/bus/kafka"
	"github.com/kemi-go/kemi/internal/faults"
	"github.com/kemi-go/kemi/transform/counter"
)

const (
	memberEnv     = "KEMI_E2E_MEMBER" // its file and the brokers: the test binary is a member then
	memberSession = 6 * time.Second   // the least that a broker allows as it comes
	memberLanes   = 12
)

// memberRates has a horizon of some seconds, so that members that come later replay
// a part of the log and not all of it.
func memberRates(t testing.TB) *counter.Rates {
	t.Helper()
	rates, err := counter.New(counter.Config{Interval: time.Second, MaxGap: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return rates
}

func memberCluster(t testing.TB, brokers []string, logger *zap.Logger) *kafkabus.Cluster {
	t.Helper()
	c, err := kafkabus.Open(kafkabus.Config{
		Brokers: brokers, SessionTimeout: memberSession, HeartbeatInterval: 500 * time.Millisecond,
		RebalanceTimeout: 10 * time.Second, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func kafkaTopic[T any](t testing.TB, c *kafkabus.Cluster, name string, config kafkabus.TopicConfig[T]) *kafkabus.Topic[T] {
	t.Helper()
	topic, err := kafkabus.NewTopic(c, name, config)
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

// memberStats is what a member writes of itself to its file, again and again, and a last
// time when it has stopped.
type memberStats struct {
	Stopped bool
	Flow    kemi.FlowStats
	Reader  kafkabus.ReaderStats
}

// runMember is the process of a member: it calculates until it is told to stop.
func runMember(t *testing.T, file string, brokers []string) {
	logger, err := zap.NewProduction()
	if err != nil {
		t.Fatal(err)
	}
	c := memberCluster(t, brokers, logger)
	in := kafkaTopic(t, c, "in", kafkabus.TopicConfig[kemi.Metric]{Partitions: memberLanes})
	out := kafkaTopic(t, c, "out", kafkabus.TopicConfig[kemi.Metric]{Partitions: memberLanes})
	flow := kemi.Pipe("calculate", in.Group("calculate"), memberRates(t), out)
	p := kemi.Pipeline{Flows: []*kemi.Flow{flow}, Logger: logger, DrainTimeout: 20 * time.Second}
	say := func(stopped bool) {
		s := memberStats{Stopped: stopped, Flow: flow.Stats()}
		if r := in.Stats().Readers; len(r) > 0 {
			s.Reader = r[0]
		}
		text, err := json.Marshal(s)
		if err == nil {
			err = errors.Join(os.WriteFile(file+".new", text, 0o600), os.Rename(file+".new", file))
		}
		if err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	for tick := time.NewTicker(200 * time.Millisecond); ; {
		select {
		case <-tick.C:
			say(false)
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			if err := flow.Stats().Balance(); err != nil {
				t.Error(err)
			}
			say(true)
			return
		}
	}
}

// member is a process that calculates, as the test sees it.
type member struct {
	*process
	file string
}

func startMember(t *testing.T, k *kafka) member {
	t.Helper()
	file := filepath.Join(t.TempDir(), "stats")
	env := memberEnv + "=" + file + "," + strings.Join(k.Brokers(), ",")
	return member{launch(t, []string{env}, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=0"), file}
}

// stats is the last that the member has said of itself.
func (m member) stats() (s memberStats) {
	text, err := os.ReadFile(m.file)
	if errors.Is(err, os.ErrNotExist) {
		return s // it has said nothing yet
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		m.t.Error(err)
	}
	return s
}

// end stops the member as one stops a service.
func (m member) end() error {
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.done:
	case <-time.After(hang):
		return errors.New("a member does not stop")
	}
	if !m.cmd.ProcessState.Success() || !m.stats().Stopped {
		return fmt.Errorf("a member has ended with %v", m.cmd.ProcessState)
	}
	return nil
}

// host writes polls of itself. Its counters grow by a whole number each millisecond, so
// that the rate is known whichever readings are compared.
type host struct {
	name   string
	labels []kemi.Labels
	since  time.Time // of the counters
	last   time.Time // it was polled
	silent int       // polls to leave out
}

// slope is how much a counter of the host grows in a second.
func slope(labels kemi.Labels) uint64 { return 1000 * (1 + labels.Hash()%1000) }

func newHost(i int, now time.Time) *host {
	h := &host{name: fmt.Sprintf("web%03d", i), since: now}
	for _, device := range []string{"sda", "sdb", "sdc"} {
		h.labels = append(h.labels, kemi.LabelsOf("host", h.name, "device", device))
	}
	return h
}

func (h *host) poll(dst []kemi.Metric, now time.Time, rnd *rand.Rand) []kemi.Metric {
	switch {
	case h.silent > 0:
		h.silent--
		return dst
	case rnd.IntN(60) == 0: // some longer than anybody remembers
		h.silent = 1 + rnd.IntN(15)
	case rnd.IntN(60) == 0 && h.last.Sub(h.since) > time.Second: // the counters begin anew
		h.since = now.Add(-time.Millisecond)
	}
	h.last = now
	dst = append(dst, kemi.Gauge("load1", kemi.LabelsOf("host", h.name), now, float64(rnd.IntN(1<<20))/7))
	for _, l := range h.labels {
		dst = append(dst,
			kemi.Counter("io_bytes", l, now, slope(l)/1000*uint64(now.Sub(h.since).Milliseconds())),
			kemi.Gauge("queue", l, now, float64(rnd.IntN(100))))
	}
	return dst
}

// writePolls writes until it is told to stop.
func writePolls(stop context.Context, t *testing.T, in kemi.Sink[kemi.Metric], seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	var hosts []*host
	for i := range 150 {
		hosts = append(hosts, newHost(i, time.Now().UTC().Truncate(time.Millisecond)))
	}
	const together = 15
	for n := 0; stop.Err() == nil; n++ {
		now := time.Now().UTC().Truncate(time.Millisecond)
		var batch []kemi.Metric
		for i := range together {
			batch = hosts[(n*together+i)%len(hosts)].poll(batch, now, rnd)
		}
		if err := in.Write(context.Background(), batch); err != nil {
			t.Errorf("the input could not be written: %v", err)
		}
		select {
		case <-stop.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// outputs are the metrics of each host as text, in order.
type outputs map[string][]string

func (o outputs) add(ms []kemi.Metric) {
	for _, m := range ms {
		o[m.Host()] = append(o[m.Host()], m.String())
	}
}

// expected is what should be made of the input topic: each partition from its
// beginning, in order, through one stage and by nobody who ever restarts.
func expected(t *testing.T, k *kafka, rates *counter.Rates) (want outputs, polls int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	ends, err := kadm.NewClient(k.Client()).ListEndOffsets(ctx, "in")
	if err != nil {
		t.Fatal(err)
	}
	type partition struct {
		stage kemi.Transform[kemi.Metric, kemi.Metric]
		clock time.Time
		next  int64
	}
	parts := map[int32]*partition{}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) {
		parts[o.Partition] = &partition{stage: rates.Fork()}
		left += o.Offset
	})
	cl := k.Client(kgo.ConsumeTopics("in"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	want = outputs{}
	for left > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			p := parts[r.Partition]
			if end, ok := ends.Lookup("in", r.Partition); !ok || r.Offset >= end.Offset {
				return
			}
			left--
			if r.Offset != p.next {
				t.Fatalf("partition %d of the input has offset %d where %d belongs", r.Partition, r.Offset, p.next)
			}
			p.next++
			if now := r.Timestamp.Truncate(time.Second); now.After(p.clock) {
				p.clock = now
				made, err := p.stage.(kemi.Ticker[kemi.Metric]).Tick(ctx, nil, now)
				if err != nil || len(made) > 0 {
					t.Fatalf("a tick makes %v, %v", made, err)
				}
			}
			if len(r.Value) == 0 {
				return
			}
			polls++
			batch, err := otlp.Metrics().DecodeBatch(nil, r.Value)
			if err != nil {
				t.Fatal(err)
			}
			made, err := p.stage.Apply(ctx, nil, batch)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range made {
				if is := float64(slope(m.Labels)); m.Name == "io_bytes_rate" && math.Abs(m.Float()-is) > 1e-12*is {
					t.Errorf("the model says %s, and it grows by %g a second", m, is)
				}
			}
			want.add(made)
		})
	}
	return want, polls
}

// differences compares what came of each host with what should have, in order.
func differences(t *testing.T, who string, got, want outputs) (lost, twice, wrong int) {
	t.Helper()
	for _, host := range slices.Sorted(keysOf(got, want)) {
		times := map[string]int{}
		for _, m := range want[host] {
			times[m]++
		}
		hosts := [3]int{}
		for _, m := range got[host] {
			if n, ok := times[m]; !ok {
				hosts[2]++
			} else if n == 0 {
				hosts[1]++
			} else {
				times[m]--
			}
		}
		for _, n := range times {
			hosts[0] += n
		}
		if hosts == [3]int{} && !slices.Equal(got[host], want[host]) {
			hosts[2]++
			t.Errorf("%s: what was made of %s is out of order", who, host)
		}
		lost, twice, wrong = lost+hosts[0], twice+hosts[1], wrong+hosts[2]
		for i := range max(len(got[host]), len(want[host])) {
			if hosts != [3]int{} && (i >= len(got[host]) || i >= len(want[host]) || got[host][i] != want[host][i]) {
				t.Errorf("%s: %s: %v lost, twice, wrong; first at %d:\ngot  %q\nwant %q", who, host, hosts, i, few(got[host], i), few(want[host], i))
				break
			}
		}
	}
	return lost, twice, wrong
}

func few(s []string, at int) []string { return s[min(at, len(s)):min(at+4, len(s))] }

func keysOf(all ...outputs) func(func(string) bool) {
	return func(yield func(string) bool) {
		seen := map[string]bool{}
		for _, o := range all {
			for k := range o {
				if !seen[k] {
					seen[k] = true
					if !yield(k) {
						return
					}
				}
			}
		}
	}
}

// readOnce reads all that is on a topic now as kemi does, which leaves out what has
// come before.
func readOnce(t *testing.T, k *kafka, admin *kadm.Client, from *kafkabus.Topic[kemi.Metric]) outputs {
	t.Helper()
	name := strings.Trim(from.String(), "[]")
	ends := k.ends(admin, name)
	var mu sync.Mutex
	got := outputs{}
	flow := kemi.Connect("read", from.All("read"), kemi.Sink[kemi.Metric](kemi.SinkFunc[kemi.Metric](func(_ context.Context, batch []kemi.Metric) error {
		mu.Lock()
		defer mu.Unlock()
		got.add(batch)
		return nil
	})))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- (&kemi.Pipeline{Flows: []*kemi.Flow{flow}}).Run(ctx) }()
	eventually(t, hang, "reading "+name, func() error { return past(admin, name+".read.all", name, ends) })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	return got
}

// ends returns where a topic ends now, and past whether a group has committed all up
// to there.
func (k *kafka) ends(admin *kadm.Client, topic string) kadm.ListedOffsets {
	k.t.Helper()
	var ends kadm.ListedOffsets
	eventually(k.t, hang, "the ends of "+topic, func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if ends, err = admin.ListEndOffsets(ctx, topic); err == nil {
			err = ends.Error()
		}
		return err
	})
	return ends
}

func past(admin *kadm.Client, group, topic string, ends kadm.ListedOffsets) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	at, err := admin.FetchOffsets(ctx, group)
	if err == nil {
		err = at.Error()
	}
	if err != nil {
		return err
	}
	behind := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if c, _ := at.Lookup(topic, o.Partition); c.At < o.Offset {
			behind[o.Partition] = o.Offset - c.At
		}
	})
	if len(behind) > 0 {
		return fmt.Errorf("group %s is behind by partition: %v", group, behind)
	}
	return nil
}

// Three members calculate over three brokers. In each round one is killed, one frozen
// past its session and thawed, one added, and a broker killed and restarted (each fourth
// time frozen and thawed), at times of chance. What a reader of the output sees at the
// end is what one stage makes of the input that was never disturbed: nothing is lost,
// nothing comes twice, nothing is wrong or out of order. The same holds for a copy of
// the output that was made meanwhile by a reader that was stopped and started again
// and again.
func TestFaultsOfMembersShowNowhere(t *testing.T) {
	if file, brokers, ok := strings.Cut(os.Getenv(memberEnv), ","); ok {
		runMember(t, file, strings.Split(brokers, ","))
		return
	}
	k := startKafka(t, kafkaOptions{Nodes: 3})
	rounds := max(2, faults.Count(t, 20))
	seed := faults.Seed(t)
	rnd := rand.New(rand.NewPCG(seed, 1))
	c := memberCluster(t, k.Brokers(), nil)
	in := kafkaTopic(t, c, "in", kafkabus.TopicConfig[kemi.Metric]{Partitions: memberLanes})
	out := kafkaTopic(t, c, "out", kafkabus.TopicConfig[kemi.Metric]{Partitions: memberLanes})
	admin := kadm.NewClient(k.Client(kgo.MetadataMinAge(100*time.Millisecond), kgo.RequestTimeoutOverhead(2*time.Second)))

	writing, quiet := context.WithCancel(t.Context())
	var writer, watcher sync.WaitGroup
	writer.Go(func() { writePolls(writing, t, in, seed) })
	watching, blind := context.WithCancel(t.Context())
	defer blind()
	copied := kafkaTopic(t, c, "copy", kafkabus.TopicConfig[kemi.Metric]{Partitions: memberLanes})
	watcher.Go(func() {
		for watching.Err() == nil {
			ctx, cancel := context.WithTimeout(watching, 10*time.Second)
			p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("copy", out.Group("copy"), kemi.Sink[kemi.Metric](copied))}}
			if err := p.Run(ctx); err != nil {
				t.Errorf("copying the output: %v", err)
				cancel()
				return
			}
			cancel()
		}
	})

	var all []member
	start := func() member {
		m := startMember(t, k)
		all = append(all, m)
		return m
	}
	members := []member{start(), start(), start()}
	progress := func(what string) {
		t.Helper()
		began := time.Now()
		ends := k.ends(admin, "in")
		eventually(t, hang, what, func() error {
			for _, m := range members {
				select {
				case <-m.done:
					t.Fatalf("a member has ended by itself: %v", m.cmd.ProcessState)
				default:
				}
			}
			return past(admin, "in.calculate", "in", ends)
		})
		t.Logf("%s: %s", what, time.Since(began).Round(100*time.Millisecond))
	}
	progress("the members calculate")
	for round := range rounds {
		began := time.Now()
		broker, breaks, mends := rnd.IntN(3), k.Kill, k.Restart
		if round%4 == 1 {
			breaks, mends = k.Freeze, k.Thaw
		}
		rnd.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		frozen, dead := members[0], members[1]
		pause := func() { time.Sleep(time.Duration(rnd.IntN(2000)) * time.Millisecond) }
		var thaw time.Time
		acts := []func(){
			func() { frozen.freeze(); thaw = time.Now().Add(memberSession + 3*time.Second) },
			func() { dead.kill() },
			func() { members[1] = start() },
			func() { breaks(broker) },
		}
		rnd.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
		for _, act := range acts {
			pause()
			act()
		}
		time.Sleep(time.Until(thaw))
		if rnd.IntN(2) == 0 {
			frozen.thaw()
			mends(broker)
		} else {
			mends(broker)
			frozen.thaw()
		}
		k.AwaitInSync("in", "out", "__consumer_offsets")
		progress(fmt.Sprintf("round %d, %s, behind it", round+1, time.Since(began).Round(time.Second)))
	}
	quiet()
	writer.Wait()
	progress("all of the input")
	for _, m := range members {
		if err := m.end(); err != nil {
			t.Error(err)
		}
	}

	var sum kafkabus.ReaderStats
	var flows kemi.FlowStats
	for _, m := range all {
		s := m.stats()
		sum.Rewinds += s.Reader.Rewinds
		sum.Proved += s.Reader.Proved
		sum.Mismatched += s.Reader.Mismatched
		sum.Shortened += s.Reader.Shortened
		sum.Lost += s.Reader.Lost
		sum.Refused += s.Reader.Refused
		sum.Replayed += s.Reader.Replayed
		flows.Mismatches += s.Flow.Mismatches
		flows.Dropped += s.Flow.Dropped
		flows.Dead += s.Flow.Dead
	}
	want, polls := expected(t, k, memberRates(t))
	total := 0
	for _, ms := range want {
		total += len(ms)
	}
	ends := k.ends(admin, "out")
	eventually(t, hang, "copying the output", func() error { return past(admin, "out.copy", "out", ends) })
	blind()
	watcher.Wait()
	lost, twice, wrong := differences(t, "the output", readOnce(t, k, admin, out), want)
	lost2, twice2, wrong2 := differences(t, "its copy", readOnce(t, k, admin, copied), want)
	var after, during, last kafkabus.ReaderStats
	for _, r := range out.Stats().Readers {
		if r.All {
			after = r
		} else {
			during = r
		}
	}
	last = copied.Stats().Readers[0]
	faults.Report(t, "seed %d: %d rounds on real brokers, each a member killed, one frozen and thawed, one added, a broker killed and restarted, or frozen and thawed; "+
		"%d polls, %d outputs: %d lost, %d duplicate, %d wrong; in a copy made meanwhile, by one that was restarted %d, %d, %d; "+
		"%d, %d and %d records left out that had come before; %d rewinds, %d proved, %d mismatched",
		seed, rounds, polls, total, lost, twice, wrong, lost2, twice2, wrong2, after.Duplicates, during.Duplicates, last.Duplicates,
		sum.Rewinds, sum.Proved, sum.Mismatched)
	if sum.Mismatched+flows.Mismatches+sum.Shortened+sum.Lost+sum.Refused+flows.Dropped+flows.Dead > 0 {
		t.Errorf("the members had %+v, %+v", sum, flows)
	}
	if sum.Proved == 0 || total == 0 {
		t.Errorf("nothing was tried: %+v", sum)
	}
}
