package operator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// namePrefix is how much of a CodeInterpreter's name those of its ReplicaSets begin
// with, so that the names of Pods have all of a ReplicaSet's.
const namePrefix = 22

// kept is the state of a pool.
type kept struct {
	current *appsv1.ReplicaSet // nil where there is none
	again   time.Duration      // when to look again, whatever happens; 0 means not
}

// owned are the ReplicaSets of a CodeInterpreter.
func (r *reconciler) owned(ctx context.Context, u *unstructured.Unstructured) ([]appsv1.ReplicaSet, error) {
	var list appsv1.ReplicaSetList
	err := r.client.List(ctx, &list, client.InNamespace(u.GetNamespace()), client.MatchingFields{byOwner: string(u.GetUID())})
	if err != nil {
		return nil, fmt.Errorf("list ReplicaSets: %w", err)
	}
	return list.Items, nil
}

// keep has size Pods wait that are made from a template, and lets go of those made from
// what it was before.
func (r *reconciler) keep(ctx context.Context, u *unstructured.Unstructured, t corev1.PodTemplateSpec, pool string, size int32) (kept, error) {
	sets, err := r.owned(ctx, u)
	if err != nil {
		return kept{}, err
	}
	if size == 0 {
		return kept{}, r.drop(ctx, sets)
	}
	want := replicaSet(u, t, r.cfg.Pods.Home, pool, size)
	have, old := choose(sets, want)
	if have == nil {
		if have, err = r.search(ctx, want, sets); err != nil {
			return kept{}, err
		}
	}
	var state kept
	if state.current, err = r.ensure(ctx, want, have); err != nil || len(old) == 0 {
		return state, err
	}
	left := r.cfg.Patience - time.Since(state.current.CreationTimestamp.Time)
	if !filled(state.current) && left > 0 {
		state.again = left
		return state, nil
	}
	return state, r.drop(ctx, old)
}

// choose picks the ReplicaSet that is to become the one that is wanted, nil where none
// can, and says which others are of the same owner, or of none and have the same Pods.
// None is ever made smaller: it would delete Pods by name, with a session in them that
// has taken one just now. Another takes its place, for which want is given a free name.
func choose(sets []appsv1.ReplicaSet, want *appsv1.ReplicaSet) (have *appsv1.ReplicaSet, others []appsv1.ReplicaSet) {
	names := map[string]bool{}
	for i := range sets {
		set := &sets[i]
		names[set.Name] = true
		alike := equality.Semantic.DeepEqual(want.Spec.Selector, set.Spec.Selector)
		if owner := metav1.GetControllerOf(set); owner == nil && !alike || owner != nil && owner.UID != want.OwnerReferences[0].UID {
			continue
		}
		others = append(others, *set)
		if alike && set.DeletionTimestamp == nil && *set.Spec.Replicas <= *want.Spec.Replicas &&
			(have == nil || *set.Spec.Replicas > *have.Spec.Replicas) {
			have = set
		}
	}
	for base, n := want.Name, 2; have == nil && names[want.Name]; n++ {
		want.Name = base + "-" + strconv.Itoa(n)
	}
	if have != nil {
		want.Name = have.Name
		others = slices.DeleteFunc(others, func(set appsv1.ReplicaSet) bool { return set.Name == have.Name })
	}
	return have, others
}

// search looks, before a ReplicaSet is made, for those that have lost the labels or the
// owner by which they are known. Of these, one that fits is used again, and others are
// deleted, as nobody would find them later.
func (r *reconciler) search(ctx context.Context, want *appsv1.ReplicaSet, known []appsv1.ReplicaSet) (*appsv1.ReplicaSet, error) {
	var list appsv1.ReplicaSetList
	if err := r.live.List(ctx, &list, client.InNamespace(want.Namespace)); err != nil {
		return nil, fmt.Errorf("look for ReplicaSets: %w", err)
	}
	have, others := choose(list.Items, want)
	return have, r.drop(ctx, slices.DeleteFunc(others, func(set appsv1.ReplicaSet) bool {
		return slices.ContainsFunc(known, func(k appsv1.ReplicaSet) bool { return k.UID == set.UID })
	}))
}

