package template

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Source finds templates. It is safe for concurrent use, answers from memory,
// and what it returns is the caller's to change.
type Source interface {
	// Get returns the template of that kind, namespace and name; the error is
	// a *NotFoundError when there is none.
	Get(kind, namespace, name string) (Template, error)
	// List returns all templates, ordered by kind, namespace and name.
	List() []Template
}

// NotFoundError says that there is no template of that kind and name.
type NotFoundError struct {
	Kind, Namespace, Name string
	// Near are the templates of the kind that may have been meant, the
	// likeliest first, as "namespace/name".
	Near []string
	// OtherKind is set when a template of this name exists, but of that kind.
	OtherKind string
}

// Error implements error, in the words that clients know.
func (e *NotFoundError) Error() string {
	return fmt.Sprintf("%s.agentcube.volcano.sh %q not found", plural(e.Kind), e.Namespace+"/"+e.Name)
}

// Hint lists what may have been meant.
func (e *NotFoundError) Hint() string {
	switch {
	case e.OtherKind != "":
		return fmt.Sprintf("%s/%s is of kind %s: use the path of that kind", e.Namespace, e.Name, e.OtherKind)
	case len(e.Near) > 0:
		return "did you mean " + strings.Join(e.Near, ", ") + "?"
	}
	return fmt.Sprintf("there is no %s %s/%s; \"agentcube template ls\" lists all templates", e.Kind, e.Namespace, e.Name)
}

func plural(kind string) string { return strings.ToLower(kind) + "s" }

// Set is a fixed collection of templates.
type Set struct {
	byKey map[key]Template
}

type key struct{ kind, namespace, name string }

func (t Template) key() key { return key{t.Kind, t.Namespace, t.Name} }

func (k key) String() string { return k.kind + " " + k.namespace + "/" + k.name }

// NewSet returns a Source of the given templates. Of two with the same kind,
// namespace and name the later one counts.
func NewSet(templates ...Template) *Set {
	s := &Set{byKey: make(map[key]Template, len(templates))}
	for _, t := range templates {
		s.byKey[t.key()] = t.clone()
	}
	return s
}

// Get implements Source.
func (s *Set) Get(kind, namespace, name string) (Template, error) {
	if t, ok := s.byKey[key{kind, namespace, name}]; ok {
		return t.clone(), nil
	}
	e := &NotFoundError{Kind: kind, Namespace: namespace, Name: name, Near: s.near(kind, namespace, name)}
	for k := range s.byKey {
		if k.kind != kind && k.namespace == namespace && k.name == name {
			e.OtherKind = k.kind
		}
	}
	return Template{}, e
}

// List implements Source.
func (s *Set) List() []Template {
	out := make([]Template, 0, len(s.byKey))
	for _, t := range s.byKey {
		out = append(out, t.clone())
	}
	slices.SortFunc(out, func(a, b Template) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind),
			strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return out
}
