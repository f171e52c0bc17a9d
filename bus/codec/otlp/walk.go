package otlp

import "fmt"

// reader takes what a walk through metrics or logs comes by, all of it views of the
// message. They are laid out alike: resources, in each the scopes, in each the records.
type reader interface {
	setResource(attrs string) error // of the records to come
	grow(n int)                     // so many records come
	one(record string) error
}

// walk goes through MetricsData or LogsData; kind is Metrics or Logs.
func walk(s, kind string, r reader) error {
	for m := (message{s: s}); ; {
		if !m.next() {
			return m.err
		}
		var err error
		if m.tag == tag(1, typeBytes) {
			err = walkResource(m.body, kind, r)
		} else {
			err = m.unknown(fields(1))
		}
		if err != nil {
			return err
		}
	}
}

// walkResource goes through a ResourceMetrics or ResourceLogs. The resource may stand
// behind its scopes.
func walkResource(s, kind string, r reader) error {
	var resource merged
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case tag(1, typeBytes):
			resource.add(m.body)
		case tag(2, typeBytes), tag(3, typeBytes):
		default:
			if err := m.unknown(fields(1, 2, 3)); err != nil {
				return fmt.Errorf("%s of a resource: %w", kind, err)
			}
		}
	}
	if m.err != nil {
		return m.err
	}
	attrs, err := resourceAttributes(resource.s)
	if err == nil {
		err = r.setResource(attrs)
	}
	if err != nil {
		return fmt.Errorf("resource: %w", err)
	}
	for m = (message{s: s}); m.next(); {
		if m.tag == tag(2, typeBytes) {
			if err := walkScope(m.body, kind, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// resourceAttributes returns the run of the attributes of a Resource.
func resourceAttributes(s string) (string, error) {
	var attrs run
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case tag(1, typeBytes):
			attrs.add(&m)
		case tag(2, typeVarint), tag(3, typeBytes):
		default:
			if err := m.unknown(fields(1, 2, 3)); err != nil {
				return "", err
			}
		}
	}
	return attrs.s, m.err
}

// walkScope goes through a ScopeMetrics or ScopeLogs.
func walkScope(s, kind string, r reader) error {
	n := 0
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case tag(2, typeBytes):
			n++
		case tag(1, typeBytes), tag(3, typeBytes):
		default:
			if err := m.unknown(fields(1, 2, 3)); err != nil {
				return fmt.Errorf("%s of a scope: %w", kind, err)
			}
		}
	}
	if m.err != nil {
		return m.err
	}
	r.grow(n)
	for m = (message{s: s}); m.next(); {
		if m.tag == tag(2, typeBytes) {
			if err := r.one(m.body); err != nil {
				return err
			}
		}
	}
	return nil
}
