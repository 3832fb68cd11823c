package bench

import (
	"math"
	"slices"
)

// Report is what one run measured.
type Report struct {
	Results []Result `json:"results"`
	// Soak is what became of a soak, if there was one.
	Soak *SoakReport `json:"soak,omitempty"`
}

// Result is the distribution of one measured quantity.
type Result struct {
	// Name says what was measured; Unit is "ms" or "MiB".
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Concurrency is how many of these ran at a time.
	Concurrency int `json:"concurrency"`
	// N is the number of samples that the percentiles are of.
	N   int     `json:"n"`
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	// Reference is nil where none could be measured; Ratio is ours divided by
	// the reference, at the median, and below one is better.
	Reference *Reference `json:"reference"`
	Ratio     *float64   `json:"ratio"`
	// Parts say where memory is, in the unit of the result.
	Parts []Part `json:"parts,omitempty"`
}

// Part is the median of a part of a quantity.
type Part struct {
	Name string  `json:"name"`
	P50  float64 `json:"p50"`
}

// Reference is what a result is compared with.
type Reference struct {
	Name string  `json:"name"`
	N    int     `json:"n"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
}

// percentile is the nearest-rank percentile: the least sample that at least
// p percent of the samples do not exceed. samples are sorted and not empty.
func percentile(samples []float64, p float64) float64 {
	rank := int(math.Ceil(p / 100 * float64(len(samples))))
	return samples[max(rank, 1)-1]
}

// median is the 50th percentile.
func median(samples []float64) float64 {
	samples = slices.Sorted(slices.Values(samples))
	return percentile(samples, 50)
}

// newResult makes a result of samples, and of those of its reference if any.
func newResult(name, unit string, concurrency int, ours []float64, refName string, ref []float64) Result {
	slices.Sort(ours)
	r := Result{
		Name: name, Unit: unit, Concurrency: concurrency, N: len(ours),
		P50: percentile(ours, 50), P95: percentile(ours, 95), P99: percentile(ours, 99),
	}
	if len(ref) == 0 {
		return r
	}
	slices.Sort(ref)
	r.Reference = &Reference{
		Name: refName, N: len(ref),
		P50: percentile(ref, 50), P95: percentile(ref, 95), P99: percentile(ref, 99),
	}
	if r.Reference.P50 > 0 {
		ratio := r.P50 / r.Reference.P50
		r.Ratio = &ratio
	}
	return r
}
