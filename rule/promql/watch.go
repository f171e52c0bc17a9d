package promql

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"time"

	"go.uber.org/zap"
)

// Watch reloads the rule files when their content changes, until ctx is done. It
// looks every interval; 0 is one second. A change is taken when it has been the same
// for two looks, so that a file that is being written is not read by half. What is
// wrong with a file is logged, and is in [Status].
func (r *Rules) Watch(ctx context.Context, interval time.Duration) {
	t := time.NewTicker(cmp.Or(max(0, interval), time.Second))
	defer t.Stop()
	var before map[string][]byte
	logged := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now, err := r.contents()
		if err == nil && !maps.EqualFunc(now, before, bytes.Equal) {
			before = now
			continue
		}
		text := ""
		if err = r.reload(now, err); err != nil {
			text = err.Error()
		}
		if text != logged && text != "" {
			r.log.Error("metric rules were refused", zap.Error(err))
		}
		logged = text
	}
}
