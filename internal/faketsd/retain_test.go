package faketsd_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi/internal/faketsd"
)

// A server that a program keeps running must not grow for ever.
func TestRetainForgetsTheOldest(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   faketsd.Config
		kept  int
		first int64
	}{
		"by age":    {faketsd.Config{Retain: time.Minute}, 7, 1530},
		"by number": {faketsd.Config{MaxPoints: 10}, 10, 1500},
	} {
		t.Run(name, func(t *testing.T) { retains(t, c.cfg, c.kept, c.first) })
	}
}

func retains(t *testing.T, cfg faketsd.Config, kept int, first int64) {
	cfg.AutoCreateMetrics, cfg.FlushInterval = true, time.Millisecond
	s, err := faketsd.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for at := 1000; at < 1600; at += 10 {
		body := fmt.Sprintf(`{"metric":"m","timestamp":%d,"value":1,"tags":{"host":"h%d"}}`, at, at%3)
		resp, err := http.Post(s.URL()+"/api/put?sync&details", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	got := s.Stored()
	if len(got) != kept || got[0].Timestamp != first {
		t.Errorf("%d points are kept, the first %+v: want %d from %d", len(got), got[0], kept, first)
	}
	for i, p := range got {
		if want := fmt.Sprintf("h%d", (int(first)+10*i)%3); p.Tags["host"] != want {
			t.Errorf("point %d has the host %s, want %s", i, p.Tags["host"], want)
		}
	}
}
