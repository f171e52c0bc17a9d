package promql

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// Limits of what a rule file may hold.
const (
	maxFile    = 4 << 20     // bytes
	maxExpr    = 64 << 10    // bytes of one expression, label or annotation
	maxRules   = 10_000      // in one file
	maxErrors  = 20          // told of one file
	maxLabels  = 64          // of one rule, and as many annotations
	maxWritten = 4 * maxFile // bytes of expressions, labels and annotations, when aliases and the labels of groups are written out
	maxFlaws   = 1000        // after which the rest of a file is not read
	maxMerged  = 2 * 1000    // keys and values that << brings to one mapping
)

// groupSpec and ruleSpec are what a rule file says.
type groupSpec struct {
	file, name  string
	interval    time.Duration
	queryOffset time.Duration
	limit       int
	rules       []*ruleSpec
}

type ruleSpec struct {
	alert               bool // else it records
	name, expr          string
	line                int
	hold, keepFiring    time.Duration
	labels, annotations []text
	needs               []need
}

// key identifies a rule within its group: its kind, its name and its labels.
func (r *ruleSpec) key() string {
	k := []string{strconv.FormatBool(r.alert), r.name}
	for _, l := range r.labels {
		k = append(k, l.name, l.source)
	}
	return strings.Join(k, "\x00")
}

// reader reads one rule file. It goes on after an error, so that one look shows all
// that is wrong.
type reader struct {
	file     string
	scope    *scope
	parser   parser.Parser
	interval time.Duration // of groups that say none
	lookback time.Duration
	longest  time.Duration // look-back of a selector
	rules    int
	bytes    int
	stopped  bool // it is too much, and has been said to be
	errs     []flaw
}

// flaw is an error at a line.
type flaw struct {
	line int
	error
}

// place is where in a file something stands.
type place struct {
	line int
	what string // such as group "hosts": alert "Down"; may be empty
}

func (r *reader) fail(at place, format string, args ...any) {
	where := r.file + ":" + strconv.Itoa(at.line) + ": "
	if at.what != "" {
		where += at.what + ": "
	}
	r.errs = append(r.errs, flaw{at.line, fmt.Errorf("%s%w", where, fmt.Errorf(format, args...))})
	r.stopped = r.stopped || len(r.errs) >= maxFlaws
}

// stop is fail for what makes reading on futile.
func (r *reader) stop(at place, format string, args ...any) {
	if !r.stopped {
		r.fail(at, format, args...)
		r.stopped = true
	}
}

// take counts a text that is about to be parsed.
func (r *reader) take(at place, s string) bool {
	if r.bytes += len(s); r.bytes > maxWritten {
		r.stop(at, "written out, the expressions, labels and annotations have more than %d bytes: cut the file in several", maxWritten)
	}
	return !r.stopped
}

func (at place) in(format string, args ...any) place {
	what := fmt.Sprintf(format, args...)
	if at.what != "" {
		what = at.what + ": " + what
	}
	return place{at.line, what}
}

func (at place) on(n *yaml.Node) place { return place{n.Line, at.what} }

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// read reads a whole file.
func (r *reader) read(content []byte) ([]*groupSpec, error) {
	groups := r.document(content)
	if len(r.errs) == 0 {
		return groups, nil
	}
	slices.SortStableFunc(r.errs, func(a, b flaw) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for _, e := range r.errs[:min(len(r.errs), maxErrors)] {
		errs = append(errs, e.error)
	}
	if n := len(r.errs) - maxErrors; n > 0 {
		errs = append(errs, fmt.Errorf("%s: and %d errors more", r.file, n))
	}
	return nil, errors.Join(errs...)
}

func (r *reader) document(content []byte) []*groupSpec {
	top := place{line: 1}
	if len(content) > maxFile {
		r.fail(top, "the file has %d bytes, more than the %d a rule file may have", len(content), maxFile)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		r.fail(top, "the file is empty: want groups: with a list of rule groups")
		return nil
	case err != nil:
		text := err.Error()
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			top.line, _ = strconv.Atoi(m[1])
			text = text[len(m[0]):]
		}
		r.fail(top, "not YAML: %s", strings.TrimPrefix(text, "yaml: "))
		return nil
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		r.fail(top, "there is a second document in the file: only one is read, so put its groups into the first")
		return nil
	}
	root := resolve(doc.Content[0])
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		r.fail(top, "the file is empty: want groups: with a list of rule groups")
		return nil
	}
	fields := r.fields(top.on(root), root, "groups")
	list := r.list(top, fields["groups"], "groups")
	if len(r.errs) == 0 && len(list) == 0 {
		r.fail(top, "the file has no rule groups")
	}
	var groups []*groupSpec
	names := map[string]bool{}
	for _, n := range list {
		if r.stopped {
			break
		}
		if g := r.group(n); g != nil {
			if names[g.name] {
				r.fail(place{line: n.Line}, "group %q stands twice in this file", g.name)
			}
			names[g.name] = true
			groups = append(groups, g)
		}
	}
	return groups
}

