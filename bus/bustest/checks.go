package bustest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
)

var checks = []check{
	{"Topology", nil, topology},
	{"OrderPerKey", nil, orderPerKey},
	{"EveryReaderSeesAll", nil, everyReaderSeesAll},
	{"EachRunOfAnAllSeesAll", nil, eachRunOfAnAllSeesAll},
	{"NewNameStartsAtTheOldest", nil, newNameStartsAtTheOldest},
	{"MembersShare", nil, membersShare},
	{"Rebalance", nil, rebalance},
	{"PositionIsKept", nil, positionIsKept},
	{"PositionOutlivesTheProcess", restarts, positionOutlivesTheProcess},
	{"RefusedComesAgain", nil, refusedComesAgain},
	{"RefusedWaitsForTheNextRun", nil, refusedWaitsForTheNextRun},
	{"BigBatch", nil, bigBatch},
	{"EmptyBatch", nil, emptyBatch},
	{"Backpressure", bounded, backpressure},
	{"SoftStopDrains", drains, softStopDrains},
	{"MembersDrainTogether", drains, membersDrainTogether},
	{"HardStop", nil, hardStop},
	{"WarmUp", rewinds, warmUp},
	{"NoHorizonNoReplay", rewinds, noHorizonNoReplay},
	{"OnceBetweenTopics", recovers, onceBetweenTopics},
	{"StateComesBack", recovers, stateComesBack},
}

func topology(h *harness) {
	topic := h.open(Topic{})
	node := fmt.Sprint(topic)
	group, all := topic.Group("g"), topic.All("a")
	for _, src := range []any{group, all} {
		if got := fmt.Sprint(src); got != node {
			h.Errorf("a source of the topic %s calls itself %s: the topology would show two nodes", node, got)
		}
	}
	if _, ok := any(topic).(fmt.Stringer); !ok {
		h.Error("the topic has no String")
	}
	if s, ok := group.(kemi.Shared); !ok || !s.Shares() {
		h.Error("a Group is not kemi.Shared: a rule over all hosts would not be refused")
	}
	if s, ok := all.(kemi.Shared); ok && s.Shares() {
		h.Error("an All says that it shares its input: a rule over all hosts would be refused")
	}
}

func orderPerKey(h *harness) {
	topic := h.open(Topic{})
	w := h.witness()
	h.start(topic.Group("g"), w)
	ps := make([]*producer, 8)
	var writers sync.WaitGroup
	for i := range ps {
		ps[i] = h.producer(topic, keys(fmt.Sprint("w", i, "-"), 5)...)
		writers.Go(func() {
			for range 40 {
				ps[i].send(1 + ps[i].rnd.IntN(50))
			}
		})
	}
	writers.Wait()
	h.waitFor(w.live, "the group", wrote(ps...))
}

func everyReaderSeesAll(h *harness) {
	topic := h.open(Topic{})
	readers := map[string]kemi.Source[Record]{
		"group one": topic.Group("one"), "group two": topic.Group("two"),
		"all one": topic.All("one"), "all two": topic.All("two"),
	}
	ws := map[string]*witness{}
	for who, src := range readers {
		ws[who] = h.witness()
		h.start(src, ws[who])
	}
	p := h.producer(topic, append(keys("k", 30), "")...) // the empty key is a key
	for range 100 {
		p.send(1 + p.rnd.IntN(20))
	}
	for who, w := range ws {
		h.waitFor(w.live, who, wrote(p))
	}
}

func eachRunOfAnAllSeesAll(h *harness) {
	topic := h.open(Topic{})
	one, two := h.witness(), h.witness()
	for _, w := range []*witness{one, two} {
		w.live.anyStart = true // where the other has come to
		h.start(topic.All("a"), w)
	}
	p := h.producer(topic, keys("k", 10)...)
	h.eventually(func() string { return "two Runs of one All do not both read" }, func() bool {
		p.send(10)
		return one.took.Load() > 0 && two.took.Load() > 0
	})
	p.send(1000) // of every key
	h.waitFor(one.live, "one Run of the all", wrote(p))
	h.waitFor(two.live, "another Run of the all", wrote(p))
}

func newNameStartsAtTheOldest(h *harness) {
	topic := h.open(Topic{})
	p := h.producer(topic, keys("k", 10)...)
	p.send(50)
	seen := map[string]*witness{}
	for who, src := range readers(topic) {
		seen[who] = h.witness()
		h.start(src, seen[who])
	}
	p.send(50)
	for who, w := range seen {
		h.waitFor(w.live, who, wrote(p))
	}
}

