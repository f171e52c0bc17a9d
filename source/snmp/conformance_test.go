package snmp_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp"
	"github.com/kemi-go/kemi/transform/transformtest"
)

// steady is a poller whose results depend on the jobs alone: the suite wants the same
// for the same, and neither time nor the order in which hosts answer is.
//
// The suite gives the same hosts to several lanes, which no source does: a host belongs
// to one lane. Here each fork goes by a credential of its own, which makes them its own.
type steady struct {
	t     kemi.Transform[kemi.Job, kemi.Metric]
	auth  string
	forks *atomic.Int64
}

func (s steady) Fork() kemi.Transform[kemi.Job, kemi.Metric] {
	return steady{s.t.(kemi.Forker[kemi.Job, kemi.Metric]).Fork(), fmt.Sprint("lane", s.forks.Add(1)), s.forks}
}

func (s steady) Apply(ctx context.Context, dst []kemi.Metric, src []kemi.Job) ([]kemi.Metric, error) {
	n := len(dst)
	ours := slices.Clone(src)
	for i := range ours {
		ours[i].Auth = s.auth
	}
	dst, err := s.t.Apply(ctx, dst, ours)
	if failed, ok := kemi.Failures(err, ours); ok {
		err = kemi.Partial(src, failed...)
	}
	return s.settle(dst, n), err
}

func (s steady) Tick(ctx context.Context, dst []kemi.Metric, now time.Time) ([]kemi.Metric, error) {
	n := len(dst)
	dst, err := s.t.(kemi.Ticker[kemi.Metric]).Tick(ctx, dst, now)
	return s.settle(dst, n), err
}

func (s steady) settle(ms []kemi.Metric, from int) []kemi.Metric {
	ms = append(ms[:from], slices.DeleteFunc(ms[from:], func(m kemi.Metric) bool { return len(m.Name) > 5 && m.Name[:5] == "snmp_" })...)
	for i := range ms[from:] {
		ms[from+i].Time = time.Time{}
	}
	slices.SortFunc(ms[from:], func(a, b kemi.Metric) int {
		if a.Name != b.Name {
			if a.Name < b.Name {
				return -1
			}
			return 1
		}
		return a.Labels.Compare(b.Labels)
	})
	return ms
}

func TestTransform(t *testing.T) {
	var batches [][]kemi.Job
	var agents []*agent
	for range 6 {
		agents = append(agents, newAgent(t).linux())
	}
	for range 3 {
		for i := range 3 {
			var b []kemi.Job
			for k, a := range agents[2*i : 2*i+2] {
				b = append(b, kemi.Job{Target: a.addr(), Resource: string(rune('a' + 2*i + k)), Interval: 10 * time.Minute})
			}
			batches = append(batches, b)
		}
	}
	transformtest.Run(t, func(tb testing.TB) transformtest.Harness[kemi.Job, kemi.Metric] {
		return transformtest.Harness[kemi.Job, kemi.Metric]{
			New: func() kemi.Transform[kemi.Job, kemi.Metric] {
				p := newPoller(tb, func(c *snmp.Config) {
					c.Lookup = func(string) (snmp.Credential, bool) { return snmp.Credential{Community: "public"}, true }
				})
				return steady{p, "lane", new(atomic.Int64)}
			},
			Batches: batches,
			// Without a resource: of one with a resource the next Tick says that it is down.
			Bad: func(i int) kemi.Job { return kemi.Job{Target: "127.0.0.1:" + strconv.Itoa(1000+i)} },
		}
	})
}
