package derive_test

import (
	"strings"
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/derive"
)

func TestWrongFormulasAreRefused(t *testing.T) {
	for expr, want := range map[string]string{
		"":               "column 1: want a number, a metric, a function or '(', but the expression ends",
		"  ":             "column 3: want a number",
		"a +":            "column 4: want a number",
		"a b":            "column 3: want an operator or the end, not 'b'",
		"(a":             "column 3: want ')', but the expression ends",
		"a)":             "column 2: want an operator or the end, not ')'",
		"a ** b":         "column 4: want a number, a metric, a function or '(', not '*'",
		"5":              "column 1: there is no metric in it",
		"1 + 2":          "column 1: there is no metric in it",
		"a + 1/0":        "column 6: 1 and 0 have no result here",
		"1.2.3 * a":      `column 1: "1.2.3" is not a number`,
		"1e999 * a":      `column 1: "1e999" is not a number`,
		"2a":             `column 1: "2a" is not a number`,
		"a % b":          "column 3: want an operator or the end, not '%'",
		"é * a":          "column 1: want a number, a metric, a function or '(', not 'é'",
		`a{d="é"} é`:     "column 10: want an operator or the end, not 'é'",
		"a{":             "column 3: want the name of a label, but the expression ends",
		"a{d}":           "column 4: want '=', not '}'",
		"a{d=}":          `column 5: want a value in "quotes", not '}'`,
		"a{d='x'}":       `column 5: want a value in "quotes", not '\''`,
		`a{d="x}`:        "column 5: the value of d has no end, or a wrong escape",
		`a{d="x" e="y"}`: "column 9: want ',', not 'e'",
		`a{d="x",}`:      "column 9: want the name of a label, not '}'",
		`a{d=~"x"}`:      `column 5: want a value in "quotes", not '~'`,
		"rate(a)":        "column 1: there is no function rate: want sum, avg",
		"a + sum(a, b)":  "column 5: sum takes 1 arguments, not 2",
		"min(a, b, c)":   "column 1: min takes 2 arguments, not 3",
		"clamp(a, 1)":    "column 1: clamp takes 3 arguments, not 2",
		"above(a)":       "column 1: above takes 2 arguments, not 1",
		"sum(1)":         "column 1: sum of a number: want a metric in it",
		"sum()":          "column 5: want a number, a metric, a function or '(', not ')'",
		"sum(a":          "column 6: want ',' or ')', but the expression ends",
		"a\x00":          `column 2: want an operator or the end, not '\x00'`,
		strings.Repeat("(", 65) + "a" + strings.Repeat(")", 65): "column 65: more than 64 levels",
		strings.Repeat("-", 100) + "a":                          "column 65: more than 64 levels",
		"a" + strings.Repeat("+a", 2048):                        "the expression has 4097 bytes; 4096 are allowed",
	} {
		_, err := derive.New(derive.Config{Formulas: []derive.Formula{{Name: "ok", Expr: "a"}, {Name: "wrong", Expr: expr}}})
		if err == nil || !strings.HasPrefix(err.Error(), `derive: formula "wrong": `+want) {
			t.Errorf("%q:\n got %v\nwant derive: formula \"wrong\": %s", expr, err, want)
		}
	}
	for _, name := range []string{"", "a b", "1a", "a{}", "ä"} {
		_, err := derive.New(derive.Config{Formulas: []derive.Formula{{Name: name, Expr: "a"}}})
		if err == nil || !strings.Contains(err.Error(), "derive: formula 1: ") {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if _, err := derive.New(derive.Config{}); err == nil {
		t.Error("no formulas are no error")
	}
}

func TestLongestExpressionWorks(t *testing.T) {
	v := newValues(t, derive.Formula{Name: "x", Expr: "a" + strings.Repeat("+a", 2047)})
	if got := text(derived(t, v, []kemi.Metric{gauge("a", 1)})); got != "x=2048" {
		t.Errorf("got %s", got)
	}
}
