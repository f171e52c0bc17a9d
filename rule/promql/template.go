package promql

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
	"time"
	"unicode"

	prom "github.com/prometheus/prometheus/promql"
)

// maxText bounds what a template may write.
const maxText = 64 << 10

// scope is what the templates of all rules see of the evaluation under way. It is
// used by one evaluation at a time.
type scope struct {
	query          func(expr string) (vector, error)
	now            millis
	stop           func() error // what ends the evaluation, if it has to end
	steps          int          // of the text being written
	externalURL    *url.URL
	externalLabels map[string]string
}

// text is a label or annotation of an alerting rule.
type text struct {
	name, source string
	scope        *scope
	tmpl         *template.Template // nil: the source is the text
}

// data is the dot of a template. The fields are called as in Prometheus.
type data struct {
	Labels         map[string]string
	ExternalLabels map[string]string
	ExternalURL    string
	Value          any // a float64, or a *histogram.FloatHistogram
}

// point and vector are the result of query.
type (
	point struct {
		Labels map[string]string
		Value  any
	}
	vector []*point
)

const definitions = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}"

// newText parses a label or annotation. The queries in it are returned as
// expressions, so that the store holds what they select.
func newText(sc *scope, name, source string) (text, []string, error) {
	x := text{name: name, source: source, scope: sc}
	if !strings.Contains(source, "{{") {
		return x, nil, nil
	}
	t, err := template.New("").Option("missingkey=zero").Funcs(sc.functions()).Parse(definitions + source)
	if err != nil {
		return x, nil, errors.New(strings.TrimPrefix(err.Error(), "template: :1: "))
	}
	x.tmpl = t
	var queries []string
	for _, sub := range t.Templates() {
		if sub.Tree == nil {
			continue
		}
		q, err := queriesOf(sub.Root)
		if err != nil {
			return x, nil, err
		}
		queries = append(queries, q...)
	}
	return x, queries, sc.bound(t)
}

// usesValue says whether the text depends on the value of the alert.
func (x *text) usesValue() bool {
	if x.tmpl == nil {
		return false
	}
	used := false
	for _, n := range x.tmpl.Root.Nodes[strings.Count(definitions, "{{"):] {
		walk(n, func(n parse.Node) {
			switch n := n.(type) {
			case *parse.VariableNode:
				used = used || n.Ident[0] == "$value" || n.Ident[0] == "$" && len(n.Ident) > 1 && n.Ident[1] == "Value"
			case *parse.FieldNode:
				used = used || n.Ident[0] == "Value"
			}
		})
	}
	return used
}

// expand writes the text for one alert. A template that fails gives, as in
// Prometheus, a text that says so: an alert without a good description is better
// than none.
func (x *text) expand(d *data) (string, error) {
	if x.tmpl == nil {
		return x.source, nil
	}
	var w limited
	x.scope.steps = 0
	if err := x.scope.over(); err != nil {
		return "<error expanding template: " + err.Error() + ">", err
	}
	if err := x.tmpl.Execute(&w, d); err != nil {
		err = fmt.Errorf("template of %s: %s", x.name, strings.TrimPrefix(err.Error(), "template: "))
		return "<error expanding template: " + err.Error() + ">", err
	}
	return w.String(), nil
}

// limited is a buffer with an end.
type limited struct{ strings.Builder }

func (l *limited) Write(b []byte) (int, error) {
	if l.Len()+len(b) > maxText {
		return 0, errText
	}
	return l.Builder.Write(b)
}

// walk goes through a part of a template. What a pipe declares is left out.
func walk(n parse.Node, visit func(parse.Node)) {
	branch := func(b *parse.BranchNode) {
		walk(b.Pipe, visit)
		walk(b.List, visit)
		if b.ElseList != nil {
			walk(b.ElseList, visit)
		}
	}
	switch n := n.(type) {
	case *parse.ListNode:
		for _, c := range n.Nodes {
			walk(c, visit)
		}
		return
	case *parse.ActionNode:
		walk(n.Pipe, visit)
		return
	case *parse.IfNode:
		branch(&n.BranchNode)
		return
	case *parse.RangeNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
		return
	case *parse.TemplateNode:
		if n.Pipe != nil {
			walk(n.Pipe, visit)
		}
	case *parse.PipeNode:
		visit(n)
		for _, c := range n.Cmds {
			for _, a := range c.Args {
				walk(a, visit)
			}
		}
		return
	case *parse.ChainNode:
		walk(n.Node, visit)
	}
	visit(n)
}

