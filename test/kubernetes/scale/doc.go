// Package scale measures the control plane of AgentCube with many nodes and sessions:
// Workload Managers, Routers, Redis, etcd, the API server, the controllers and the
// scheduler of Kubernetes are real programs, nodes and sandboxes are simulated.
//
// A simulated node is a Node with its Lease, and a loopback address that all its Pods
// have. A Pod that the scheduler gives to it runs at once: nothing is pulled and no
// container started. What answers in place of PicoD at that address hands out
// certificates as PicoD does, and else says yes. So the figures are of the control plane
// and the store, and say nothing of sandboxes; a kubelet writes the status of a Pod three
// or four times, the simulated one once.
//
// TestCluster is a small run that checks that nothing is left, or one of any size that
// measures, which make simulate-cluster makes it.
package scale
