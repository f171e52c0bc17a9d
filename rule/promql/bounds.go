package promql

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"text/template"
	"text/template/parse"

	"github.com/prometheus/prometheus/promql/parser"
)

// Limits of what templates may do.
const (
	maxSteps   = 100_000  // rounds of range and calls of template, for one text
	maxPattern = 1 << 10  // bytes of a regular expression
	maxMatch   = 50 << 20 // states of a regular expression times bytes of the text it looks at
)

// Limits of an expression. Those who parse, print and evaluate it go through it by
// calling themselves, and look at each part once for each part around it.
const (
	maxDepth     = 200    // of brackets
	maxOperators = 1000   // + - * / == and so on, signs among them
	maxRepeats   = 10_000 // sum of the counts in regular expressions, such as x{100}
)

var repeat = regexp.MustCompile(`\{(\d+)(?:,(\d*))?\}`)

// feasible says whether an expression may be parsed.
func feasible(expr string) error {
	depth, operators, repeats := 0, 0, 0
	lexer := parser.Lex(expr)
	for {
		var item parser.Item
		lexer.NextItem(&item)
		switch item.Typ {
		case parser.EOF, parser.ERROR:
			return nil // the parser tells of it
		case parser.LEFT_PAREN, parser.LEFT_BRACE, parser.LEFT_BRACKET:
			if depth++; depth > maxDepth {
				return fmt.Errorf("brackets are nested deeper than %d", maxDepth)
			}
		case parser.RIGHT_PAREN, parser.RIGHT_BRACE, parser.RIGHT_BRACKET:
			depth--
		case parser.STRING:
			if len(item.Val) > maxPattern {
				return fmt.Errorf("a string has %d bytes, more than the %d it may have", len(item.Val), maxPattern)
			}
			for _, m := range repeat.FindAllStringSubmatch(item.Val, -1) {
				for _, digits := range m[1:] {
					n, err := strconv.Atoi("0" + digits)
					if repeats += n; err != nil || repeats > maxRepeats {
						return fmt.Errorf("regular expressions repeat more than %d times", maxRepeats)
					}
				}
			}
		default:
			if item.Typ.IsOperator() {
				if operators++; operators > maxOperators {
					return fmt.Errorf("there are more than %d operators: record a part of it", maxOperators)
				}
			}
		}
	}
}

// stepName is the name of the function that counts what a template does.
const stepName = "kemi_step"

var errSteps = fmt.Errorf("the template does more than %d rounds", maxSteps)

// begin gives the templates of one evaluation of a rule the time that is left to it.
func (sc *scope) begin(stop func() error) { sc.stop = stop }

// over says whether the time is up.
func (sc *scope) over() error {
	if sc.stop == nil {
		return nil
	}
	if err := sc.stop(); err != nil {
		return fmt.Errorf("the templates of the rule take too long: %w", err)
	}
	return nil
}

// step is called in every round of a range and by every call of a template, which is
// all that a template can do without an end.
func (sc *scope) step() (string, error) {
	if sc.steps++; sc.steps > maxSteps {
		return "", errSteps
	}
	return "", sc.over()
}

// bound makes a template count its steps, and refuses what is plainly without an end.
func (sc *scope) bound(t *template.Template) error {
	counter, err := template.New("").Funcs(sc.functions()).Parse("{{" + stepName + "}}")
	if err != nil {
		return err
	}
	count := func(l *parse.ListNode) {
		l.Nodes = append([]parse.Node{counter.Root.Nodes[0].Copy()}, l.Nodes...)
	}
	calls := map[string][]string{}
	for _, sub := range t.Templates() {
		if sub.Tree == nil {
			continue
		}
		name := sub.Name()
		walk(sub.Root, func(n parse.Node) {
			switch n := n.(type) {
			case *parse.RangeNode:
				if _, isNumber := n.Pipe.Cmds[0].Args[0].(*parse.NumberNode); isNumber && len(n.Pipe.Cmds) == 1 {
					err = errors.New("range over a number: an alert has nothing to count")
				}
				count(n.List)
			case *parse.TemplateNode:
				calls[name] = append(calls[name], n.Name)
			}
		})
		if sub != t {
			count(sub.Root)
		}
	}
	for name := range calls {
		if reaches(calls, name, name, map[string]bool{}) {
			return fmt.Errorf("template %q calls itself", name)
		}
	}
	return err
}