func membersShare(h *harness) {
	topic := h.open(Topic{})
	var group tally
	one, two := h.member(&group), h.member(&group)
	h.start(topic.Group("g"), one)
	h.start(topic.Group("g"), two)
	p := h.producer(topic, keys("k", 40)...)
	shares := func(n int) bool {
		before := [2]int64{one.took.Load(), two.took.Load()}
		p.send(n)
		h.waitFor(&group, "the group", wrote(p))
		return one.took.Load() > before[0] && two.took.Load() > before[1]
	}
	h.eventually(func() string {
		return fmt.Sprintf("two members of a group share the records: they have %d and %d", one.took.Load(), two.took.Load())
	}, func() bool { return shares(40) })
	// Both are there for good now, and no record goes to both.
	_, before := group.counts()
	for range 10 { // one of them may be late
		shares(100)
	}
	if _, again := group.counts(); again != before {
		h.Errorf("%d of 1000 records went to both members of a group", again-before)
	}
}

func rebalance(h *harness) {
	topic := h.open(Topic{})
	topic.Group("g")
	var group tally
	var writing atomic.Bool
	writing.Store(true)
	ps := make([]*producer, 3)
	var writers sync.WaitGroup
	for i := range ps {
		ps[i] = h.producer(topic, keys(fmt.Sprint("w", i, "-"), 10)...)
		writers.Go(func() {
			for writing.Load() && !h.Failed() {
				ps[i].send(1 + ps[i].rnd.IntN(20))
				time.Sleep(time.Duration(ps[i].rnd.IntN(200)) * time.Microsecond)
			}
		})
	}
	defer writers.Wait()
	defer writing.Store(false)

	join := func() *running {
		m := h.member(&group)
		rnd := rand.New(rand.NewPCG(h.rnd.Uint64(), 0))
		var mu sync.Mutex
		m.refuse = func(_ context.Context, batch []Record) error {
			mu.Lock()
			defer mu.Unlock()
			switch rnd.IntN(20) {
			case 0:
				return errors.New("bustest: refused")
			case 1: // a sink that fails may have written
				if err := group.take(batch); err != nil {
					h.Error(err)
				}
				return errors.New("bustest: written, and then the answer was lost")
			}
			return nil
		}
		return h.start(topic.Group("g"), m)
	}
	var members []*running
	for range h.bus.Churn {
		if n := len(members); n == 0 || n < 4 && h.rnd.IntN(2) == 0 {
			members = append(members, join())
		} else {
			i := h.rnd.IntN(n)
			_ = members[i].stop() // may be an error: what it was writing was refused
			members = append(members[:i], members[i+1:]...)
		}
		time.Sleep(time.Duration(h.rnd.IntN(5000)) * time.Microsecond)
	}
	writing.Store(false)
	writers.Wait()
	h.start(topic.Group("g"), h.member(&group))
	h.waitFor(&group, "the group", wrote(ps...))
}

// readers are the two ways to read by a name.
func readers(topic interface {
	Group(string) kemi.Source[Record]
	All(string) kemi.Source[Record]
}) map[string]kemi.Source[Record] {
	return map[string]kemi.Source[Record]{"the group": topic.Group("name"), "the all": topic.All("name")}
}

func positionIsKept(h *harness) {
	topic := h.open(Topic{})
	p := h.producer(topic, keys("k", 20)...)
	seen := map[string]*tally{}
	for round := range 3 {
		p.send(100)
		if round == 1 {
			p.send(100) // while nobody reads
		}
		for who, src := range readers(topic) {
			if seen[who] == nil {
				seen[who] = &tally{}
			}
			r := h.start(src, h.member(seen[who]))
			p.send(100)
			h.waitFor(seen[who], who, wrote(p))
			r.stopCleanly()
		}
	}
	for who, t := range seen {
		if _, again := t.counts(); again != 0 {
			h.Errorf("%s was given %d records again that it had acknowledged, without a fault", who, again)
		}
	}
}

func positionOutlivesTheProcess(h *harness) {
	p := h.producer(nil, keys("k", 20)...)
	seen := map[string]*tally{"the group": {}, "the all": {}}
	for range 3 {
		topic := h.open(Topic{})
		p.topic = topic
		p.send(100)
		for who, src := range readers(topic) {
			r := h.start(src, h.member(seen[who]))
			h.waitFor(seen[who], who, wrote(p))
			r.stopCleanly()
		}
		p.send(100)
		h.bus.Restart(h)
	}
	topic := h.open(Topic{})
	for who, src := range readers(topic) {
		h.start(src, h.member(seen[who]))
		h.waitFor(seen[who], who, wrote(p))
		if _, again := seen[who].counts(); again != 0 {
			h.Errorf("%s was given %d records again that it had acknowledged, without a fault", who, again)
		}
	}
}

