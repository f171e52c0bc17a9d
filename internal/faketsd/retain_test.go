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
	s, err := faketsd.Start(faketsd.Config{AutoCreateMetrics: true, Retain: time.Minute, FlushInterval: time.Millisecond})
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
	if len(got) != 7 || got[0].Timestamp != 1530 {
		t.Errorf("%d points are kept, the first %+v: want those of the last minute", len(got), got[0])
	}
}