func (r *reader) group(n *yaml.Node) *groupSpec {
	at := place{line: n.Line}
	f := r.fields(at, n, "name", "interval", "query_offset", "limit", "labels", "rules")
	if f == nil {
		return nil
	}
	g := &groupSpec{file: r.file, name: r.scalar(at, f["name"], "name"), interval: r.interval}
	if g.name == "" {
		r.fail(at, "the group has no name")
		return nil
	}
	at = at.in("group %q", g.name)
	if d := r.duration(at, f["interval"], "interval"); d != 0 {
		g.interval = d
	}
	g.queryOffset = r.duration(at, f["query_offset"], "query_offset")
	if x := f["limit"]; x != nil {
		v, err := strconv.Atoi(r.scalar(at, x, "limit"))
		if err != nil || v < 0 {
			r.fail(at.on(x), "limit: %q is not a number of alerts or series; 0 is no limit", x.Value)
		}
		g.limit = v
	}
	common := r.strings(at, f["labels"], "labels")
	seen := map[string]int{}
	for _, rn := range r.list(at, f["rules"], "rules") {
		if r.rules++; r.rules > maxRules {
			r.stop(at.on(rn), "the file has more than %d rules: cut it in several", maxRules)
		}
		if r.stopped {
			return nil
		}
		x := r.rule(at.on(rn), rn, common)
		if x == nil {
			continue
		}
		if line, twice := seen[x.key()]; twice && x.alert {
			r.fail(at.on(rn).in("alert %q", x.name), "an alert of this name and with the same labels stands at line %d: "+
				"nobody could tell them apart; give one another name or label", line)
		}
		seen[x.key()] = x.line
		for i := range x.needs {
			x.needs[i].back += g.queryOffset
		}
		g.rules = append(g.rules, x)
	}
	return g
}

func (r *reader) rule(at place, n *yaml.Node, common []pair) *ruleSpec {
	if isLogRule(n) {
		return nil
	}
	f := r.fields(at, n, "alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations")
	if f == nil {
		return nil
	}
	x := &ruleSpec{line: n.Line}
	alert, record := r.scalar(at, f["alert"], "alert"), r.scalar(at, f["record"], "record")
	switch {
	case alert != "" && record != "":
		r.fail(at, "the rule has both alert (%q) and record (%q): want one of them", alert, record)
		return nil
	case alert != "":
		x.alert, x.name = true, alert
		at = at.in("alert %q", alert)
	case record != "":
		x.name = record
		at = at.in("record %q", record)
		if strings.ContainsAny(record, "{}") || !utf8.ValidString(record) {
			r.fail(at, "this is not the name of a metric; an expression belongs under expr")
		}
		for _, key := range []string{"for", "keep_firing_for", "annotations"} {
			if k := f[key]; k != nil {
				r.fail(at.on(k), "%s is for alerts, and this rule records", key)
				delete(f, key)
			}
		}
	default:
		r.fail(at, "the rule has neither alert nor record: want one of them, with a name")
		return nil
	}
	x.hold = r.duration(at, f["for"], "for")
	x.keepFiring = r.duration(at, f["keep_firing_for"], "keep_firing_for")
	if e := f["expr"]; e == nil {
		r.fail(at, "the rule has no expr")
	} else {
		x.expr = r.scalar(at, e, "expr")
		x.needs = r.expression(at.in("expr"), e, x.expr)
	}
	own := r.strings(at, f["labels"], "labels")
	has := map[string]bool{}
	for _, p := range own {
		has[p.name] = true
	}
	for _, p := range common { // the rule's labels stand over the group's
		if !has[p.name] {
			own = append(own, p)
		}
	}
	if len(own) > maxLabels {
		r.fail(at, "the rule has %d labels with those of its group, more than the %d it may have", len(own), maxLabels)
		return nil
	}
	slices.SortFunc(own, func(a, b pair) int { return cmp.Compare(a.name, b.name) })
	for _, p := range own {
		if p.name == nameLabel {
			r.fail(at.on(p.node), "label %q cannot be set", p.name)
		}
		t := r.text(at.on(p.node).in("label %q", p.name), x, p)
		if t.usesValue() {
			r.fail(at.on(p.node).in("label %q", p.name), "the label depends on the value, so every change of the value "+
				"would be a new alert: put it into an annotation")
		}
		x.labels = append(x.labels, t)
	}
	for _, p := range r.strings(at, f["annotations"], "annotations") {
		x.annotations = append(x.annotations, r.text(at.on(p.node).in("annotation %q", p.name), x, p))
	}
	return x
}

