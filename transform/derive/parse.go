package derive

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxLength = 4096 // bytes of an expression
	maxDepth  = 64   // of parentheses, functions and signs
)

// parser is a recursive descent over one expression:
//
//	sum     = product { ("+" | "-") product }
//	product = value { ("*" | "/") value }
//	value   = number | "-" value | "(" sum ")" | function "(" sum { "," sum } ")" | metric
//	metric  = name [ "{" [ match { "," match } ] "}" ]
//	match   = name ( "=" | "!=" ) string
type parser struct {
	src      string
	pos      int
	depth    int
	selector func(selector) int
}

func (p *parser) parse() (node, error) {
	if len(p.src) > maxLength {
		return nil, fmt.Errorf("the expression has %d bytes; %d are allowed", len(p.src), maxLength)
	}
	n, err := p.sum()
	if err != nil {
		return nil, err
	}
	if p.peek() != 0 || p.pos < len(p.src) {
		return nil, p.want("an operator or the end")
	}
	if _, ok := n.(number); ok {
		p.pos = 0
		return nil, p.errorf("there is no metric in it")
	}
	return n, nil
}

// errorf is an error at the place the parser is at, counted in characters from 1.
func (p *parser) errorf(format string, args ...any) error {
	return fmt.Errorf("column %d: %s", 1+utf8.RuneCountInString(p.src[:p.pos]), fmt.Sprintf(format, args...))
}

func (p *parser) want(what string) error {
	if p.peek() == 0 && p.pos >= len(p.src) {
		return p.errorf("want %s, but the expression ends", what)
	}
	r, _ := utf8.DecodeRuneInString(p.src[p.pos:])
	return p.errorf("want %s, not %q", what, r)
}

// peek returns the next byte that is no space, 0 at the end.
func (p *parser) peek() byte {
	for p.pos < len(p.src) && strings.IndexByte(" \t\r\n", p.src[p.pos]) >= 0 {
		p.pos++
	}
	if p.pos == len(p.src) {
		return 0
	}
	return p.src[p.pos]
}

func (p *parser) accept(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.pos++
	return true
}

func (p *parser) expect(c byte) error {
	if !p.accept(c) {
		return p.want(strconv.QuoteRune(rune(c)))
	}
	return nil
}

func (p *parser) sum() (node, error) {
	return p.chain(p.product, map[byte]op{'+': add, '-': sub})
}

func (p *parser) product() (node, error) {
	return p.chain(p.value, map[byte]op{'*': mul, '/': div})
}

func (p *parser) chain(part func() (node, error), ops map[byte]op) (node, error) {
	l, err := part()
	for err == nil {
		o, ok := ops[p.peek()]
		if !ok {
			return l, nil
		}
		at := p.pos
		p.pos++
		var r node
		if r, err = part(); err == nil {
			l, err = p.combine(at, o, l, r)
		}
	}
	return nil, err
}

// combine makes a node of two, or a number of two numbers.
func (p *parser) combine(at int, o op, l, r node) (node, error) {
	x, ok := l.(number)
	y, ok2 := r.(number)
	if !ok || !ok2 {
		return &binary{o, l, r}, nil
	}
	v := o.of(float64(x), float64(y))
	if math.IsNaN(v) || math.IsInf(v, 0) {
		p.pos = at
		return nil, p.errorf("%v and %v have no result here", float64(x), float64(y))
	}
	return number(v), nil
}

func (p *parser) value() (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf("more than %d levels", maxDepth)
	}
	defer func() { p.depth-- }()
	switch c := p.peek(); {
	case c == '(':
		p.pos++
		n, err := p.sum()
		if err == nil {
			err = p.expect(')')
		}
		return n, err
	case c == '-':
		at := p.pos
		p.pos++
		n, err := p.value()
		if err != nil {
			return nil, err
		}
		return p.combine(at, sub, number(0), n)
	case c >= '0' && c <= '9' || c == '.':
		return p.number()
	case isNameByte(c, true):
		at := p.pos
		name := p.name()
		if p.peek() == '(' {
			return p.function(at, name)
		}
		return p.metric(name)
	default:
		return nil, p.want("a number, a metric, a function or '('")
	}
}

