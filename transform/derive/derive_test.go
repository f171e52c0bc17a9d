package derive_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/derive"
	"github.com/kemi-go/kemi/transform/transformtest"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// gauge makes a metric of web1 from name, value and labels by turns.
func gauge(name string, v float64, labels ...string) kemi.Metric {
	return kemi.Gauge(name, kemi.LabelsOf(append([]string{"host", "web1", "service", "shop"}, labels...)...), now, v)
}

func newValues(tb testing.TB, formulas ...derive.Formula) *derive.Values {
	tb.Helper()
	v, err := derive.New(derive.Config{Formulas: formulas})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// derived returns what Apply adds to a batch.
func derived(tb testing.TB, v *derive.Values, batch []kemi.Metric) []kemi.Metric {
	tb.Helper()
	out, err := v.Apply(context.Background(), nil, batch)
	if err != nil {
		tb.Fatal(err)
	}
	var added []kemi.Metric
	i := 0
	for _, m := range out {
		if i < len(batch) && m == batch[i] {
			i++
			continue
		}
		added = append(added, m)
	}
	if i != len(batch) {
		tb.Fatalf("the input does not pass through in order: %v", out)
	}
	return added
}

// text shows metrics without what all of web1 have in common.
func text(ms []kemi.Metric) string {
	var b []string
	for _, m := range ms {
		b = append(b, fmt.Sprintf("%s%s=%.6g", m.Name, strings.Replace(m.Labels.Without("host", "service").String(), "{}", "", 1), m.Float()))
	}
	return strings.Join(b, " ")
}

func TestExpressions(t *testing.T) {
	batch := []kemi.Metric{
		gauge("a", 6), gauge("b", 4), gauge("zero", 0), gauge("huge", math.MaxFloat64), gauge("nan", math.NaN()), gauge("inf", math.Inf(1)),
		gauge("used", 10, "mount", "/"), gauge("used", 30, "mount", "/home"), gauge("used", 5, "mount", "/mnt"),
		gauge("total", 40, "mount", "/home"), gauge("total", 20, "mount", "/"), gauge("total", 0, "mount", "/proc"),
		gauge("ticks", 1, "mode", "user"), gauge("ticks", 3, "mode", "idle"), gauge("ticks", 4, "mode", "wait"),
		gauge("core", 1, "cpu", "0", "mode", "idle"), gauge("core", 2, "cpu", "1", "mode", "idle"),
		gauge("core", 3, "cpu", "0", "mode", "user"), gauge("core", 6, "cpu", "1", "mode", "user"),
		gauge("odd", 7, "le", `a"b\`),
		gauge("both", 1), gauge("both", 2, "mount", "/"),
	}
	for expr, want := range map[string]string{
		"a":                   "x=6",
		"a + b * 2":           "x=14",
		"(a+b)*2":             "x=20",
		"a - b - 1":           "x=1",
		"24 / a / 2":          "x=2",
		"-a":                  "x=-6",
		"--a":                 "x=6",
		"a * -b":              "x=-24",
		"-zero":               "x=0",
		"1e1 * a + .5":        "x=60.5",
		"2*3 + a":             "x=12",
		"min(a, b)":           "x=4",
		"max(a, b)":           "x=6",
		"clamp(a, 0, 5)":      "x=5",
		"clamp(-a, b-10, 5)":  "x=-6",
		"above(a, 5)":         "x=6",
		"above(b, 5)":         "",
		"used":                `x{mount="/"}=10 x{mount="/home"}=30 x{mount="/mnt"}=5`,
		"100 * used / total":  `x{mount="/"}=50 x{mount="/home"}=75`,
		"total / used":        `x{mount="/home"}=1.33333 x{mount="/"}=2`,
		`used{mount="/"} + a`: "x=16",
		`used{mount!="/"}`:    `x{mount="/home"}=30 x{mount="/mnt"}=5`,
		`used { mount != "/" , mount != "/mnt" }`: `x{mount="/home"}=30`,
		`used{mount=""}`:                        "",
		`used{mode=""}`:                         `x{mount="/"}=10 x{mount="/home"}=30 x{mount="/mnt"}=5`,
		`both + total`:                          `x{mount="/"}=22`, // not the one of the host with all the others
		`a{mount=""} + a{}`:                     "x=12",
		`odd{le="a\"b\\"}`:                      "x=7",
		`a * used`:                              `x{mount="/"}=60 x{mount="/home"}=180 x{mount="/mnt"}=30`,
		`used - a`:                              `x{mount="/"}=4 x{mount="/home"}=24 x{mount="/mnt"}=-1`,
		`above(used, b+a)`:                      `x{mount="/home"}=30`,
		`used / sum(used)`:                      `x{mount="/"}=0.222222 x{mount="/home"}=0.666667 x{mount="/mnt"}=0.111111`,
		"sum(used)":                             "x=45",
		"avg(used)":                             "x=15",
		"min(used)":                             "x=5",
		"max(used)":                             "x=30",
		"count(used)":                           "x=3",
		"count(total)":                          "x=3",
		"sum(used) / sum(total)":                "x=0.75",
		"max(used/total)":                       "x=0.75",
		`1 - ticks{mode="idle"} / sum(ticks)`:   "x=0.625",
		`core{mode="user"} / core{mode="idle"}`: `x{cpu="0"}=3 x{cpu="1"}=3`,
		`core{mode="user",cpu="1"} / core{mode="idle",cpu="1"}`: "x=3",
		`core{cpu="0"}`: `x{mode="idle"}=1 x{mode="user"}=3`,
		`used + ticks`:  "", // nothing belongs together

		// No answer rather than a wrong one.
		"missing":             "",
		"a + missing":         "",
		"missing * 0":         "",
		"sum(missing)":        "",
		"count(missing)":      "",
		"used + missing":      "",
		"a / zero":            "",
		"zero / zero":         "",
		"huge * a":            "",
		"huge * a * 0":        "",
		"nan":                 "",
		"nan * 0":             "",
		"1 / inf":             "",
		"count(nan)":          "",
		"min(a, missing)":     "",
		"clamp(a/zero, 0, 1)": "",
		`ticks{mode="nice"} + ticks{mode="user"}`: "",
	} {
		t.Run(expr, func(t *testing.T) {
			v := newValues(t, derive.Formula{Name: "x", Expr: expr})
			added := derived(t, v, batch[:0:0])
			if len(added) != 0 {
				t.Errorf("of nothing: %v", added)
			}
			if got := text(derivedNaN(t, v, batch)); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// derivedNaN is derived for a batch with a NaN in it, which differs from itself.
func derivedNaN(tb testing.TB, v *derive.Values, batch []kemi.Metric) []kemi.Metric {
	out, err := v.Apply(context.Background(), nil, batch)
	if err != nil || len(out) < len(batch) {
		tb.Fatalf("%v, %v", out, err)
	}
	return out[len(batch):]
}

func TestResultIsAGaugeOfThePoll(t *testing.T) {
	v := newValues(t, derive.Formula{Name: "y", Expr: "2 * c"})
	c := kemi.Counter("c", kemi.LabelsOf("host", "h", "disk", "sda"), now, 1<<40)
	if got := derived(t, v, []kemi.Metric{c}); len(got) != 1 || got[0] != kemi.Gauge("y", c.Labels, now, 1<<41) {
		t.Errorf("got %v", got)
	}
}

// A label that all metrics have may be matched too; what remains is then less than
// they have in common.
func TestMatchedLabelMayBeACommonOne(t *testing.T) {
	v := newValues(t, derive.Formula{Name: "x", Expr: `used{service="shop"} / total{service="shop"}`})
	got := derived(t, v, []kemi.Metric{gauge("used", 1, "d", "a"), gauge("total", 4, "d", "a"), gauge("used", 3, "d", "b"), gauge("total", 4, "d", "b")})
	want := []kemi.Metric{kemi.Gauge("x", kemi.LabelsOf("host", "web1", "d", "a"), now, 0.25), kemi.Gauge("x", kemi.LabelsOf("host", "web1", "d", "b"), now, 0.75)}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestFormulasUseResultsOfThoseBefore(t *testing.T) {
	v := newValues(t,
		derive.Formula{Name: "early", Expr: "late"},
		derive.Formula{Name: "free", Expr: "total - used"},
		derive.Formula{Name: "late", Expr: "100 * free / total"},
		derive.Formula{Name: "worst", Expr: "min(late)"})
	got := text(derived(t, v, []kemi.Metric{gauge("total", 10, "d", "a"), gauge("used", 9, "d", "a"), gauge("total", 10, "d", "b"), gauge("used", 1, "d", "b")}))
	if want := `free{d="a"}=1 free{d="b"}=9 late{d="a"}=10 late{d="b"}=90 worst=10`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestFirstFormulaOfANameCounts(t *testing.T) {
	v := newValues(t, derive.Formula{Name: "x", Expr: "good"}, derive.Formula{Name: "x", Expr: "fallback"})
	batch := []kemi.Metric{gauge("up", 1), gauge("fallback", 1, "d", "a"), gauge("fallback", 2, "d", "b"), gauge("good", 3, "d", "b")}
	if got, want := text(derived(t, v, batch)), `x{d="b"}=3 x{d="a"}=1`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// What was measured counts more than what is calculated, and applying the stage twice adds nothing.
	measured := append(slices.Clone(batch), gauge("x", 9, "d", "b"))
	if got, want := text(derived(t, v, measured)), `x{d="a"}=1`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	once, _ := v.Apply(context.Background(), nil, batch)
	if again := derived(t, v, once); len(again) != 0 {
		t.Errorf("the second time added %v", again)
	}
}

// poll makes the metrics of a host at a time, with many series and in any order.
func poll(rng *rand.Rand, host string, t time.Time, series int) []kemi.Metric {
	base := kemi.LabelsOf("host", host, "rack", "r1")
	ms := []kemi.Metric{kemi.Gauge("up", base, t, 1)}
	for i := range series {
		l := base.With("d", fmt.Sprint(i))
		for _, n := range []string{"a", "b"} {
			if rng.IntN(10) > 0 {
				ms = append(ms, kemi.Gauge(n, l, t, float64(1+rng.IntN(100))))
			}
		}
	}
	rng.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
	return ms
}

var some = []derive.Formula{{Name: "q", Expr: "a / b"}, {Name: "s", Expr: "sum(a) - sum(b)"}, {Name: "r", Expr: "a / sum(a)"}}

// What other hosts and times there are in a batch, and in which order, does not matter.
func TestPollsDoNotMix(t *testing.T) {
	v := newValues(t, some...)
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var batch []kemi.Metric
		want := map[string][]kemi.Metric{}
		for range 1 + rng.IntN(6) {
			p := poll(rng, fmt.Sprint("h", rng.IntN(3)), now.Add(time.Duration(rng.IntN(3))*time.Minute), rng.IntN(30))
			key := p[0].Host() + p[0].Time.String()
			if want[key] == nil {
				want[key] = derived(t, v, p)
				batch = append(batch, p...)
			}
		}
		shuffled := slices.Clone(batch)
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for _, b := range [][]kemi.Metric{batch, shuffled, slices.Concat(batch, batch)} {
			got := map[string][]kemi.Metric{}
			out, err := v.Apply(context.Background(), nil, b)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range out {
				if m.Name == "q" || m.Name == "s" || m.Name == "r" {
					got[m.Host()+m.Time.String()] = append(got[m.Host()+m.Time.String()], m)
				}
			}
			for key, w := range want {
				if !slices.Equal(sorted(got[key]), sorted(w)) {
					t.Fatalf("seed %d, %s:\n got %v\nwant %v", seed, key, sorted(got[key]), sorted(w))
				}
			}
		}
	}
}

func sorted(ms []kemi.Metric) []kemi.Metric {
	ms = slices.Clone(ms)
	slices.SortFunc(ms, func(a, b kemi.Metric) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return a.Labels.Compare(b.Labels)
	})
	return ms
}

// A batch of several polls gives the same, in the same order, as one after another.
func TestBatchesMayBeCutBetweenPolls(t *testing.T) {
	v := newValues(t, some...)
	rng := rand.New(rand.NewPCG(1, 2))
	var one, all []kemi.Metric
	var polls [][]kemi.Metric
	for i := range 50 {
		p := poll(rng, fmt.Sprint("h", i%5), now.Add(time.Duration(i/5)*time.Minute), 12)
		polls = append(polls, p)
		one, _ = v.Apply(context.Background(), one, p)
	}
	all, _ = v.Apply(context.Background(), nil, slices.Concat(polls...))
	if !slices.Equal(one, all) {
		t.Error("the outputs differ")
	}
}

func TestConformance(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var polls [][]kemi.Metric
	for i := range 20 {
		polls = append(polls, poll(rng, fmt.Sprint("h", i%3), now.Add(time.Duration(i)*time.Minute), 15))
	}
	transformtest.Run(t, func(tb testing.TB) transformtest.Harness[kemi.Metric, kemi.Metric] {
		return transformtest.Harness[kemi.Metric, kemi.Metric]{
			New:     func() kemi.Transform[kemi.Metric, kemi.Metric] { return newValues(tb, some...) },
			Batches: polls,
			Time:    func(m kemi.Metric) time.Time { return m.Time },
		}
	})
}
