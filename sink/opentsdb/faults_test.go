package opentsdb_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/faketsd"
	"github.com/kemi-go/kemi/sink/opentsdb"
	"github.com/kemi-go/kemi/sink/sinktest"
)

// TestNothingIsLost drives a pipeline into a server on which everything goes wrong:
// it answers late, with 500s and 503s, closes connections before and after it has
// stored, loses points in the storage, throttles, hangs, and is killed with what it
// had not flushed. One record in ten is bad, some known so to the sink and some to the
// server alone. At the end every good record is stored, with its value and not
// otherwise, every bad one is in the dead letters, and the counts are right.
func TestNothingIsLost(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { nothingIsLost(t, seed) })
	}
}

func nothingIsLost(t *testing.T, seed uint64) {
	const lanes, batches, size = 4, 12, 60
	srv := serve(t, faketsd.Config{})
	srv.AssignMetric("cpu_used_percent")
	var mu sync.Mutex
	dice := rand.New(rand.NewPCG(seed, 7))
	chance := func(p float64) bool {
		mu.Lock()
		defer mu.Unlock()
		return dice.Float64() < p
	}
	srv.Faults(func(int) faketsd.Fault {
		switch {
		case chance(0.05):
			return faketsd.Fault{Drop: true}
		case chance(0.05):
			return faketsd.Fault{Cut: true}
		case chance(0.05):
			return faketsd.Fault{Status: 503, Body: "<html>"}
		case chance(0.05):
			return faketsd.Fault{Status: 500, Body: `{"error":{"code":500,"message":"boom"}}`}
		case chance(0.05):
			return faketsd.Fault{Delay: 300 * time.Millisecond} // longer than the sink waits
		}
		return faketsd.Fault{}
	})
	srv.FailStorage(func(faketsd.Point) error {
		if chance(0.2) {
			return errors.New("NotServingRegionException")
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var chaos sync.WaitGroup
	done := make(chan struct{})
	chaos.Go(func() {
		pause := func() bool {
			select {
			case <-done:
				return false
			case <-time.After(40 * time.Millisecond):
				return true
			}
		}
		for n := 0; pause(); n++ {
			switch n % 3 {
			case 0:
				srv.Kill()
				pause()
				if err := srv.Restart(); err != nil {
					t.Error(err)
				}
			case 1:
				srv.HBaseDown(true)
				pause()
				srv.HBaseDown(false)
			case 2:
				srv.Throttle(true)
				pause()
				srv.Throttle(false)
			}
		}
	})

	record := func(i int) (m kemi.Metric, good bool) {
		l := kemi.LabelsOf("host", "web"+strconv.Itoa(i))
		switch i % 20 {
		case 3:
			return kemi.Gauge("cpu_used_percent", l, t0, math.NaN()), false
		case 13:
			return kemi.Gauge("not_made", l, t0, float64(i)), false
		}
		return kemi.Gauge("cpu_used_percent", l, t0, float64(i)+0.5), true
	}
	source := kemi.SourceFunc[kemi.Metric](func(ctx context.Context, out kemi.Sink[kemi.Metric]) error {
		var wg sync.WaitGroup
		for lane := range lanes {
			wg.Go(func() {
				for b := range batches {
					batch := make([]kemi.Metric, size)
					for i := range batch {
						batch[i], _ = record((lane*batches+b)*size + i)
					}
					if err := out.Write(ctx, batch); err != nil {
						t.Errorf("a batch was not delivered: %v", err)
					}
				}
			})
		}
		wg.Wait()
		return nil
	})
	sink := newSink(t, opentsdb.Config{URL: srv.URL(), MaxPoints: 16, SyncTimeout: 60 * time.Millisecond, Timeout: 150 * time.Millisecond})
	dead := &sinktest.Recorder[kemi.DeadLetter]{}
	// The throttle's wait of a second would be most of the test.
	p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("store", source, noWait{sink}, kemi.Backoff(time.Millisecond, 20*time.Millisecond))}, DeadLetters: dead}
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	close(done)
	chaos.Wait()

	got := map[string]string{}
	for _, pt := range srv.Stored() {
		got[pt.Tags["host"]] = pt.Metric + " " + pt.Value
	}
	bad := 0
	for i := range lanes * batches * size {
		m, good := record(i)
		want := ""
		if good {
			want = m.Name + " " + strconv.FormatFloat(m.Float(), 'f', -1, 64)
		} else {
			bad++
		}
		if got[m.Host()] != want {
			t.Errorf("record %d (good: %v) is stored as %q", i, good, got[m.Host()])
		}
	}
	letters := map[string]bool{}
	for _, d := range dead.Records() {
		if !strings.Contains(d.Error, "finite") && !strings.Contains(d.Error, "auto_create_metrics") {
			t.Errorf("dead: %s", d.Error)
		}
		letters[string(d.Payload)] = true
	}
	st := p.Stats()[0]
	if err := st.Balance(); err != nil {
		t.Error(err)
	}
	if len(letters) != bad || st.Dead != uint64(bad) || st.Written != uint64(lanes*batches*size-bad) {
		t.Errorf("%d bad records: %d letters, ledger %+v", bad, len(letters), st)
	}
	if n := sink.Stats().Points; n != st.Written {
		t.Errorf("the sink counts %d points, the flow %d", n, st.Written)
	}
	if st.Retries == 0 {
		t.Error("nothing went wrong")
	}
	t.Logf("%d requests, %d retries", sink.Stats().Requests, st.Retries)
}

// noWait drops the waits that errors ask for.
type noWait struct{ kemi.Sink[kemi.Metric] }

func (s noWait) Write(ctx context.Context, batch []kemi.Metric) error {
	err := s.Sink.Write(ctx, batch)
	failed, ok := kemi.Failures(err, batch)
	if !ok {
		return err
	}
	for i, f := range failed {
		if !kemi.IsPermanent(f.Err) {
			failed[i].Err = errors.New(f.Err.Error())
		}
	}
	return kemi.Partial(batch, failed...)
}