// filled: all Pods of a ReplicaSet wait, ready.
func filled(set *appsv1.ReplicaSet) bool {
	return set.Status.ObservedGeneration >= set.Generation && set.Status.ReadyReplicas >= *set.Spec.Replicas
}

// replicaSet is the one that keeps a pool.
func replicaSet(u *unstructured.Unstructured, t corev1.PodTemplateSpec, home, pool string, size int32) *appsv1.ReplicaSet {
	selector := podspec.Selector(home)
	selector[podspec.LabelPool] = pool
	labels := podspec.MadeFrom(u.GetKind(), u.GetName())
	maps.Copy(labels, selector)
	prefix := u.GetName()
	prefix = strings.TrimRight(prefix[:min(len(prefix), namePrefix)], "-.")
	yes := true
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: u.GetNamespace(), Name: prefix + "-" + pool, Labels: labels,
			// It does not block the deletion of its owner: who may set that has to be
			// granted more.
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: u.GetAPIVersion(), Kind: u.GetKind(), Name: u.GetName(), UID: u.GetUID(), Controller: &yes,
			}},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &size, Selector: &metav1.LabelSelector{MatchLabels: selector}, Template: t},
	}
}

// ensure makes a ReplicaSet as it is wanted, from have, which may be nil, and is the
// one that there is then.
func (r *reconciler) ensure(ctx context.Context, want, have *appsv1.ReplicaSet) (*appsv1.ReplicaSet, error) {
	if have == nil {
		made := want.DeepCopy()
		if err := r.client.Create(ctx, made); err != nil {
			return nil, fmt.Errorf("make ReplicaSet: %w", err)
		}
		r.log.Info("pool made", "namespace", want.Namespace, "replicaSet", want.Name, "size", *want.Spec.Replicas)
		return made, nil
	}
	if same(want, have) {
		return have, nil
	}
	change := have.DeepCopy()
	change.Labels, change.OwnerReferences = want.Labels, want.OwnerReferences
	change.Spec.Replicas, change.Spec.Template = want.Spec.Replicas, want.Spec.Template
	if err := r.client.Update(ctx, change); err != nil {
		return nil, fmt.Errorf("change ReplicaSet: %w", err)
	}
	if change.ResourceVersion != have.ResourceVersion {
		r.log.Info("pool changed", "namespace", want.Namespace, "replicaSet", want.Name, "size", *want.Spec.Replicas)
	}
	return change, nil
}

// same: nothing that is wanted of a ReplicaSet is otherwise. What the API server has
// added is not compared.
func same(want, have *appsv1.ReplicaSet) bool {
	owner := metav1.GetControllerOf(have)
	return owner != nil && owner.UID == want.OwnerReferences[0].UID && *want.Spec.Replicas == *have.Spec.Replicas &&
		equality.Semantic.DeepDerivative(want.Labels, have.Labels) &&
		equality.Semantic.DeepDerivative(want.Spec.Template, have.Spec.Template)
}

// drop deletes ReplicaSets with the Pods that wait in them. The garbage collector asks
// of each Pod whether it still belongs to one, so that none goes that was just taken.
func (r *reconciler) drop(ctx context.Context, sets []appsv1.ReplicaSet) error {
	for i := range sets {
		set := &sets[i]
		if set.DeletionTimestamp != nil {
			continue
		}
		err := r.client.Delete(ctx, set, client.PropagationPolicy(metav1.DeletePropagationBackground), client.Preconditions{UID: &set.UID})
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete ReplicaSet: %w", err)
		}
		r.log.Info("pool deleted", "namespace", set.Namespace, "replicaSet", set.Name)
	}
	return nil
}
