package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
)

// Limits are the highest ratios that are accepted, by the name of the figure.
type Limits map[string]float64

// ReadLimits reads a JSON file that holds Limits.
func ReadLimits(path string) (Limits, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read limits: %w", err)
	}
	var l Limits
	if err := json.Unmarshal(raw, &l); err != nil {
		return nil, fmt.Errorf("read limits %s: %w", path, err)
	}
	if len(l) == 0 {
		return nil, fmt.Errorf("read limits %s: there are none", path)
	}
	for name, limit := range l {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("read limits %s: there is no measurement %q", path, name)
		}
		if limit <= 0 {
			return nil, fmt.Errorf("read limits %s: the limit of %s is not above zero", path, name)
		}
	}
	return l, nil
}

// Names are those that have a limit, in the order of the report.
func (l Limits) Names() []string {
	return slices.DeleteFunc(Names(), func(name string) bool { return l[name] == 0 })
}

// Verdict is a ratio held against its limit.
type Verdict struct {
	Name  string  `json:"name"`
	Ratio float64 `json:"ratio"`
	Limit float64 `json:"limit"`
	OK    bool    `json:"ok"`
}

// ErrNoRatio says that something with a limit has no ratio: nothing was there to
// compare it with.
var ErrNoRatio = errors.New("no ratio was measured")

// Check compares the first result of each name that has a limit.
func (l Limits) Check(report Report) ([]Verdict, error) {
	ratios := map[string]float64{}
	for _, r := range slices.Backward(report.Results) {
		if r.Ratio != nil {
			ratios[r.Name] = *r.Ratio
		}
	}
	var out []Verdict
	for _, name := range l.Names() {
		ratio, ok := ratios[name]
		if !ok {
			return nil, fmt.Errorf("%w: %s", ErrNoRatio, name)
		}
		out = append(out, Verdict{Name: name, Ratio: ratio, Limit: l[name], OK: ratio <= l[name]})
	}
	return out, nil
}

// Of is the limits of these names alone.
func (l Limits) Of(names []string) Limits {
	out := maps.Clone(l)
	maps.DeleteFunc(out, func(name string, _ float64) bool { return !slices.Contains(names, name) })
	return out
}
