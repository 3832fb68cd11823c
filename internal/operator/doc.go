// Package operator looks after the custom resources CodeInterpreter and AgentRuntime:
// it keeps the warm pools, the network policies, and the status.
//
// A warm pool is a ReplicaSet, one for each content of a template: Kubernetes counts
// its Pods and makes new ones, and whoever needs a sandbox takes one by its labels, as
// package kube does. The ReplicaSet belongs to its CodeInterpreter and goes with it;
// Pods that were taken belong to nobody, and stay. No finalizer is needed.
//
// The status says what is so, and is written when that has changed, never otherwise.
//
// Any number of operators may run: with Config.LeaderElection one of them, which holds
// a lease, does all the work. What the operator may do to the cluster, and has to be
// granted, is listed in docs/decisions/operator.md, from where the tests take it too.
package operator