func reaches(calls map[string][]string, from, to string, seen map[string]bool) bool {
	for _, next := range calls[from] {
		if next == to {
			return true
		}
		if !seen[next] {
			seen[next] = true
			if reaches(calls, next, to, seen) {
				return true
			}
		}
	}
	return false
}

var errText = fmt.Errorf("the text is longer than %d bytes", maxText)

// weigh takes the size of what v would be as text from what is left.
func weigh(v any, left *int) error {
	switch v := v.(type) {
	case string:
		*left -= len(v)
	case map[string]string:
		for k, s := range v {
			*left -= len(k) + len(s)
		}
	case map[string]any:
		for k, x := range v {
			*left -= len(k)
			if err := weigh(x, left); err != nil {
				return err
			}
		}
	case *point:
		if v != nil {
			return weigh(v.Labels, left)
		}
	case vector:
		*left -= 16 * len(v) // it is written as pointers
	default:
		*left -= 16
	}
	if *left < 0 {
		return errText
	}
	return nil
}

func weighAll(vs []any) error {
	left := maxText
	for _, v := range vs {
		if err := weigh(v, &left); err != nil {
			return err
		}
	}
	return nil
}

func short(s string) (string, error) {
	if len(s) > maxText {
		return "", errText
	}
	return s, nil
}

// bounded makes a function of texts fail before and after what is too long.
func bounded(f func(...any) string) func(...any) (string, error) {
	return func(args ...any) (string, error) {
		if err := weighAll(args); err != nil {
			return "", err
		}
		return short(f(args...))
	}
}

func boundedString(f func(string) string) func(string) (string, error) {
	return func(s string) (string, error) {
		if _, err := short(s); err != nil {
			return "", err
		}
		return short(f(s))
	}
}

var width = regexp.MustCompile(`%[-+# 0]*(\d*)(?:\.(\d*))?([*\[])?`)

// printf is that of fmt. Widths count as text, and have to be written out.
func printf(format string, args ...any) (string, error) {
	left := maxText
	for _, m := range width.FindAllStringSubmatch(format, -1) {
		if m[3] != "" {
			return "", fmt.Errorf("printf %q: %s is not supported, as the text may get too long", format, m[3])
		}
		for _, digits := range m[1:3] {
			if n, err := strconv.Atoi("0" + digits); err != nil || n > left {
				return "", errText
			} else {
				left -= n
			}
		}
	}
	if err := weighAll(args); err != nil {
		return "", err
	}
	return short(fmt.Sprintf(format, args...))
}

// pattern compiles a regular expression that is to look at s.
func (sc *scope) pattern(p, s string) (*regexp.Regexp, error) {
	if _, err := sc.step(); err != nil {
		return nil, err
	}
	if len(p) > maxPattern {
		return nil, fmt.Errorf("the regular expression has %d bytes, more than the %d it may have", len(p), maxPattern)
	}
	re, err := regexp.Compile(p)
	if err != nil {
		return nil, err
	}
	tree, err := syntax.Parse(p, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	if len(prog.Inst)*(len(s)+1) > maxMatch {
		return nil, errors.New("the regular expression is too large for so long a text")
	}
	return re, nil
}

func (sc *scope) reReplaceAll(p, repl, s string) (string, error) {
	re, err := sc.pattern(p, s)
	if err != nil {
		return "", err
	}
	// Each byte may be a match, and each byte of repl may stand for what was matched.
	if (len(s)+1)*(len(repl)+1) > 64*maxText {
		return "", errText
	}
	return short(re.ReplaceAllString(s, repl))
}
