package podspec

import (
	"strings"

	nodev1 "k8s.io/api/node/v1"
)

// IsolationOf is what Pods with a runtime class are isolated by. It goes by what the
// cluster's administrator says, or else by the usual names of handlers. What is not
// known is not taken for isolation: it is "none".
func IsolationOf(class *nodev1.RuntimeClass) string {
	switch said := class.Annotations[AnnotationIsolation]; said {
	case "none", "runc", "gvisor", "kata":
		return said
	}
	switch handler := strings.ToLower(class.Handler); {
	case handler == "runsc" || handler == "gvisor" || strings.HasPrefix(handler, "runsc-"):
		return "gvisor"
	case handler == "kata" || strings.HasPrefix(handler, "kata-"):
		return "kata"
	case handler == "runc" || handler == "crun" || handler == "youki":
		return "runc"
	}
	return "none"
}
