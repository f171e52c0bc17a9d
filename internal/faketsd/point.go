package faketsd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Point is one stored value.
type Point struct {
	Metric    string
	Tags      map[string]string
	Timestamp int64  // as it was sent: seconds or milliseconds
	Value     string // as it was sent
	Float     bool   // how it was stored
	encoding  encoding
}

// encoding is the qualifier of a cell: how many bytes, integer or float.
type encoding struct {
	float bool
	width int
}

// echo is a data point as OpenTSDB's IncomingDataPoint: what was understood of the
// JSON, and what the details tell back.
type echo struct {
	Metric    *string            `json:"metric,omitempty"`
	Timestamp int64              `json:"timestamp"`
	Value     *string            `json:"value,omitempty"`
	Tags      map[string]*string `json:"tags,omitempty"`
}

const notJSON = "Unable to parse the given JSON"

// parse reads the body of a put. The message is that of a 400 for all of it.
func parse(body []byte) ([]*echo, string) {
	var raw []json.RawMessage
	switch body[0] {
	case '{':
		raw = []json.RawMessage{body}
	case '[':
		if json.Unmarshal(body, &raw) != nil {
			return nil, notJSON
		}
	default:
		return nil, "The JSON must start as an object or an array"
	}
	points := make([]*echo, len(raw))
	for i, r := range raw {
		if bytes.Equal(bytes.TrimSpace(r), []byte("null")) {
			continue
		}
		p, err := parsePoint(r)
		if err != nil {
			return nil, notJSON
		}
		points[i] = p
	}
	return points, ""
}

func parsePoint(r []byte) (*echo, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(r, &fields); err != nil {
		return nil, err
	}
	p := &echo{}
	var err error
	if p.Metric, err = javaString(fields["metric"]); err != nil {
		return nil, err
	}
	if p.Value, err = javaString(fields["value"]); err != nil {
		return nil, err
	}
	if t, ok := fields["timestamp"]; ok {
		if p.Timestamp, err = javaLong(t); err != nil {
			return nil, err
		}
	}
	if t, ok := fields["tags"]; ok && string(t) != "null" {
		var tags map[string]json.RawMessage
		if err := json.Unmarshal(t, &tags); err != nil {
			return nil, err
		}
		p.Tags = map[string]*string{}
		for k, v := range tags {
			if p.Tags[k], err = javaString(v); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

var errType = errors.New("a value of the wrong type")

// javaString reads what Jackson makes a String of: strings, and the text of numbers
// and booleans.
func javaString(r json.RawMessage) (*string, error) {
	if len(r) == 0 || string(r) == "null" {
		return nil, nil
	}
	s := string(r)
	switch r[0] {
	case '{', '[':
		return nil, errType
	case '"':
		if err := json.Unmarshal(r, &s); err != nil {
			return nil, err
		}
	}
	return &s, nil
}

// javaLong reads what Jackson makes a long of: a number, its fraction cut off, or a
// string of digits.
func javaLong(r json.RawMessage) (int64, error) {
	if len(r) > 0 && r[0] == '"' {
		var s string
		if err := json.Unmarshal(r, &s); err != nil {
			return 0, err
		}
		return strconv.ParseInt(s, 10, 64)
	}
	if n, err := strconv.ParseInt(string(r), 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(string(r), 64)
	if err != nil || math.Abs(f) >= math.MaxInt64 {
		return 0, errType
	}
	return int64(f), nil
}

// check is IncomingDataPoint.validate and what TSDB.addPoint looks at, in the same
// order. It gives the encoding, or the error text.
func (s *Server) check(p *echo) (encoding, string) {
	none := encoding{}
	switch {
	case p.Metric == nil || *p.Metric == "":
		return none, "Metric name was empty"
	case p.Timestamp <= 0:
		return none, "Invalid timestamp"
	case p.Value == nil || *p.Value == "":
		return none, "Empty value"
	case len(p.Tags) == 0:
		return none, "Missing tags"
	}
	enc, cell, message := value(p)
	if message != "" {
		return none, message
	}
	if p.Timestamp>>32 != 0 && p.Timestamp > 9999999999999 {
		return none, fmt.Sprintf("bad timestamp=%d when trying to add value=%s to metric=%s, tags=%s",
			p.Timestamp, cell, *p.Metric, javaMap(p.Tags))
	}
	if len(p.Tags) > s.cfg.MaxTags {
		return none, fmt.Sprintf("Too many tags: %d maximum allowed: %d, tags: %s", len(p.Tags), s.cfg.MaxTags, javaMap(p.Tags))
	}
	if m := s.name("metric name", p.Metric); m != "" {
		return none, m
	}
	for _, k := range sortedKeys(p.Tags) {
		if m := s.name("tag name with value ["+text(p.Tags[k])+"]", &k); m != "" {
			return none, m
		}
		if m := s.name("tag value with key ["+k+"]", p.Tags[k]); m != "" {
			return none, m
		}
	}
	return enc, ""
}

// value is Tags.looksLikeInteger, Tags.parseLong and Double.parseDouble.
func value(p *echo) (enc encoding, cell, message string) {
	const bad = "Unable to parse value to a number"
	v := *p.Value
	if !strings.ContainsAny(v, ".eE") {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return enc, "", bad
		}
		width := 8
		switch {
		case n >= math.MinInt8 && n <= math.MaxInt8:
			width = 1
		case n >= math.MinInt16 && n <= math.MaxInt16:
			width = 2
		case n >= math.MinInt32 && n <= math.MaxInt32:
			width = 4
		}
		return encoding{width: width}, javaBytes(uint64(n), width) + "/" + strconv.Itoa(width-1), ""
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return enc, "", bad
	}
	if math.IsInf(f, 0) || math.IsNaN(f) {
		word := "Infinity"
		if f < 0 {
			word = "-Infinity"
		}
		return enc, "", fmt.Sprintf("value is NaN or Infinite: %s for metric=%s timestamp=%d", word, *p.Metric, p.Timestamp)
	}
	return encoding{true, 8}, javaBytes(math.Float64bits(f), 8) + "/15", ""
}

// name is Tags.validateString.
func (s *Server) name(what string, n *string) string {
	switch {
	case n == nil:
		return "Invalid " + what + ": null"
	case *n == "":
		return "Invalid " + what + ": empty string"
	}
	for _, c := range *n {
		switch {
		case c < 0x80 && (unicode.IsLetter(c) || unicode.IsDigit(c)), strings.ContainsRune("-_./", c),
			c >= 0x80 && c != unicode.ReplacementChar && unicode.IsLetter(c), strings.ContainsRune(s.cfg.AllowSpecialChars, c):
		default:
			return fmt.Sprintf("Invalid %s (\"%s\"): illegal character: %c", what, *n, c)
		}
	}
	return ""
}

func text(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// javaMap prints a map as Java does, but always in order.
func javaMap(m map[string]*string) string {
	var parts []string
	for _, k := range sortedKeys(m) {
		parts = append(parts, k+"="+text(m[k]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// javaBytes prints the last n bytes of v as Java's Arrays.toString does.
func javaBytes(v uint64, n int) string {
	var parts []string
	for i := n - 1; i >= 0; i-- {
		parts = append(parts, strconv.Itoa(int(int8(v>>(8*i)))))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}