func refusedComesAgain(h *harness) {
	topic := h.open(Topic{})
	p := h.producer(topic, keys("k", 20)...)
	for who, src := range readers(topic) {
		w := h.witness()
		var mu sync.Mutex
		tries := map[int]int{} // by partition
		w.refuse = func(_ context.Context, batch []Record) error {
			mu.Lock()
			defer mu.Unlock()
			part := bus.PartitionOf(batch[0].Key, partitions)
			if tries[part]++; tries[part]%3 != 0 {
				return fmt.Errorf("bustest: refused, try %d", tries[part])
			}
			return nil
		}
		h.start(src, w)
		for range 10 {
			p.send(30)
			h.waitFor(w.live, who, wrote(p))
		}
	}
}

func refusedWaitsForTheNextRun(h *harness) {
	topic := h.open(Topic{})
	p := h.producer(topic, keys("k", 20)...)
	for who, src := range readers(topic) {
		w := h.witness()
		var refused atomic.Int64
		w.refuse = func(context.Context, []Record) error {
			refused.Add(1)
			return errors.New("bustest: refused")
		}
		r := h.start(src, w)
		p.send(100)
		h.eventually(func() string { return who + " was given nothing" }, func() bool { return refused.Load() > 3 })
		_ = r.stop() // an error is in order: it could not hand over what it had
		w.refuse = nil
		h.start(src, w)
		h.waitFor(w.live, who, wrote(p))
	}
}

func bigBatch(h *harness) {
	topic := h.open(Topic{})
	w := h.witness()
	h.start(topic.Group("g"), w)
	one, many := h.producer(topic, "one"), h.producer(topic, keys("k", 1000)...)
	for range 3 {
		one.send(5000)
		many.send(20_000)
	}
	ctx, cancel := context.WithTimeout(context.Background(), h.bus.Patience)
	defer cancel()
	if err := one.try(ctx, 1, strings.Repeat("x", 500_000)); err != nil {
		h.Errorf("Write of a record of 500 kB: %v", err)
	}
	h.waitFor(w.live, "the group", wrote(one, many))
}

func emptyBatch(h *harness) {
	topic := h.open(Topic{})
	w := h.witness() // does not like an empty batch
	h.start(topic.Group("g"), w)
	p := h.producer(topic, "k")
	for range 5 {
		if err := topic.Write(context.Background(), nil); err != nil {
			h.Errorf("Write of nothing: %v", err)
		}
		p.send(1)
	}
	h.waitFor(w.live, "the group", wrote(p))
}

func backpressure(h *harness) {
	const capacity, batch = 200, 10
	topic := h.open(Topic{Capacity: capacity})
	slow := topic.Group("slow")
	quick := h.witness()
	h.start(topic.Group("quick"), quick)
	p := h.producer(topic, keys("k", 20)...)

	write := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- p.try(ctx, batch, "") }()
		select {
		case err := <-done:
			return err
		case <-time.After(patience + h.bus.Patience):
			return fmt.Errorf("Write did not return within %v of its deadline", h.bus.Patience)
		}
	}
	accepted := 0
	var err error
	for err == nil && accepted < 10*capacity {
		patience := h.bus.Patience // there is room, so it may take as long as it likes
		if accepted >= capacity {
			patience = 100 * time.Millisecond
		}
		if err = write(patience); err == nil {
			accepted += batch
		}
	}
	switch {
	case err == nil:
		h.Fatalf("Write took %d records, and a reader that has read none is allowed to be %d behind", accepted, capacity)
	case !errors.Is(err, context.DeadlineExceeded):
		h.Fatalf("Write after the topic was full: %v; it should wait until the deadline", err)
	case accepted < capacity || accepted > capacity+batch:
		h.Fatalf("Write took %d records of a capacity of %d: %v", accepted, capacity, err)
	}

	// A writer that waits goes on when the reader does.
	blocked := make(chan error, 1)
	go func() { blocked <- write(h.bus.Patience) }()
	w := h.witness()
	h.start(slow, w)
	if err := <-blocked; err != nil {
		h.Fatalf("Write still waits although the reader goes on: %v", err)
	}
	for range 100 {
		p.send(batch)
	}
	h.waitFor(w.live, "the slow group", wrote(p))
	h.waitFor(quick.live, "the quick group", wrote(p))
}

