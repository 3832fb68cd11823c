package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/volcano-sh/agentcube/internal/bench"
)

func (a *app) printReport(report bench.Report, file string) error {
	if file != "" {
		if err := writeJSONFile(file, report); err != nil {
			return err
		}
	}
	return a.print(report, func(w io.Writer) { reportTable(w, report) })
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

func reportTable(w io.Writer, report bench.Report) {
	if report.Soak != nil {
		soakTable(w, *report.Soak)
		return
	}
	resultTable(w, report.Results)
	for _, r := range report.Results {
		if len(r.Parts) == 0 {
			continue
		}
		rows := make([][]string, 0, len(r.Parts))
		for _, p := range r.Parts {
			rows = append(rows, []string{r.Name, p.Name, r.Unit, number(p.P50)})
		}
		fmt.Fprintln(w)
		table(w, []string{"OF", "PART", "UNIT", "P50"}, rows)
	}
}

func resultTable(w io.Writer, results []bench.Result) {
	rows := make([][]string, 0, len(results))
	for _, r := range results {
		row := []string{
			r.Name, strconv.Itoa(r.Concurrency), strconv.Itoa(r.N), r.Unit, number(r.P50), number(r.P95), number(r.P99), "", "", "",
		}
		if r.Reference != nil {
			row[7], row[8] = r.Reference.Name, number(r.Reference.P50)
		}
		if r.Ratio != nil {
			row[9] = number(*r.Ratio) + "x"
		}
		rows = append(rows, row)
	}
	table(w, []string{"WHAT", "AT A TIME", "N", "UNIT", "P50", "P95", "P99", "REFERENCE", "ITS P50", "RATIO"}, rows)
}

func soakTable(w io.Writer, soak bench.SoakReport) {
	resultTable(w, soak.Operations)
	fmt.Fprintln(w)
	fields(w, "Seconds", number(soak.Seconds), "Refused and tried again", strconv.Itoa(soak.Refused),
		"Wrong", strconv.Itoa(soak.Wrong), "Failed", strconv.Itoa(soak.Failed), "Left", strconv.Itoa(len(soak.Left)))
	for _, text := range append(soak.Errors, soak.Left...) {
		fmt.Fprintln(w, printable(text))
	}
}

// judge says what became of each limit, on stderr, and returns what is over.
func (a *app) judge(verdicts []bench.Verdict) (over []string) {
	rows := make([][]string, 0, len(verdicts))
	for _, v := range verdicts {
		verdict := "ok"
		if !v.OK {
			verdict = "OVER"
			over = append(over, v.Name)
		}
		rows = append(rows, []string{v.Name, strconv.FormatFloat(v.Ratio, 'f', 3, 64), strconv.FormatFloat(v.Limit, 'f', 3, 64), verdict})
	}
	table(a.Stderr, []string{"FIGURE", "RATIO", "LIMIT", "VERDICT"}, rows)
	return over
}

func writeJSONFile(path string, v any) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write report %s: %w", path, reason(err))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return encodeJSON(f, v)
}
