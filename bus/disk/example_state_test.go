package disk_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/disk"
	"github.com/kemi-go/kemi/transform/transformtest"
)

// steps gives the difference between a reading of a host and the one before it. It is a
// stage whose state outlives the process, with nothing stored but its input.
type steps struct {
	now  time.Time          // by the last Tick: the time of the log, not of a clock
	last map[string]reading // by host
	sum  uint64             // of the hashes of last
}

type reading struct {
	value float64
	heard time.Time // when, by the time of the log
}

const remembered = time.Hour

// Fork gives each lane a state of its own.
func (*steps) Fork() kemi.Transform[kemi.Metric, kemi.Metric] {
	return &steps{last: map[string]reading{}}
}

// Horizon is how much input the state is made of. A lane that starts is fed so much of
// it again, muted.
func (*steps) Horizon() time.Duration { return remembered }

// Tick forgets what is older than the horizon, for a replay will not know of it.
func (s *steps) Tick(_ context.Context, dst []kemi.Metric, now time.Time) ([]kemi.Metric, error) {
	s.now = now
	for host, r := range s.last {
		if r.heard.Before(now.Add(-remembered)) {
			s.sum -= r.hash(host)
			delete(s.last, host)
		}
	}
	return dst, nil
}

// Apply appends to dst.
func (s *steps) Apply(_ context.Context, dst, src []kemi.Metric) ([]kemi.Metric, error) {
	for _, m := range src {
		host := m.Host()
		old, known := s.last[host]
		if known {
			dst = append(dst, kemi.Gauge(m.Name+"_step", m.Labels, m.Time, m.Float()-old.value))
			s.sum -= old.hash(host)
		}
		r := reading{m.Float(), s.now}
		s.last[host] = r
		s.sum += r.hash(host)
	}
	return dst, nil
}

// Proof is compared after a replay with what it was at the same place of the input. The
// Version changes when the stage means something else by its state.
func (s *steps) Proof() kemi.Proof { return kemi.Proof{Version: 1, Hash: s.sum} }

// hash is the same in every process, unlike that of hash/maphash.
func (r reading) hash(host string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(binary.LittleEndian.AppendUint64([]byte(host), math.Float64bits(r.value)))
	return h.Sum64()
}

// State that outlives the process: on the second day the difference to the last reading
// of the first day is known, since the topic gave the stage its past again.
func Example_state() {
	dir, err := os.MkdirTemp("", "kemi")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	for day := range 2 {
		db, err := disk.Open(disk.Config{Dir: dir})
		if err != nil {
			fmt.Println(err)
			return
		}
		raw, err := disk.NewTopic(db, "raw", disk.TopicConfig[kemi.Metric]{})
		if err != nil {
			fmt.Println(err)
			return
		}
		ctx, stop := context.WithCancel(context.Background())
		read := kemi.SourceFunc[kemi.Metric](func(ctx context.Context, out kemi.Sink[kemi.Metric]) error {
			for i := range 2 {
				at := time.Date(2026, 1, 1+day, i, 0, 0, 0, time.UTC)
				m := kemi.Gauge("level", kemi.LabelsOf("host", "tank"), at, float64(10*day+i*i))
				if err := out.Write(ctx, []kemi.Metric{m}); err != nil {
					return err
				}
			}
			return nil
		})
		show := kemi.SinkFunc[kemi.Metric](func(_ context.Context, batch []kemi.Metric) error {
			for _, m := range batch {
				fmt.Println(m)
			}
			if batch[len(batch)-1].Time.Hour() == 1 {
				stop()
			}
			return nil
		})
		p := kemi.Pipeline{Flows: []*kemi.Flow{
			kemi.Connect("read", read, kemi.Sink[kemi.Metric](raw)),
			kemi.Pipe("steps", raw.Group("steps"), kemi.Transform[kemi.Metric, kemi.Metric](&steps{}), kemi.Sink[kemi.Metric](show)),
		}}
		if err := p.Run(ctx); err != nil {
			fmt.Println(err)
		}
		fmt.Println("replayed:", p.Stats()[1].Replayed, "mismatches:", p.Stats()[1].Mismatches)
		if err := db.Close(); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// level_step{host="tank"} 1 @2026-01-01T01:00:00Z
	// replayed: 0 mismatches: 0
	// level_step{host="tank"} 9 @2026-01-02T00:00:00Z
	// level_step{host="tank"} 1 @2026-01-02T01:00:00Z
	// replayed: 2 mismatches: 0
}

// TestStepsKeepTheContract shows the suite that a stage of your own should pass too.
func TestStepsKeepTheContract(t *testing.T) {
	var batches [][]kemi.Metric
	var appended []time.Time
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 60 {
		at := begin.Add(time.Duration(i*i) * time.Minute) // there are longer and longer pauses
		var batch []kemi.Metric
		for h := range 4 {
			batch = append(batch, kemi.Gauge("level", kemi.LabelsOf("host", fmt.Sprint("h", (i+h)%6)), at, float64(i*h)))
		}
		batches, appended = append(batches, batch), append(appended, at)
	}
	transformtest.Run(t, func(testing.TB) transformtest.Harness[kemi.Metric, kemi.Metric] {
		return transformtest.Harness[kemi.Metric, kemi.Metric]{
			New:            func() kemi.Transform[kemi.Metric, kemi.Metric] { return &steps{} },
			Batches:        batches,
			BatchInvariant: true,
			AppendedAt:     func(i int) time.Time { return appended[i] },
		}
	})
}