// queriesOf finds the expressions given to query.
func queriesOf(root parse.Node) (found []string, err error) {
	walk(root, func(n parse.Node) {
		pipe, ok := n.(*parse.PipeNode)
		if !ok {
			return
		}
		for i, c := range pipe.Cmds {
			if id, ok := c.Args[0].(*parse.IdentifierNode); !ok || id.Ident != "query" {
				continue
			}
			var expr string
			var known bool
			switch {
			case len(c.Args) == 2:
				expr, known = textOf(c.Args[1])
			case len(c.Args) == 1 && i > 0:
				expr, known = textOfCommand(pipe.Cmds[i-1])
			}
			if !known {
				err = fmt.Errorf("%s: which series it reads is not known before it runs: give query a text, or printf with one", pipe)
			}
			found = append(found, expr)
		}
	})
	return found, err
}

func textOf(n parse.Node) (string, bool) {
	switch n := n.(type) {
	case *parse.StringNode:
		return n.Text, true
	case *parse.PipeNode:
		return textOfCommand(n.Cmds[len(n.Cmds)-1])
	}
	return "", false
}

// unknown stands for a text that is known only when a template runs.
const unknown = "kemi_unknown_text"

var verb = regexp.MustCompile(`%[-+# 0]*[0-9]*(\.[0-9]+)?[a-zA-Z%]`)

// textOfCommand returns the text of a command: a string by itself, or the format of
// a printf with stand-ins for its arguments.
func textOfCommand(c *parse.CommandNode) (string, bool) {
	if id, ok := c.Args[0].(*parse.IdentifierNode); ok && id.Ident == "printf" && len(c.Args) > 1 {
		format, ok := c.Args[1].(*parse.StringNode)
		if !ok {
			return "", false
		}
		return verb.ReplaceAllStringFunc(format.Text, func(v string) string {
			switch v[len(v)-1] {
			case '%':
				return "%"
			case 'q':
				return strconv.Quote(unknown)
			case 's', 'v':
				return unknown
			}
			return "1"
		}), true
	}
	if len(c.Args) == 1 {
		return textOf(c.Args[0])
	}
	return "", false
}

func points(v prom.Vector) vector {
	ps := make(vector, len(v))
	for i, s := range v {
		ps[i] = &point{Labels: s.Metric.Map(), Value: s.F}
		if s.H != nil {
			ps[i].Value = s.H
		}
	}
	return ps
}

// functions are those of Prometheus that make sense in a rule (all but tmpl, which
// is for consoles), and give what they give there.
// See https://prometheus.io/docs/prometheus/latest/configuration/template_reference/.
func (sc *scope) functions() template.FuncMap {
	return template.FuncMap{
		"query": func(expr string) (vector, error) { return sc.query(expr) },
		"first": func(v vector) (*point, error) {
			if len(v) == 0 {
				return nil, errors.New("first() called on vector with no elements")
			}
			return v[0], nil
		},
		"label":    func(name string, p *point) string { return p.Labels[name] },
		"value":    func(p *point) any { return p.Value },
		"strvalue": func(p *point) string { return p.Labels["__value__"] },
		"sortByLabel": func(name string, v vector) vector {
			slices.SortStableFunc(v, func(a, b *point) int { return cmp.Compare(a.Labels[name], b.Labels[name]) })
			return v
		},
		"args": func(args ...any) (map[string]any, error) {
			m := map[string]any{}
			for i, a := range args {
				m["arg"+strconv.Itoa(i)] = a
			}
			return m, weighAll(args)
		},
		"match": func(p, s string) (bool, error) {
			re, err := sc.pattern(p, s)
			return err == nil && re.MatchString(s), err
		},
		"reReplaceAll": sc.reReplaceAll,
		// Those of text/template, with an end.
		"printf": printf, "print": bounded(fmt.Sprint), "println": bounded(fmt.Sprintln),
		"html": bounded(template.HTMLEscaper), "js": bounded(template.JSEscaper), "urlquery": bounded(template.URLQueryEscaper),
		stepName:             sc.step,
		"title":              boundedString(title),
		"toUpper":            boundedString(strings.ToUpper),
		"toLower":            boundedString(strings.ToLower),
		"safeHtml":           func(s string) string { return s }, // an alert is no web page
		"urlQueryEscape":     boundedString(url.QueryEscape),
		"graphLink":          boundedString(func(expr string) string { return "/graph?g0.expr=" + url.QueryEscape(expr) + "&g0.tab=0" }),
		"tableLink":          boundedString(func(expr string) string { return "/graph?g0.expr=" + url.QueryEscape(expr) + "&g0.tab=1" }),
		"pathPrefix":         func() string { return sc.externalURL.Path },
		"externalURL":        func() string { return sc.externalURL.String() },
		"stripPort":          stripPort,
		"stripDomain":        stripDomain,
		"humanize":           humanize,
		"humanize1024":       humanize1024,
		"humanizeDuration":   humanizeDuration,
		"humanizePercentage": humanizePercentage,
		"humanizeTimestamp":  humanizeTimestamp,
		"now":                func() float64 { return float64(sc.now) / 1000 },
		"toTime":             toTime,
		"toDuration": func(i any) (time.Duration, error) {
			v, err := number(i)
			return time.Duration(v * float64(time.Second)), err
		},
		"parseDuration": func(s string) (float64, error) {
			sign := 1.0
			if rest, ok := strings.CutPrefix(s, "-"); ok {
				s, sign = rest, -1
			}
			d, err := parseDuration(s)
			return sign * d.Seconds(), err
		},
	}
}

