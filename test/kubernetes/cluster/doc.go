// Package cluster runs a real Kubernetes for tests: etcd and the API server
// alone, or one node with everything that makes Pods run, with runc and with
// gVisor. The programs come from test/kubernetes/binaries; nothing is fetched.
//
// A test binary or a command calls Enter first thing, and does all it does in the
// function it gives. That function runs in a process, mount and network namespace
// of its own, in which Start may make a cluster with a node:
//
//	func TestMain(m *testing.M) {
//		code, err := cluster.Enter(m.Run)
//		if err != nil {
//			fmt.Fprintln(os.Stderr, err)
//			code = 1
//		}
//		os.Exit(code)
//	}
//
// However that ends, by returning, by a panic or by being killed, the kernel ends
// every process, mount and network of the cluster with it, and what is left then,
// a folder and control groups, is removed by Enter or, should it be killed too, by
// the next one. What kubelet sets for the whole machine it sets only there.
//
// The API server alone needs neither Enter nor root.
package cluster
