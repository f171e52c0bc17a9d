//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"
)

// victoriaMetrics is Debian's VictoriaMetrics, which takes OpenTSDB's HTTP put.
type victoriaMetrics struct {
	put  string // the URL of the OpenTSDB side
	http string
}

func startVictoriaMetrics(t *testing.T) *victoriaMetrics {
	t.Helper()
	program := need(t, "victoria-metrics", "victoria-metrics")
	ports := steadyPorts(t, "tcp", 3)
	put, telnet, web := ports[0], ports[1], ports[2]
	v := &victoriaMetrics{
		put:  fmt.Sprintf("http://127.0.0.1:%d", put),
		http: fmt.Sprintf("http://127.0.0.1:%d", web),
	}
	ready := func() error {
		_, err := fetch(v.http + "/health")
		return err
	}
	start(t, ready, nil, program,
		"-storageDataPath="+t.TempDir(),
		fmt.Sprintf("-httpListenAddr=127.0.0.1:%d", web),
		fmt.Sprintf("-opentsdbListenAddr=127.0.0.1:%d", telnet),
		fmt.Sprintf("-opentsdbHTTPListenAddr=127.0.0.1:%d", put),
		"-retentionPeriod=10y", "-search.latencyOffset=0s")
	return v
}

// series is one line of VictoriaMetrics' export.
type series struct {
	Metric     map[string]string `json:"metric"`
	Values     []float64         `json:"values"`
	Timestamps []int64           `json:"timestamps"` // ms
}

// export reads back what is stored under a selector.
func (v *victoriaMetrics) export(selector string) ([]series, error) {
	if _, err := fetch(v.http + "/internal/force_flush"); err != nil {
		return nil, err
	}
	body, err := fetch(v.http + "/api/v1/export?match[]=" + url.QueryEscape(selector))
	if err != nil {
		return nil, err
	}
	var all []series
	sc := bufio.NewScanner(bytes.NewReader(body))
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var s series
		if err := json.Unmarshal(sc.Bytes(), &s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, sc.Err()
}

func fetch(u string) ([]byte, error) {
	resp, err := http.Get(u)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s: %s: %s", u, resp.Status, b.String())
	}
	return b.Bytes(), nil
}
