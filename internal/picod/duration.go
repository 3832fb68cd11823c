package picod

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// parseTimeout reads what Go takes as a duration, and seconds as Python prints
// small and large floats ("1e-05s"). Zero is allowed and means no time at all.
func parseTimeout(text string) (time.Duration, error) {
	if text == "" {
		return defaultTimeout, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		seconds, ok := strings.CutSuffix(text, "s")
		if !ok || !strings.ContainsRune(seconds, 'e') || strings.Trim(seconds, "0123456789.e+-") != "" {
			return 0, err
		}
		f, floatErr := strconv.ParseFloat(seconds, 64)
		if floatErr != nil {
			return 0, err
		}
		if math.Abs(f) > math.MaxInt64/float64(time.Second)/2 {
			return 0, errors.New("time: duration out of range " + strconv.Quote(text))
		}
		d = time.Duration(math.Round(f * float64(time.Second)))
	}
	if d < 0 {
		return 0, errors.New("time: negative duration " + strconv.Quote(text))
	}
	return d, nil
}

// timedOut is the text that clients recognise a time-out by.
func timedOut(d time.Duration) string {
	return "Command timed out after " + strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " seconds"
}