func softStopDrains(h *harness) {
	topic := h.open(Topic{})
	p := h.producer(nil, keys("k", 20)...)
	group, all := tally{}, tally{}
	var in *producer
	pipe := kemi.Pipeline{
		DrainTimeout: h.bus.Patience,
		Flows: []*kemi.Flow{
			kemi.Connect("write", kemi.SourceFunc[Record](func(ctx context.Context, out kemi.Sink[Record]) error {
				p.topic = out
				in = p
				for ctx.Err() == nil {
					p.send(1 + p.rnd.IntN(20))
				}
				return nil
			}), kemi.Sink[Record](topic)),
			kemi.Connect("group", topic.Group("g"), h.slow(&group)),
			kemi.Connect("all", topic.All("a"), h.slow(&all)),
		},
	}
	r := h.goRun(pipe.Run)
	h.eventually(func() string { return "nothing is read" }, func() bool {
		g, _ := group.counts()
		a, _ := all.counts()
		return len(g) == 20 && len(a) == 20
	})
	r.stopCleanly()
	for who, t := range map[string]*tally{"the group": &group, "the all": &all} {
		if got, _ := t.counts(); !maps.Equal(got, in.wrote) {
			h.Errorf("after a soft stop %s has %v of %v", who, got, in.wrote)
		}
	}
	for _, s := range pipe.Stats() {
		if err := s.Balance(); err != nil {
			h.Error(err)
		}
	}
}

// slow is a sink that leaves something to drain.
func (h *harness) slow(t *tally) kemi.Sink[Record] {
	return kemi.SinkFunc[Record](func(_ context.Context, batch []Record) error {
		time.Sleep(time.Millisecond)
		if err := t.take(batch); err != nil {
			h.Error(err)
		}
		return nil
	})
}

func membersDrainTogether(h *harness) {
	topic := h.open(Topic{})
	p := h.producer(topic, keys("k", 20)...)
	var group tally
	for range 5 {
		members := make([]*running, 3)
		for i := range members {
			m := h.member(&group)
			m.refuse = func(context.Context, []Record) error { time.Sleep(time.Millisecond); return nil }
			members[i] = h.start(topic.Group("g"), m)
		}
		for range 50 {
			p.send(10)
		}
		var stops sync.WaitGroup
		for _, m := range members {
			stops.Go(m.stopCleanly)
		}
		stops.Wait()
		if got, _ := group.counts(); !maps.Equal(got, p.wrote) {
			h.Fatalf("all members were stopped at once, and have %v of %v", got, p.wrote)
		}
	}
}

func hardStop(h *harness) {
	topic := h.open(Topic{})
	p := h.producer(topic, keys("k", 20)...)
	for who, src := range readers(topic) {
		entered := make(chan struct{}, partitions)
		pipe := kemi.Pipeline{
			DrainTimeout: 50 * time.Millisecond,
			Flows: []*kemi.Flow{kemi.Connect("stuck", src, kemi.SinkFunc[Record](func(ctx context.Context, _ []Record) error {
				select {
				case entered <- struct{}{}:
				default:
				}
				<-ctx.Done()
				return ctx.Err()
			}))},
		}
		r := h.goRun(pipe.Run)
		p.send(100)
		select {
		case <-entered:
		case <-time.After(h.bus.Patience):
			h.Fatalf("%s was given nothing within %v", who, h.bus.Patience)
		}
		_ = r.stop() // may name what was left
		w := h.witness()
		h.start(src, w)
		h.waitFor(w.live, who+", after a hard stop,", wrote(p))
	}
}

func warmUp(h *harness) {
	topic := h.open(Topic{Retain: time.Hour})
	p := h.producer(topic, keys("k", 20)...)
	for who, src := range readers(topic) {
		live := h.witness()
		for round := range 3 {
			before, again := live.live.counts()
			w := h.member(live.live)
			w.horizon = time.Hour
			w.refuse = func(_ context.Context, batch []Record) error {
				for _, r := range batch {
					if seen, _ := w.muted.counts(); seen[r.Key] < before[r.Key] {
						h.Errorf("%s: record %d of key %q came when state knew %d of %d", who, r.Seq, r.Key, seen[r.Key], before[r.Key])
					}
				}
				return nil
			}
			r := h.start(src, w)
			for range 10 {
				p.send(30)
			}
			h.waitFor(w.live, who, wrote(p))
			r.stopCleanly()
			if got, _ := w.muted.counts(); round > 0 && !maps.Equal(got, before) {
				h.Errorf("%s: %v was replayed of %v", who, got, before)
			}
			if _, now := live.live.counts(); now != again {
				h.Errorf("%s: %d records of the replay were not muted", who, now-again)
			}
		}
	}
}

func noHorizonNoReplay(h *harness) {
	topic := h.open(Topic{Retain: time.Hour})
	p := h.producer(topic, keys("k", 20)...)
	for who, src := range readers(topic) {
		var seen tally
		for range 3 {
			w := h.member(&seen)
			r := h.start(src, w)
			p.send(100)
			h.waitFor(&seen, who, wrote(p))
			r.stopCleanly()
			if got, _ := w.muted.counts(); len(got) != 0 {
				h.Errorf("%s has no state, and was warmed up with %v", who, got)
			}
		}
		if _, again := seen.counts(); again != 0 {
			h.Errorf("%s was given %d records again", who, again)
		}
	}
}