func (p *parser) number() (node, error) {
	end := p.pos
	for end < len(p.src) {
		c := p.src[end]
		sign := (c == '+' || c == '-') && (p.src[end-1] == 'e' || p.src[end-1] == 'E') && end > p.pos
		if !sign && !isNameByte(c, false) {
			break
		}
		end++
	}
	text := p.src[p.pos:end]
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(v, 0) {
		return nil, p.errorf("%q is not a number", text)
	}
	p.pos = end
	return number(v), nil
}

func isNameByte(c byte, first bool) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == ':' ||
		!first && (c >= '0' && c <= '9' || c == '.')
}

func isName(s string) bool {
	for i := range len(s) {
		if !isNameByte(s[i], i == 0) {
			return false
		}
	}
	return s != ""
}

// name reads a name; the caller has seen that there is one.
func (p *parser) name() string {
	start := p.pos
	for p.pos < len(p.src) && isNameByte(p.src[p.pos], p.pos == start) {
		p.pos++
	}
	return p.src[start:p.pos]
}

func (p *parser) metric(name string) (node, error) {
	s := selector{name: name}
	if p.accept('{') && !p.accept('}') {
		for {
			if !isNameByte(p.peek(), true) {
				return nil, p.want("the name of a label")
			}
			m := matcher{label: p.name()}
			m.not = p.accept('!')
			if err := p.expect('='); err != nil {
				return nil, err
			}
			if p.peek() != '"' {
				return nil, p.want(`a value in "quotes"`)
			}
			quoted, err := strconv.QuotedPrefix(p.src[p.pos:])
			if err == nil {
				m.value, err = strconv.Unquote(quoted)
			}
			if err != nil {
				return nil, p.errorf("the value of %s has no end, or a wrong escape", m.label)
			}
			p.pos += len(quoted)
			s.matchers = append(s.matchers, m)
			if !m.not && m.value != "" {
				s.removed = append(s.removed, m.label)
			}
			if p.accept('}') {
				break
			}
			if err := p.expect(','); err != nil {
				return nil, err
			}
		}
	}
	return operand(p.selector(s)), nil
}

func (p *parser) function(at int, name string) (node, error) {
	var args []node
	p.pos++ // the parenthesis
	for {
		n, err := p.sum()
		if err != nil {
			return nil, err
		}
		args = append(args, n)
		if p.accept(')') {
			break
		}
		if p.peek() != ',' {
			return nil, p.want("',' or ')'")
		}
		p.pos++
	}
	want := 2
	switch name {
	case "sum", "avg", "count":
		want = 1
	case "min", "max":
		want = min(len(args), 2)
	case "clamp":
		want = 3
	case "above":
	default:
		p.pos = at
		return nil, p.errorf("there is no function %s: want sum, avg, min, max, count, clamp or above", name)
	}
	if len(args) != want {
		p.pos = at
		return nil, p.errorf("%s takes %d arguments, not %d", name, want, len(args))
	}
	if want == 1 {
		if _, ok := args[0].(number); ok {
			p.pos = at
			return nil, p.errorf("%s of a number: want a metric in it", name)
		}
		return &aggregate{name, args[0]}, nil
	}
	switch name {
	case "min":
		return p.combine(at, minOf, args[0], args[1])
	case "max":
		return p.combine(at, maxOf, args[0], args[1])
	case "above":
		return p.combine(at, aboveOf, args[0], args[1])
	default: // clamp
		n, err := p.combine(at, maxOf, args[0], args[1])
		if err != nil {
			return nil, err
		}
		return p.combine(at, minOf, n, args[2])
	}
}