// isLogRule finds the rules of rule/sql, which may stand in the same file.
func isLogRule(n *yaml.Node) bool {
	n = resolve(n)
	has := func(key string) bool {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				return true
			}
		}
		return false
	}
	return n.Kind == yaml.MappingNode && has("sql") && !has("expr")
}

func (r *reader) text(at place, x *ruleSpec, p pair) text {
	if !r.take(at, p.value) || !x.alert { // templates are for alerts
		return text{name: p.name, source: p.value}
	}
	t, queries, err := newText(r.scope, p.name, p.value)
	if err != nil {
		r.fail(at, "%w", err)
		return text{name: p.name, source: p.value}
	}
	for _, q := range queries {
		x.needs = append(x.needs, r.query(at, q)...)
	}
	return t
}

// query plans a query in a template. Matchers against what is not known yet are
// left out, so that more series are held rather than too few.
func (r *reader) query(at place, q string) []need {
	err := feasible(q)
	var expr parser.Expr
	if err == nil {
		expr, err = r.parser.ParseExpr(q)
	}
	if err != nil {
		r.fail(at, "query %q: %w", q, err)
		return nil
	}
	needs := r.needs(at, expr)
	for i := range needs {
		n := &needs[i]
		if strings.Contains(n.name, unknown) {
			r.fail(at, "query %q: which metric it reads is not known before it runs", q)
		}
		n.matchers = slices.DeleteFunc(n.matchers, func(m *labels.Matcher) bool { return strings.Contains(m.Value, unknown) })
	}
	return needs
}

func (r *reader) expression(at place, n *yaml.Node, expr string) []need {
	at = at.on(n)
	switch {
	case strings.TrimSpace(expr) == "":
		r.fail(at, "the expression is empty")
		return nil
	case len(expr) > maxExpr:
		r.fail(at, "the expression has %d bytes, more than the %d it may have", len(expr), maxExpr)
		return nil
	}
	if !r.take(at, expr) {
		return nil
	}
	if err := feasible(expr); err != nil {
		r.fail(at, "%w", err)
		return nil
	}
	e, err := r.parser.ParseExpr(expr)
	var errs parser.ParseErrors
	switch {
	case errors.As(err, &errs) && len(errs) > 0:
		// The parser counts from the start of the expression. Below a "|" its lines are
		// lines of the file; in any other style they are not.
		head := expr[:min(max(0, int(errs[0].PositionRange.Start)), len(expr))]
		row, col := strings.Count(head, "\n"), len(head)-strings.LastIndexByte(head, '\n')
		if n.Style&yaml.LiteralStyle != 0 {
			at.line += 1 + row
		} else if row > 0 {
			r.fail(at, "line %d, character %d of the expression: %w", row+1, col, errs[0].Err)
			return nil
		}
		r.fail(at, "character %d of the expression: %w", col, errs[0].Err)
		return nil
	case err != nil:
		r.fail(at, "%w", err)
		return nil
	}
	if t := e.Type(); t != parser.ValueTypeVector && t != parser.ValueTypeScalar {
		r.fail(at, "the expression gives a %s: a rule needs an instant vector or a scalar", parser.DocumentedType(t))
		return nil
	}
	return r.needs(at, e)
}

func (r *reader) needs(at place, e parser.Expr) []need {
	needs, err := needsOf(e, r.lookback)
	if err != nil {
		r.fail(at, "%w", err)
		return nil
	}
	for _, n := range needs {
		if n.back > r.longest {
			r.fail(at, "it looks back %v, more than the %v that are held in memory: raise Config.MaxLookback, or record a shorter step and look back on that",
				n.back, r.longest)
			return nil
		}
	}
	return needs
}

// ---- YAML -------------------------------------------------------------------

