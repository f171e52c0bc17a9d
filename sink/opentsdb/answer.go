package opentsdb

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/reply"
)

// answer is what the server said to a put.
type answer struct {
	err      error // it cannot be judged point by point; the text has no credentials
	tooLarge bool  // of err: the body was
	closed   bool  // of err: the connection was closed without an answer

	empty                     bool // stored, without counts
	success, failed, timeouts int
	details                   []detail
	secrets                   reply.Secrets // that the texts in details may hold
}

// detail is one entry of the errors in an answer.
type detail struct {
	Datapoint struct {
		Metric    string            `json:"metric"`
		Timestamp json.Number       `json:"timestamp"`
		Tags      map[string]string `json:"tags"`
	} `json:"datapoint"`
	Error string `json:"error"`
}

// read makes an answer of a response to n points, which took size bytes as JSON. It
// reads no more than an honest answer can have: two entries for each point, each with
// the point and an error text that repeats it.
func (s *Sink) read(resp *http.Response, size, n int) answer {
	limit := &io.LimitedReader{R: resp.Body, N: int64(64<<10 + 8*size + 2048*n)}
	r := bufio.NewReader(limit)
	first, err := peekText(r)
	secrets := s.secretsOf(resp.Request)
	status := secrets.Clip(resp.Status)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return answer{err: fmt.Errorf("%s: reading the answer: %w", s.name, secrets.Error(err))}
	case resp.StatusCode == http.StatusNoContent:
		return answer{empty: true}
	case resp.StatusCode == http.StatusOK && err != nil:
		// Only where the end was announced is an answer of nothing told from one that was cut off.
		if resp.ContentLength >= 0 || slices.Contains(resp.TransferEncoding, "chunked") {
			return answer{empty: true}
		}
		return answer{err: fmt.Errorf("%s: %s: the connection was closed where an answer should be", s.name, status)}
	case resp.StatusCode == http.StatusRequestEntityTooLarge:
		return answer{tooLarge: true, err: fmt.Errorf("%s: %s: the request is too large for what is in front of the server", s.name, status)}
	case (resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusBadRequest) && first == '{':
		a := answer{secrets: secrets}
		counted, message, err := a.decode(r)
		switch {
		case counted && err == nil:
			return a
		case message != "":
			return answer{err: fmt.Errorf("%s: %s: %s", s.name, status, secrets.Clip(message))}
		case limit.N <= 0:
			return answer{err: fmt.Errorf("%s: %s: the answer is longer than any answer to %d points: is this an OpenTSDB?", s.name, status, n)}
		case err != nil:
			return answer{err: fmt.Errorf("%s: %s: the answer breaks off or is no JSON: %w", s.name, status, secrets.Error(err))}
		}
		return answer{err: fmt.Errorf("%s: %s: the answer has no counts: is this an OpenTSDB?", s.name, status)}
	}
	text, _ := io.ReadAll(io.LimitReader(r, 2048))
	if resp.StatusCode == http.StatusBadRequest && bytes.Contains(text, []byte("Chunked request not supported")) {
		return answer{tooLarge: true, err: fmt.Errorf("%s: %s: the request is too large: set tsd.http.request.enable_chunked = true on the server", s.name, status)}
	}
	hint := ""
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		hint = ": look at the user in the URL and at Config.Authorize"
	case code == http.StatusNotFound, code == http.StatusMethodNotAllowed:
		hint = ": look at the URL; a server with tsd.mode = ro takes no put"
	case code >= 300 && code < 400:
		hint = ": redirects are not followed: look at the URL"
	case code < 300:
		hint = ": this is no answer of an OpenTSDB: look at the URL"
	}
	err = fmt.Errorf("%s: %s%s: %s", s.name, status, hint, secrets.Clip(string(text)))
	return answer{err: kemi.RetryAfter(err, reply.RetryAfter(resp.Header, time.Now()))}
}

// peekText returns the first byte that is not white space, without taking it, or white
// space if there is more of that than an honest answer begins with.
func peekText(r *bufio.Reader) (c byte, err error) {
	for range 256 {
		if c, err = r.ReadByte(); err != nil {
			return 0, err
		}
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return c, r.UnreadByte()
		}
	}
	return c, nil
}

// decode reads {"success":…,"failed":…,"timeouts":…,"errors":[…]}, in any order, entry by
// entry, or the message of {"error":{…}}.
func (a *answer) decode(r io.Reader) (counted bool, message string, err error) {
	dec := json.NewDecoder(r)
	if _, err := dec.Token(); err != nil { // {
		return false, "", err
	}
	var seen struct{ success, failed bool }
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return false, message, err
		}
		switch key {
		case "success":
			seen.success = true
			err = dec.Decode(&a.success)
		case "failed":
			seen.failed = true
			err = dec.Decode(&a.failed)
		case "timeouts":
			err = dec.Decode(&a.timeouts)
		case "errors":
			err = a.decodeDetails(dec)
		case "error":
			var e struct {
				Message string `json:"message"`
				Details string `json:"details"`
			}
			err = dec.Decode(&e)
			message = strings.TrimSpace(e.Message + " " + e.Details)
		default:
			var skip json.RawMessage
			err = dec.Decode(&skip)
		}
		if err != nil {
			return false, message, err
		}
	}
	_, err = dec.Token() // }
	ok := seen.success && seen.failed && a.success >= 0 && a.failed >= 0 && a.timeouts >= 0
	return ok, message, err
}

