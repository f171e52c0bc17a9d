package bustest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/internal/engine"
)

// witness is the sink behind a source under test. It is what a flow is to a source:
// something that opens lanes; and each lane looks at what a source must not do.
type witness struct {
	h       *harness
	horizon time.Duration
	// refuse is asked about each batch that is not muted. With an error Write returns
	// it and the batch does not count as taken. The context ends when the lane is closed.
	refuse func(ctx context.Context, batch []Record) error

	live  *tally // of what came to be emitted; may be that of a whole group
	muted tally  // of what came to warm up
	took  atomic.Int64
}

// tally is how far each key has come.
type tally struct {
	mu    sync.Mutex
	next  map[string]int
	again int // records that had come before

	anyStart bool // the first record of a key may be any
}

func (h *harness) witness() *witness { return h.member(&tally{}) }

func (h *harness) member(group *tally) *witness { return &witness{h: h, live: group} }

// take counts a batch. A record may come again, but none before the one it follows.
func (t *tally) take(batch []Record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range batch {
		next, known := t.next[r.Key]
		if !known && t.anyStart {
			next = r.Seq
		}
		switch {
		case r.Seq < 0:
			return errors.New(r.Text)
		case r.Seq > next:
			return fmt.Errorf("key %q: record %d came when %d was next: lost or out of order", r.Key, r.Seq, next)
		case r.Seq < next:
			t.again++
		default:
			if t.next == nil {
				t.next = map[string]int{}
			}
			t.next[r.Key] = next + 1
		}
	}
	return nil
}

func (t *tally) counts() (byKey map[string]int, again int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.next), t.again
}

func (t *tally) has(want map[string]int) bool {
	got, _ := t.counts()
	return maps.Equal(got, want)
}

// waitFor waits until all of want has come.
func (h *harness) waitFor(t *tally, who string, want map[string]int) {
	h.Helper()
	h.eventually(func() string {
		got, _ := t.counts()
		var missing []string
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if got[k] != want[k] {
				missing = append(missing, fmt.Sprintf("%s: %d of %d", k, got[k], want[k]))
			}
		}
		return who + " did not see everything: " + strings.Join(missing, ", ")
	}, func() bool { return t.has(want) })
}

// Write is for sources that open no lane.
func (w *witness) Write(context.Context, []Record) error {
	err := errors.New("a source with partitions has to write to lanes, see kemi.OpenLane")
	w.h.Error(err)
	return err
}

// OpenLane makes a witness what kemi.OpenLane looks for.
func (w *witness) OpenLane(id string, _ engine.LaneOptions) engine.Lane[Record] {
	p, err := strconv.Atoi(id[strings.LastIndexByte(id, '/')+1:])
	if err != nil {
		w.h.Errorf("the lane %q is not called topic/partition", id)
	}
	l := &witnessLane{witness: w, id: id, p: p}
	l.gone, l.leave = context.WithCancel(context.Background())
	return l
}

type witnessLane struct {
	*witness
	id    string
	p     int
	busy  atomic.Bool
	mute  bool
	gone  context.Context
	leave context.CancelFunc
	use   sync.Mutex // held by a Write, for Close to wait
}

var errClosed = errors.New("bustest: Write on a closed lane")

func (l *witnessLane) Write(_ context.Context, batch []Record) error {
	defer l.enter("Write")()
	l.use.Lock()
	defer l.use.Unlock()
	if l.gone.Err() != nil {
		return errClosed
	}
	runtime.Gosched() // a call that must not come now has its chance
	if err := l.look(batch); err != nil {
		l.h.Errorf("lane %s: %v", l.id, err)
		return nil
	}
	t := &l.muted
	if !l.mute {
		if l.refuse != nil {
			if err := l.refuse(l.gone, batch); err != nil {
				return err
			}
		}
		t = l.live
		l.took.Add(int64(len(batch)))
	}
	if err := t.take(batch); err != nil {
		l.h.Errorf("lane %s, muted %v: %v", l.id, l.mute, err)
	}
	return nil
}

// look checks what can be seen in one batch alone.
func (l *witnessLane) look(batch []Record) error {
	if len(batch) == 0 {
		return errors.New("an empty batch")
	}
	type written struct {
		key   string
		batch int
	}
	together := map[written]int{}
	for _, r := range batch {
		if p := bus.PartitionOf(r.Key, partitions); p != l.p {
			return fmt.Errorf("key %q belongs to partition %d", r.Key, p)
		}
		together[written{r.Key, r.Batch}]++
	}
	for _, r := range batch {
		if n := together[written{r.Key, r.Batch}]; r.Seq >= 0 && n != r.Of {
			return fmt.Errorf("key %q: %d records were written together, and %d are read together", r.Key, r.Of, n)
		}
	}
	return nil
}

// enter notes that the lane is in use.
func (l *witnessLane) enter(what string) (leave func()) {
	if !l.busy.CompareAndSwap(false, true) {
		l.h.Errorf("lane %s: %s while another call was under way", l.id, what)
		return func() {}
	}
	return func() { l.busy.Store(false) }
}

func (l *witnessLane) Tick(context.Context, time.Time) error {
	defer l.enter("Tick")()
	return nil
}

func (l *witnessLane) Refuse(_ context.Context, record any, why error) error {
	defer l.enter("Refuse")()
	l.h.Errorf("lane %s: a record was refused: %v: %v", l.id, why, record)
	return nil
}

func (l *witnessLane) Ticks() bool                          { return l.horizon > 0 }
func (l *witnessLane) Horizon() time.Duration               { return l.horizon }
func (l *witnessLane) Proof() engine.Proof                  { return engine.Proof{} }
func (l *witnessLane) Prove(engine.Proof) error             { return nil }
func (l *witnessLane) Keep(dst []engine.Kept) []engine.Kept { return dst }
func (l *witnessLane) Restore([]engine.Kept) error          { return nil }

func (l *witnessLane) Mute(on bool) {
	defer l.enter("Mute")()
	l.mute = on
}

func (l *witnessLane) Close() error {
	l.leave()
	l.use.Lock() // waits for a Write under way
	defer l.use.Unlock()
	return nil
}
