package inventory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kemi-go/kemi"
)

// Target is one host that is to be polled. Only Address is required.
type Target struct {
	Address  string        // where to poll: host or host:port
	Resource string        // the host label; default: Address without its port
	Service  string        // what the host belongs to
	Profiles []string      // what to ask for; default Config.Profiles
	Auth     string        // name of a credential; default Config.Auth
	Interval time.Duration // time from poll to poll; default Config.Interval
	Labels   kemi.Labels   // to be put on every metric
	Place    string        // where the target is written, such as file:line, for messages
}

// Discoverer tells which hosts there are.
//
// Targets returns all of them, every time: one that is missing is no more. It
// returns when ctx is done, at the latest. The slice belongs to the caller, what the
// targets point to is not changed by either.
//
// With an error, a nil slice says that nothing is known and the last list is to stay
// in use. A slice that is not nil is a full list nevertheless, the best that is known,
// and is used; the error is reported.
//
// A Source calls Targets from one goroutine at a time.
type Discoverer interface {
	Targets(ctx context.Context) ([]Target, error)
}

// DiscovererFunc is a function used as a [Discoverer].
type DiscovererFunc func(ctx context.Context) ([]Target, error)

// Targets calls f.
func (f DiscovererFunc) Targets(ctx context.Context) ([]Target, error) { return f(ctx) }

// Static returns a Discoverer of a list that does not change.
func Static(targets ...Target) Discoverer {
	targets = append([]Target{}, targets...)
	return DiscovererFunc(func(context.Context) ([]Target, error) { return slices.Clone(targets), nil })
}

// Join returns a Discoverer of the targets of all parts, in their order. A part that
// fails is stood in for by its own last good list, so that one broken part does not
// freeze the others.
func Join(parts ...Discoverer) Discoverer {
	last := make([][]Target, len(parts))
	return DiscovererFunc(func(ctx context.Context) ([]Target, error) {
		var all []Target
		var errs []error
		known := false
		for i, d := range parts {
			got, err := d.Targets(ctx)
			if err == nil && got == nil {
				got = []Target{}
			}
			if got != nil {
				last[i] = got
			}
			if err != nil {
				errs = append(errs, err)
			}
			known = known || last[i] != nil
			all = append(all, last[i]...)
		}
		if known && all == nil {
			all = []Target{}
		}
		return all, errors.Join(errs...)
	})
}

// What a target may be at most.
const (
	maxName      = 255  // bytes in an address, a resource and the like: longer ones are no DNS names
	maxLabel     = 4096 // bytes in the value of a label
	maxLabels    = 64
	minInterval  = 100 * time.Millisecond
	maxInterval  = 24 * time.Hour
	maxIntervals = 64 // different ones in one list
)

// check fills in what follows from the rest and tells what is wrong with t.
func (t *Target) check() error {
	host := t.Address
	if strings.ContainsAny(host, "/ ") {
		host = "" // a URL, or two hosts
	} else if h, port, err := net.SplitHostPort(t.Address); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("target %s: the port is not a number from 1 to 65535", quote(t.Address))
		}
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "" {
		return fmt.Errorf("target %s: want host or host:port", quote(t.Address))
	}
	if t.Resource == "" {
		t.Resource = host
	}
	for _, f := range []struct{ what, value string }{
		{"target", t.Address}, {"host", t.Resource}, {"service", t.Service}, {"auth", t.Auth},
	} {
		if err := checkText(f.value, maxName); err != nil {
			return fmt.Errorf("target %s: its %s %w", quote(t.Address), f.what, err)
		}
	}
	for _, p := range t.Profiles {
		if err := checkText(p, maxName); err != nil || p == "" {
			return fmt.Errorf("target %s: %s is no name of a profile", quote(t.Address), quote(p))
		}
	}
	if t.Interval != 0 && (t.Interval < minInterval || t.Interval > maxInterval) {
		return fmt.Errorf("target %s: an interval of %v: want %v to %v", quote(t.Address), t.Interval, minInterval, maxInterval)
	}
	return t.checkLabels()
}

// checkLabels also drops the labels that are fields of a job, or meant for us alone.
func (t *Target) checkLabels() error {
	if t.Labels.Len() > maxLabels {
		return fmt.Errorf("target %s: %d labels: at most %d", quote(t.Address), t.Labels.Len(), maxLabels)
	}
	var drop []string
	for name, value := range t.Labels.All() {
		if err := checkText(name, maxName); err != nil || name == "" {
			return fmt.Errorf("target %s: %s is no name of a label", quote(t.Address), quote(name))
		}
		if err := checkText(value, maxLabel); err != nil {
			return fmt.Errorf("target %s: its label %s %w", quote(t.Address), quote(name), err)
		}
		if name == kemi.LabelHost || name == labelService || strings.HasPrefix(name, "__") {
			drop = append(drop, name)
		}
	}
	if drop != nil {
		t.Labels = t.Labels.Without(drop...)
	}
	return nil
}

func checkText(s string, limit int) error {
	switch {
	case len(s) > limit:
		return fmt.Errorf("is longer than %d bytes", limit)
	case !utf8.ValidString(s):
		return errors.New("is not UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("has a control character in it")
	}
	return nil
}

// quote quotes s for a message, and cuts it.
func quote(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return strconv.Quote(s)
}

func (t *Target) equal(o *Target) bool {
	return t.Address == o.Address && t.Resource == o.Resource && t.Service == o.Service && t.Auth == o.Auth &&
		t.Interval == o.Interval && t.Labels == o.Labels && slices.Equal(t.Profiles, o.Profiles)
}

func equalTargets(a, b []Target) bool {
	return slices.EqualFunc(a, b, func(x, y Target) bool { return x.equal(&y) })
}
