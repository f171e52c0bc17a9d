package site

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config is what Load reads: a [Site], or a struct that has one inline and keys of its
// own besides.
type Config interface {
	// Check fills in the defaults and says what is wrong, and where.
	Check(f *File) error
	// Words are pairs: what the YAML parser says of a type, and what it is called here.
	Words() []string
}

// File is a config that was read, to say where in it something is wrong.
type File struct {
	name string
	root *yaml.Node
}

// Place is a place in a File.
type Place struct {
	name string
	line int
}

// At is the place of a value, by the keys and indexes that lead to it; where the path
// ends early, that of the last one found.
func (f *File) At(path ...any) Place { return Place{f.name, lineOf(f.root, path...)} }

// Errorf says what is wrong there.
func (p Place) Errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", p.name, p.line, fmt.Sprintf(format, args...))
}

// Path is the path of a file that is named in this one, relative to it.
func (f *File) Path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(f.name), name)
}

// Secret is a string that is never printed. In the file it is written as it is, or
// as $NAME to be taken from the environment.
type Secret string

// String hides it.
func (Secret) String() string { return "(secret)" }

// GoString hides it.
func (Secret) GoString() string { return "(secret)" }

// UnmarshalYAML reads it.
func (s *Secret) UnmarshalYAML(n *yaml.Node) error {
	v := n.Value
	if name, ok := strings.CutPrefix(v, "$"); ok {
		if v = os.Getenv(name); v == "" {
			return fmt.Errorf("line %d: the environment variable %s is not set", n.Line, name)
		}
	}
	*s = Secret(v)
	return nil
}

// Duration is written as 10s or 1m.
type Duration time.Duration

// UnmarshalYAML reads it.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %q is no duration: write it as 10s or 1m", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

const fileMax = 1 << 20

// Load reads a file into c, or gives c the defaults where name is empty. Its errors
// have the line and the reason, and no secrets.
func Load(name string, c Config) error {
	if name == "" {
		return c.Check(&File{})
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > fileMax {
		return fmt.Errorf("%s: larger than %d bytes", name, fileMax)
	}
	return Parse(name, text, c)
}

// Parse is Load of a text that was read already.
func Parse(name string, text []byte, c Config) error {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return inWords(name, err, c)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: there is more than one YAML document: only one is read", name)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return c.Check(&File{name, &root})
}

var (
	quoted  = regexp.MustCompile(" `[^`]*`")
	unknown = regexp.MustCompile(`not found in type \S+`)
)

// inWords is an error of the parser with the place in front and without its own prefix.
func inWords(name string, err error, c Config) error {
	var t *yaml.TypeError
	if errors.As(err, &t) && len(t.Errors) > 0 {
		err = errors.New(t.Errors[0])
	}
	top := strings.TrimPrefix(fmt.Sprintf("%T", c), "*")
	reason := strings.TrimPrefix(err.Error(), "yaml: ")
	if field, ok := strings.CutSuffix(reason, "not found in type "+top); ok {
		reason = field + "is not known"
	}
	reason = unknown.ReplaceAllString(reason, "is not known here")
	reason = strings.NewReplacer(append(c.Words(),
		"into []string", "as a list: write [a, b]",
		"into map[string]string", "as labels: write {name: value}",
		"into int", "as a number",
		"unmarshal !!str", "read the text", "unmarshal !!int", "read the number", "unmarshal !!bool", "read the truth value",
		"unmarshal !!map", "read the mapping", "unmarshal !!seq", "read the list",
	)...).Replace(reason)
	// What was written there may be a secret.
	reason = quoted.ReplaceAllString(reason, "")
	if rest, ok := strings.CutPrefix(reason, "line "); ok {
		return fmt.Errorf("%s:%s", name, rest)
	}
	return fmt.Errorf("%s: %s", name, reason)
}

// lineOf finds the line of a value by the keys and indexes that lead to it; where
// the path ends early, that of the last one found.
func lineOf(n *yaml.Node, path ...any) int {
	if n == nil {
		return 0
	}
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = n.Content[0]
	}
	line := n.Line
	for _, p := range path {
		var next *yaml.Node
		switch p := p.(type) {
		case int:
			if n.Kind == yaml.SequenceNode && p < len(n.Content) {
				next = n.Content[p]
				line = next.Line
			}
		case string:
			for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == p {
					line, next = n.Content[i].Line, n.Content[i+1]
				}
			}
		}
		if next == nil {
			return line
		}
		n = next
	}
	return line
}