// number takes what a template may call a number.
func number(i any) (float64, error) {
	switch v := i.(type) {
	case float64:
		return v, nil
	case string:
		return strconv.ParseFloat(v, 64)
	case int:
		return float64(v), nil
	case int64:
		return float64(v), nil
	case uint64:
		return float64(v), nil
	case time.Duration:
		return v.Seconds(), nil
	}
	return 0, fmt.Errorf("can't convert %T to float", i)
}

var (
	large = []string{"k", "M", "G", "T", "P", "E", "Z", "Y"}
	small = []string{"m", "u", "n", "p", "f", "a", "z", "y"}
)

func isOdd(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }

func humanize(i any) (string, error) {
	v, err := number(i)
	switch {
	case err != nil:
		return "", err
	case v == 0 || isOdd(v):
		return fmt.Sprintf("%.4g", v), nil
	case math.Abs(v) >= 1:
		return scaleDown(v, 1000, large), nil
	}
	return scaleUp(v), nil
}

func humanize1024(i any) (string, error) {
	v, err := number(i)
	switch {
	case err != nil:
		return "", err
	case math.Abs(v) <= 1 || isOdd(v):
		return fmt.Sprintf("%.4g", v), nil
	}
	return scaleDown(v, 1024, []string{"ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"}), nil
}

func scaleDown(v, by float64, units []string) string {
	unit := ""
	for _, u := range units {
		if math.Abs(v) < by {
			break
		}
		unit = u
		v /= by
	}
	return fmt.Sprintf("%.4g%s", v, unit)
}

func scaleUp(v float64) string {
	unit := ""
	for _, u := range small {
		if math.Abs(v) >= 1 {
			break
		}
		unit = u
		v *= 1000
	}
	return fmt.Sprintf("%.4g%s", v, unit)
}

func humanizeDuration(i any) (string, error) {
	v, err := number(i)
	switch {
	case err != nil:
		return "", err
	case isOdd(v):
		return fmt.Sprintf("%.4g", v), nil
	case v == 0:
		return "0s", nil
	case math.Abs(v) < 1:
		return scaleUp(v) + "s", nil
	}
	sign := ""
	if v < 0 {
		sign, v = "-", -v
	}
	all := int64(v)
	s, m, h, d := all%60, all/60%60, all/3600%24, all/86400
	switch {
	case d != 0:
		return fmt.Sprintf("%s%dd %dh %dm %ds", sign, d, h, m, s), nil
	case h != 0:
		return fmt.Sprintf("%s%dh %dm %ds", sign, h, m, s), nil
	case m != 0:
		return fmt.Sprintf("%s%dm %ds", sign, m, s), nil
	}
	return fmt.Sprintf("%s%.4gs", sign, v), nil
}

func humanizePercentage(i any) (string, error) {
	v, err := number(i)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%.4g%%", v*100), nil
}

func humanizeTimestamp(i any) (string, error) {
	v, err := number(i)
	if err == nil && isOdd(v) {
		return fmt.Sprintf("%.4g", v), nil
	}
	t, err := toTime(i)
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

func toTime(i any) (time.Time, error) {
	v, err := number(i)
	if err != nil {
		return time.Time{}, err
	}
	ns := v * 1e9
	if isOdd(v) || ns > math.MaxInt64 || ns < math.MinInt64 {
		return time.Time{}, fmt.Errorf("%v is not a time in seconds", v)
	}
	return time.Unix(0, int64(ns)).Truncate(time.Millisecond).UTC(), nil
}

func stripPort(hostPort string) string {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return hostPort
	}
	return host
}

func stripDomain(hostPort string) string {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = hostPort
	}
	if net.ParseIP(host) != nil {
		return hostPort
	}
	host, _, _ = strings.Cut(host, ".")
	if port != "" {
		return net.JoinHostPort(host, port)
	}
	return host
}

// title makes the first letter of each word a capital and leaves the others as they
// are. A dot, colon or apostrophe inside a word does not end it (Unicode Standard
// Annex 29, WB6 and WB7).
func title(s string) string {
	rs := []rune(s)
	inWord := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || r == '_'
	}
	word, done := false, false // in a word; it has its capital
	for i, r := range rs {
		word = inWord(r) || word && strings.ContainsRune(".:'’", r) && i+1 < len(rs) && inWord(rs[i+1])
		if word && !done && unicode.IsLetter(r) {
			rs[i] = unicode.ToTitle(r)
		}
		done = word && (done || unicode.IsLetter(r))
	}
	return string(rs)
}
