package install

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// places say where what these tests need is. They are set by TestMain before any test
// runs, and never changed.
var places struct{ binaries, helm, chart, image, python, interpreter, readme, sdk, program string }

func TestMain(m *testing.M) {
	code, err := cluster.Enter(func() int {
		for name, place := range map[string]*string{
			"AGENTCUBE_KUBERNETES": &places.binaries, "AGENTCUBE_HELM": &places.helm, "AGENTCUBE_CHART": &places.chart,
			"AGENTCUBE_KUBE_IMAGE": &places.image, "AGENTCUBE_IMAGE": &places.python, "AGENTCUBE_PYTHON": &places.interpreter,
			"AGENTCUBE_SDK_README": &places.readme, "AGENTCUBE_SDK": &places.sdk, "AGENTCUBE_BIN": &places.program,
		} {
			if *place = os.Getenv(name); *place == "" {
				fmt.Fprintln(os.Stderr, errors.New(name+" is not set; run these tests with: make test-kubernetes"))
				return 1
			}
		}
		return m.Run()
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