func (a *answer) decodeDetails(dec *json.Decoder) error {
	t, err := dec.Token()
	if err != nil || t == nil {
		return err // null: no details
	}
	if t != json.Delim('[') {
		return errors.New("errors is no list")
	}
	for dec.More() {
		var d detail
		// An entry of another shape names no point. It still counts as one.
		if err := dec.Decode(&d); err != nil {
			if _, shape := errors.AsType[*json.UnmarshalTypeError](err); !shape {
				return err
			}
		}
		a.details = append(a.details, d)
	}
	_, err = dec.Token()
	return err
}

// What the server says of points it could not store yet.
const (
	timedOut = "Write timedout"
	throttle = "Please throttle"
	// throttled is how long to leave a server alone that asks for it.
	throttled = time.Second
)

// judge takes the answer to points [i,j) apart. When it does not say for certain
// which points failed, none counts as stored: the request is halved until the answer
// is plain, if the server only refused points for what they are; else waiting is what
// helps, and all are tried again later.
func (d *delivery) judge(a *answer, i, j int) {
	n := j - i
	if a.empty || a.success == n && a.failed == 0 && a.timeouts == 0 {
		return
	}
	s := d.sink
	var (
		named   = map[int]error{} // by index into points
		texts   = map[string]error{}
		index   = d.index(i, j)
		certain = a.timeouts == 0 && a.success+a.failed == n
		wait    error // what may pass
	)
	for k := range a.details {
		x := &a.details[k]
		err := texts[x.Error]
		if err == nil {
			err = s.explain(x, a.secrets)
			texts[x.Error] = err
		}
		at, found := index[x.key()]
		if n == 1 { // whatever the echo looks like
			at, found = i, true
		}
		switch {
		case x.Error == timedOut:
			// The point told with it may be the wrong one: after refused points, the server
			// takes the number of a write for the number of a point (seen on 2.4.1).
			wait = err
		case !kemi.IsPermanent(err):
			wait = err
			if found && named[at] == nil {
				named[at] = err
			}
		case found:
			named[at] = err
		}
	}
	switch {
	case certain && len(named) == a.failed:
	case wait == nil && a.timeouts == 0 && a.failed > 0 && n > 1:
		d.halve(i, j)
		return
	default:
		if wait == nil {
			wait = fmt.Errorf("%s: the answer does not say which of %d points failed: %d stored, %d failed, %d timed out, %d named",
				s.name, n, a.success, a.failed, a.timeouts, len(a.details))
		}
		for k := i; k < j; k++ {
			if named[k] == nil {
				named[k] = wait
			}
		}
	}
	for k, err := range named {
		d.fail(k, k+1, err)
	}
	// A server that is stuck, or has too much, is left alone.
	for _, text := range []string{timedOut, throttle} {
		if err := texts[text]; err != nil {
			d.stop.CompareAndSwap(nil, &err)
		}
	}
}

// index finds points [i,j) by what the server tells back of them. A request has each
// series and time once, so the value is not needed.
func (d *delivery) index(i, j int) map[string]int {
	m := make(map[string]int, j-i)
	for k := i; k < j; k++ {
		var x detail
		if json.Unmarshal(d.json[d.points[k].start:d.points[k].end], &x.Datapoint) == nil {
			m[x.key()] = k
		}
	}
	return m
}

// key is metric, time and tags.
func (x *detail) key() string {
	b := append([]byte(x.Datapoint.Metric), 0)
	b = append(b, x.Datapoint.Timestamp...)
	b = append(b, 0)
	tags, _ := json.Marshal(x.Datapoint.Tags) // in order of names
	return string(append(b, tags...))
}

// explain makes an error of a detail: permanent when the point was refused for what
// it is, and no waiting would help.
func (s *Sink) explain(x *detail, secrets reply.Secrets) error {
	text := x.Error
	switch {
	case text == "Unknown metric":
		return kemi.Permanent(fmt.Errorf("%s: unknown metric or tag, such as %s: set tsd.core.auto_create_metrics = true on the server, or make the name there with tsdb mkmetric",
			s.name, strconv.Quote(secrets.Clip(x.Datapoint.Metric))))
	case text == throttle:
		return kemi.RetryAfter(fmt.Errorf("%s: Please throttle: too much waits for HBase", s.name), throttled)
	case text == timedOut:
		return fmt.Errorf("%s: not stored within %v", s.name, s.cfg.SyncTimeout)
	case text == "Timeout exception", text == "Unexpected exception", text == "Not cached yet", text == "",
		strings.HasPrefix(text, "Storage exception"):
		return fmt.Errorf("%s: %s", s.name, secrets.Clip(text))
	}
	return kemi.Permanent(fmt.Errorf("%s: the server refused the point: %s", s.name, secrets.Clip(text)))
}
