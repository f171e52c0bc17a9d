package promql

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
)

// everything is a store that holds all series for ever, as the storage of
// Prometheus' own tests.
type everything struct{ *store }

func newEverything() everything {
	s := newStore(math.MaxInt32, (5 * time.Minute).Milliseconds(), 0, func(int64) int { return math.MaxInt32 })
	s.plan(newPlan([]need{{}}))
	return everything{s}
}

func (everything) StartTime() (int64, error) { return 0, nil }
func (everything) Close() error              { return nil }

func (e everything) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := e.Querier(mint, maxt)
	return chunkQuerier{q}, err
}

type chunkQuerier struct{ storage.Querier }

func (q chunkQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	return storage.NewSeriesSetToChunkSet(q.Querier.Select(ctx, sorted, hints, ms...))
}

func (e everything) AppenderV2(context.Context) storage.AppenderV2 { return appenderV2{e.store} }

type appenderV2 struct{ store *store }

func (a appenderV2) Commit() error   { return nil }
func (a appenderV2) Rollback() error { return nil }
func (a appenderV2) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, _ storage.AppendV2Options) (storage.SeriesRef, error) {
	x := extra{st: st}
	if h != nil {
		x.h, v = h.Copy(), h.Sum
	}
	if fh != nil {
		x.fh, v = fh.Copy(), fh.Sum
	}
	a.store.write(ls, sample{t, v}, x)
	return 1, nil
}

func (e everything) Appender(context.Context) storage.Appender { return appender{appenderV2{e.store}} }

type appender struct{ appenderV2 }

func (a appender) Append(r storage.SeriesRef, ls labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	return a.appenderV2.Append(r, ls, 0, t, v, nil, nil, storage.AOptions{})
}
func (a appender) AppendHistogram(r storage.SeriesRef, ls labels.Labels, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return a.appenderV2.Append(r, ls, 0, t, 0, h, fh, storage.AOptions{})
}
func (a appender) SetOptions(*storage.AppendOptions) {}
func (a appender) AppendExemplar(storage.SeriesRef, labels.Labels, exemplar.Exemplar) (storage.SeriesRef, error) {
	return 0, nil
}
func (a appender) UpdateMetadata(storage.SeriesRef, labels.Labels, metadata.Metadata) (storage.SeriesRef, error) {
	return 0, nil
}
func (a appender) AppendHistogramSTZeroSample(storage.SeriesRef, labels.Labels, int64, int64, *histogram.Histogram, *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return 0, nil
}
func (a appender) AppendSTZeroSample(storage.SeriesRef, labels.Labels, int64, int64) (storage.SeriesRef, error) {
	return 0, nil
}

// corpusBar is the number of statements in the corpus of the Prometheus in go.mod.
// All of them have to pass: fewer means that some were not run.
const corpusBar = 2243

// TestPrometheusCorpus runs Prometheus' own test files through the store.
func TestPrometheusCorpus(t *testing.T) {
	exprs, err := promqltest.GetBuiltInExprs()
	if err != nil {
		t.Fatal(err)
	}
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, promqltest.DefaultMaxSamplesPerQuery)
	files := 0
	ok := promqltest.TBRun(tally{t, &files})
	promqltest.RunBuiltinTestsWithStorage(ok, engine, func(testing.TB) storage.Storage { return newEverything() })
	// A statement that fails fails a subtest, and so this test.
	if len(exprs) < corpusBar || files < 20 {
		t.Errorf("the corpus has %d statements in %d files, want %d in 21", len(exprs), files, corpusBar)
	}
	if !t.Failed() {
		t.Logf("promqltest: %d of %d statements", len(exprs), len(exprs))
	}
}

// tally counts the files of the corpus.
type tally struct {
	*testing.T
	files *int
}

func (c tally) Run(name string, f func(*testing.T)) bool {
	*c.files++
	return c.T.Run(name, f)
}
