package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a number of bytes, written like 512Mi, 8Gi, 2G or 1048576.
type Bytes int64

// units, the longer suffixes first so that "Mi" is not taken for "i".
var units = []struct {
	suffix string
	size   int64
}{
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40},
	{"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12},
	{"", 1},
}

// Set implements pflag.Value.
func (b *Bytes) Set(text string) error {
	for _, u := range units {
		digits, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		// ParseUint, unlike ParseInt, takes no sign.
		if n, err := strconv.ParseUint(digits, 10, 63); err == nil && int64(n) <= math.MaxInt64/u.size {
			*b = Bytes(int64(n) * u.size)
			return nil
		}
		break
	}
	return fmt.Errorf("%q is not a number of bytes such as 512Mi or 8Gi", text)
}

// String implements pflag.Value: the largest binary unit without a remainder.
func (b *Bytes) String() string {
	for _, u := range []int{3, 2, 1, 0} {
		if n := int64(*b); n != 0 && n%units[u].size == 0 {
			return strconv.FormatInt(n/units[u].size, 10) + units[u].suffix
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

// Type implements pflag.Value.
func (b *Bytes) Type() string { return "bytes" }
