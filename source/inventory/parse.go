package inventory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/kemi-go/kemi"
)

// The labels that are not labels of metrics.
const (
	labelService  = "service"
	labelProfiles = "__profiles__"
	labelAuth     = "__auth__"
	labelInterval = "__interval__"
)

// What a list may be at most. YAML takes some thirty times its size to be read, so
// it may be less.
const (
	maxJSON    = 64 << 20
	maxYAML    = 16 << 20
	maxTargets = 1_000_000
)

// placed is a text with the line it stands on.
type placed struct {
	text string
	line int
}

// group is one element of a list.
type group struct {
	line    int
	targets []placed
	labels  []struct{ name, value placed }
}

// list collects the targets of one text.
type list struct {
	name    string // of the file or URL
	targets []Target
}

func (l *list) errorf(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", l.name, line, fmt.Errorf(format, args...))
}

// parse reads a list that is JSON or, if that is false, YAML. The name is for
// messages.
func parse(name string, text []byte, isJSON bool) ([]Target, error) {
	l := &list{name: name, targets: []Target{}}
	limit, read := maxYAML, l.yaml
	if isJSON {
		limit, read = maxJSON, l.json
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // as some editors write
	if len(text) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes: divide it into several lists", name, limit)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, fmt.Errorf("%s: is empty: write [] if there are no targets", name)
	}
	if !utf8.Valid(text) {
		return nil, l.errorf(lineAt(text, invalidAt(text)), "is not UTF-8")
	}
	if err := read(text); err != nil {
		return nil, err
	}
	return l.targets, nil
}

func invalidAt(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(text)
}

// lineAt returns the line, from 1, of a place in text.
func lineAt(text []byte, offset int) int {
	return 1 + bytes.Count(text[:min(max(offset, 0), len(text))], []byte("\n"))
}

// add makes the targets of a group.
func (l *list) add(g *group) error {
	if len(l.targets)+len(g.targets) > maxTargets {
		return l.errorf(g.line, "more than %d targets", maxTargets)
	}
	if len(g.labels) > maxLabels {
		return l.errorf(g.line, "%d labels: at most %d", len(g.labels), maxLabels)
	}
	var common Target
	var labels []kemi.Label
	for _, lb := range g.labels {
		v := lb.value.text
		switch lb.name.text {
		case kemi.LabelHost:
			common.Resource = v
		case labelService:
			common.Service = v
		case labelAuth:
			common.Auth = v
		case labelProfiles:
			for p := range strings.SplitSeq(v, ",") {
				common.Profiles = append(common.Profiles, strings.TrimSpace(p))
			}
		case labelInterval:
			d, err := time.ParseDuration(v)
			if err != nil || d == 0 {
				return l.errorf(lb.value.line, "%s: %s is no duration: write it as 10s or 5m", labelInterval, quote(v))
			}
			common.Interval = d
		case "":
			return l.errorf(lb.name.line, "a label without a name")
		default:
			if !strings.HasPrefix(lb.name.text, "__") {
				labels = append(labels, kemi.Label{Name: lb.name.text, Value: v})
			}
		}
	}
	common.Labels = kemi.NewLabels(labels...)
	for _, at := range g.targets {
		t := common
		t.Address = at.text
		if err := t.check(); err != nil {
			return l.errorf(at.line, "%w", err)
		}
		t.Place = fmt.Sprintf("%s:%d", l.name, at.line)
		l.targets = append(l.targets, t)
	}
	return nil
}

// ---- JSON -----------------------------------------------------------------------

// json reads the groups one by one, so that the line of each is known.
func (l *list) json(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	at, line := 0, 1 // where the next group begins
	advance := func() {
		next := int(dec.InputOffset())
		line += bytes.Count(text[at:next], []byte("\n"))
		at = next
	}
	if tok, err := dec.Token(); err != nil || tok != json.Delim('[') {
		return l.errorf(lineAt(text, len(text)-len(bytes.TrimLeft(text, " \t\r\n"))), "want a JSON list of groups: [{\"targets\": [...], \"labels\": {...}}]")
	}
	for dec.More() {
		advance()
		skip := len(text[at:]) - len(bytes.TrimLeft(text[at:], ", \t\r\n"))
		line += bytes.Count(text[at:at+skip], []byte("\n"))
		at += skip
		var g *struct {
			Targets []string          `json:"targets"`
			Labels  map[string]string `json:"labels"`
		}
		if err := dec.Decode(&g); err != nil {
			return l.jsonError(text, at, line, err)
		}
		if g == nil {
			return l.errorf(line, "want a group of targets, not null")
		}
		in := group{line: line}
		for _, t := range g.Targets {
			in.targets = append(in.targets, placed{t, line})
		}
		for _, n := range slices.Sorted(maps.Keys(g.Labels)) {
			v := g.Labels[n]
			in.labels = append(in.labels, struct{ name, value placed }{placed{n, line}, placed{v, line}})
		}
		if err := l.add(&in); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return l.jsonError(text, len(text), lineAt(text, len(text)), err)
	}
	if rest := text[dec.InputOffset():]; len(bytes.TrimSpace(rest)) > 0 {
		return l.errorf(lineAt(text, int(dec.InputOffset())), "there is more after the end of the list")
	}
	return nil
}

