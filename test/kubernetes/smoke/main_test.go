package smoke

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// binaries is the folder of the cluster's programs. It is set by TestMain before
// any test runs, and never changed.
var binaries string

func TestMain(m *testing.M) {
	code, err := cluster.Enter(func() int {
		if binaries = os.Getenv("AGENTCUBE_KUBERNETES"); binaries == "" {
			fmt.Fprintln(os.Stderr, errors.New("AGENTCUBE_KUBERNETES is not set; run these tests with: make test-kubernetes"))
			return 1
		}
		return m.Run()
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
