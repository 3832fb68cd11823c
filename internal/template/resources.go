package template

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// resources turns limits into plain numbers. Where a limit is missing, the
// request counts if it is more than the default: a sandbox gets at least what
// it asks for. Processes are filled in by the caller.
func (r resolver) resources(at string, in corev1.ResourceRequirements) sandbox.Resources {
	for list, resources := range map[string]corev1.ResourceList{".limits": in.Limits, ".requests": in.Requests} {
		for name, q := range resources {
			where := fmt.Sprintf("%s%s.%s", at, list, name)
			switch name {
			case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
				if q.Sign() < 0 || q.Sign() == 0 && list == ".limits" {
					r.bad(where, "must be more than 0, is %s", q.String())
				}
			default:
				if r.kubernetes {
					continue // devices and the like
				}
				r.bad(where, "cannot be had on a single machine; there are cpu, memory and ephemeral-storage")
			}
		}
	}
	if len(in.Claims) > 0 && !r.kubernetes {
		r.bad(at+".claims", "needs Kubernetes")
	}
	amount := func(name corev1.ResourceName, byDefault int64) int64 {
		value := func(list corev1.ResourceList) int64 {
			q := list[name]
			if name == corev1.ResourceCPU {
				return q.MilliValue()
			}
			return q.Value()
		}
		if limit := value(in.Limits); limit > 0 {
			return limit
		}
		return max(value(in.Requests), byDefault)
	}
	return sandbox.Resources{
		CPUMillis:   amount(corev1.ResourceCPU, DefaultCPUMillis),
		MemoryBytes: amount(corev1.ResourceMemory, DefaultMemoryBytes),
		DiskBytes:   amount(corev1.ResourceEphemeralStorage, DefaultDiskBytes),
	}
}