// pair is one entry of a mapping of strings.
type pair struct {
	name, value string
	node        *yaml.Node // of the value
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// entries returns the keys and values of a mapping by turns, those taken over with
// << last. Only one level of << is followed.
func (r *reader) entries(at place, n *yaml.Node, what string) []*yaml.Node {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!null" {
			r.fail(at.on(n), "%s has to be a mapping of keys to values", what)
		}
		return nil
	}
	var own, taken []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Tag != "!!merge" {
			own = append(own, k, v)
			continue
		}
		from := []*yaml.Node{v}
		if v = resolve(v); v.Kind == yaml.SequenceNode {
			from = v.Content
		}
		for _, m := range from {
			if m = resolve(m); m.Kind != yaml.MappingNode {
				r.fail(at.on(k), "<< takes a mapping")
				continue
			}
			if taken = append(taken, m.Content...); len(taken) > maxMerged {
				r.fail(at.on(k), "<< brings more than %d keys", maxMerged/2)
				return own
			}
		}
	}
	seen := map[string]int{}
	for i := 0; i < len(own); i += 2 {
		if line, twice := seen[own[i].Value]; twice {
			r.fail(at.on(own[i]), "key %q stands at line %d already", own[i].Value, line)
		}
		seen[own[i].Value] = own[i].Line
	}
	for i := 0; i+1 < len(taken); i += 2 {
		if k := taken[i]; seen[k.Value] == 0 && k.Tag != "!!merge" {
			seen[k.Value] = k.Line
			own = append(own, k, taken[i+1])
		}
	}
	return own
}

// fields returns the values of a mapping with the given keys and no others, or nil
// if it is no mapping.
func (r *reader) fields(at place, n *yaml.Node, keys ...string) map[string]*yaml.Node {
	if resolve(n).Kind != yaml.MappingNode {
		r.fail(at.on(n), "want a mapping with %s", strings.Join(keys, ", "))
		return nil
	}
	f := map[string]*yaml.Node{}
	es := r.entries(at, n, "this")
	for i := 0; i+1 < len(es); i += 2 {
		k := es[i].Value
		if !slices.Contains(keys, k) {
			r.fail(at.on(es[i]), "unknown key %q%s", k, suggest(k, keys))
			continue
		}
		f[k] = es[i+1]
	}
	return f
}

func (r *reader) list(at place, n *yaml.Node, what string) []*yaml.Node {
	if n == nil {
		return nil
	}
	switch l := resolve(n); {
	case l.Kind == yaml.SequenceNode:
		return l.Content
	case l.Kind != yaml.ScalarNode || l.Tag != "!!null":
		r.fail(at.on(n), "%s has to be a list", what)
	}
	return nil
}

// scalar returns the text of a scalar; nothing for a key that is not there.
func (r *reader) scalar(at place, n *yaml.Node, what string) string {
	if n == nil {
		return ""
	}
	v := resolve(n)
	if v.Kind != yaml.ScalarNode {
		r.fail(at.on(n), "%s has to be a single value", what)
		return ""
	}
	if v.Tag == "!!null" {
		return ""
	}
	return v.Value
}

func (r *reader) duration(at place, n *yaml.Node, what string) time.Duration {
	s := r.scalar(at, n, what)
	if s == "" {
		return 0
	}
	d, err := parseDuration(s)
	if err != nil {
		r.fail(at.on(n), "%s: %w", what, err)
	}
	return d
}

// strings returns a mapping of strings, in order of names.
func (r *reader) strings(at place, n *yaml.Node, what string) []pair {
	if n == nil {
		return nil
	}
	es := r.entries(at, n, what)
	if len(es) > 2*maxLabels {
		r.fail(at.on(n), "there are %d %s, more than %d", len(es)/2, what, maxLabels)
		return nil
	}
	var ps []pair
	for i := 0; i+1 < len(es); i += 2 {
		p := pair{es[i].Value, r.scalar(at, es[i+1], what), es[i+1]}
		switch {
		case p.name == "" || !utf8.ValidString(p.name):
			r.fail(at.on(es[i]), "%s: %q is not a name", what, p.name)
		case !utf8.ValidString(p.value):
			r.fail(at.on(es[i]), "%s: the value of %q is not UTF-8", what, p.name)
		case len(p.value) > maxExpr:
			r.fail(at.on(es[i]), "%s: the value of %q has more than %d bytes", what, p.name, maxExpr)
		default:
			ps = append(ps, p)
		}
	}
	slices.SortFunc(ps, func(a, b pair) int { return cmp.Compare(a.name, b.name) })
	return ps
}

// suggest names the key that was meant, if one is at most two letters away.
func suggest(got string, keys []string) string {
	best, least := "", 3
	for _, k := range keys {
		if d := distance(got, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ": want " + strings.Join(keys, ", ")
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

// distance is that of Levenshtein.
func distance(a, b string) int {
	if len(a) > 32 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			step := diagonal
			if a[i] != b[j] {
				step = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], step
		}
	}
	return row[len(b)]
}