// jsonError finds the line of an error in the group that begins at at.
func (l *list) jsonError(text []byte, at, line int, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return l.errorf(lineAt(text, len(text)), "the list ends too early")
	case errors.As(err, &syntax):
		// The Decoder counts from somewhere in the middle; Unmarshal does not.
		errors.As(json.Unmarshal(text, new(json.RawMessage)), &syntax)
		return l.errorf(lineAt(text, int(syntax.Offset)-1), "%w", syntax)
	case errors.As(err, &kind):
		where := "the group"
		if kind.Field != "" {
			where = kind.Field
		}
		return l.errorf(lineAt(text, at+int(kind.Offset)-1), "%s: a JSON %s where a %v was expected", where, kind.Value, kind.Type)
	}
	return l.errorf(line, "%w", errors.New(strings.TrimPrefix(err.Error(), "json: ")))
}

// ---- YAML -----------------------------------------------------------------------

func (l *list) yaml(text []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) { // nothing but comments
			return fmt.Errorf("%s: is empty: write [] if there are no targets", l.name)
		}
		return l.yamlError(text, err)
	}
	switch err := dec.Decode(new(yaml.Node)); {
	case err == nil:
		return fmt.Errorf("%s: more than one YAML document: make it one list", l.name)
	case !errors.Is(err, io.EOF):
		return l.yamlError(text, err)
	}
	root := follow(doc.Content[0])
	if root.Kind != yaml.SequenceNode {
		return l.errorf(root.Line, "want a list of groups, each with targets and labels")
	}
	for _, n := range root.Content {
		g, err := l.yamlGroup(n)
		if err != nil {
			return err
		}
		if err := l.add(g); err != nil {
			return err
		}
	}
	return nil
}

// yamlError puts the place in front. The package yaml counts lines from 0 in the
// errors of its parser, though from 1 in those of its scanner; they can be told apart
// by their words alone.
func (l *list) yamlError(src []byte, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	rest, ok := strings.CutPrefix(text, "line ")
	number, reason, _ := strings.Cut(rest, ": ")
	line, convErr := strconv.Atoi(number)
	if !ok || convErr != nil {
		return fmt.Errorf("%s: %s", l.name, text)
	}
	for _, words := range []string{"expected ',' or", "expected key", "expected '-' indicator", "expected node content", "expected <document start>"} {
		if strings.Contains(reason, words) {
			line++
			break
		}
	}
	return l.errorf(min(line, lineAt(src, len(src))), "%s", reason)
}

// follow returns what an alias stands for. The work stays bounded: nothing here
// goes deeper than groups, targets and labels, and each of these has its limit.
func follow(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func (l *list) yamlGroup(n *yaml.Node) (*group, error) {
	g := &group{line: n.Line}
	m := follow(n)
	if m.Kind != yaml.MappingNode {
		return nil, l.errorf(n.Line, "want a group: targets and labels")
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(m.Content); i += 2 {
		key, value := m.Content[i], follow(m.Content[i+1])
		if seen[key.Value] {
			return nil, l.errorf(key.Line, "%s is there twice", quote(key.Value))
		}
		seen[key.Value] = true
		var err error
		switch key.Value {
		case "targets":
			g.targets, err = l.yamlTargets(value)
		case "labels":
			err = l.yamlLabels(g, value)
		default:
			err = l.errorf(key.Line, "%s is not known here: want targets and labels", quote(key.Value))
		}
		if err != nil {
			return nil, err
		}
	}
	return g, nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (l *list) yamlTargets(n *yaml.Node) ([]placed, error) {
	if isNull(n) {
		return nil, nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, l.errorf(n.Line, "targets: want a list, even of one: [host]")
	}
	targets := make([]placed, 0, len(n.Content))
	for _, t := range n.Content {
		if t = follow(t); t.Kind != yaml.ScalarNode || isNull(t) {
			return nil, l.errorf(t.Line, "targets: want host or host:port")
		}
		targets = append(targets, placed{t.Value, t.Line})
	}
	return targets, nil
}

func (l *list) yamlLabels(g *group, n *yaml.Node) error {
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return l.errorf(n.Line, "labels: want names and values")
	}
	if len(n.Content) > 2*maxLabels {
		return l.errorf(n.Line, "%d labels: at most %d", len(n.Content)/2, maxLabels)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := follow(n.Content[i]), follow(n.Content[i+1])
		if name.Kind != yaml.ScalarNode || value.Kind != yaml.ScalarNode {
			return l.errorf(n.Content[i].Line, "label %s: want a text", quote(name.Value))
		}
		v := value.Value
		if isNull(value) {
			v = ""
		}
		for _, have := range g.labels {
			if have.name.text == name.Value {
				return l.errorf(n.Content[i].Line, "label %s is there twice", quote(name.Value))
			}
		}
		g.labels = append(g.labels, struct{ name, value placed }{placed{name.Value, name.Line}, placed{v, value.Line}})
	}
	return nil
}
