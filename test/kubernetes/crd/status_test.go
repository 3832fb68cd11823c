package crd

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
)

func everything() metav1.ListOptions { return metav1.ListOptions{} }

// status is one with everything that a status can say.
func status() v1alpha1.CodeInterpreterStatus {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	return v1alpha1.CodeInterpreterStatus{
		Ready: true, ObservedGeneration: 1,
		WarmPool: &v1alpha1.WarmPoolStatus{Wanted: 3, Ready: 0, Claimed: 2},
		Conditions: []metav1.Condition{
			{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReconciled,
				Message: "CodeInterpreter is ready", ObservedGeneration: 1, LastTransitionTime: now},
			{Type: v1alpha1.ConditionFailing, Status: metav1.ConditionTrue, Reason: "ImagePull", Message: "no such image", LastTransitionTime: now},
		},
	}
}

// TestStatus: who writes the status changes nothing else, and who writes the spec
// does not change the status. Numbers that are 0 are kept.
func TestStatus(t *testing.T) {
	made := create(t, head(ci)+"spec: {template: {image: x}, warmPoolSize: 3}\nstatus: {ready: true}")
	if _, there := made.Object["status"]; there {
		t.Errorf("who creates it says its status: %v", made.Object["status"])
	}
	change := made.DeepCopy()
	want := status()
	var err error
	if change.Object["status"], err = runtime.DefaultUnstructuredConverter.ToUnstructured(&want); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedField(change.Object, "other", "spec", "template", "image"); err != nil {
		t.Fatal(err)
	}
	written, err := resource(made).UpdateStatus(t.Context(), change, metav1.UpdateOptions{FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made.Object["spec"], written.Object["spec"]); diff != "" || written.GetGeneration() != 1 {
		t.Errorf("writing the status gives generation %d and changes the spec (-before +after):\n%s", written.GetGeneration(), diff)
	}
	if diff := cmp.Diff(want, read(t, written).Status); diff != "" {
		t.Errorf("the status (-written +read):\n%s", diff)
	}
	patch := []byte(`{"spec": {"warmPoolSize": 4}, "status": {"ready": false, "warmPool": null}}`)
	patched, err := resource(made).Patch(t.Context(), made.GetName(), types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, patched)
	if diff := cmp.Diff(want, got.Status); diff != "" || got.Generation != 2 || *got.Spec.WarmPoolSize != 4 {
		t.Errorf("generation %d, pool of %d, and writing the spec changes the status (-before +after):\n%s", got.Generation, *got.Spec.WarmPoolSize, diff)
	}
}

func read(t *testing.T, u *unstructured.Unstructured) v1alpha1.CodeInterpreter {
	t.Helper()
	var out v1alpha1.CodeInterpreter
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, &out, true); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestUnknownFields: who does not ask for strictness has what is not known dropped.
func TestUnknownFields(t *testing.T) {
	o, err := object(head(ci) + "spec: {template: {image: x, unknown: 1}, unknown: {a: b}}")
	if err != nil {
		t.Fatal(err)
	}
	got, err := resource(o).Create(t.Context(), o, metav1.CreateOptions{FieldValidation: metav1.FieldValidationWarn, DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"template": map[string]any{"image": "x"}, "sessionTimeout": "15m", "maxSessionDuration": "8h", "authMode": "picod"}
	if diff := cmp.Diff(want, got.Object["spec"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestColumns: what kubectl get shows.
func TestColumns(t *testing.T) {
	made := create(t, head(ci)+"spec: {template: {image: x}, warmPoolSize: 3, isolation: gvisor}")
	want := status()
	var err error
	if made.Object["status"], err = runtime.DefaultUnstructuredConverter.ToUnstructured(&want); err != nil {
		t.Fatal(err)
	}
	if _, err := resource(made).UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	create(t, head(ar)+"spec: {"+container("")+"}")
	for name, want := range map[string]map[string]any{
		"codeinterpreters": {"Name": "a", "Ready": "True", "Image": "x", "Pool": 3., "Waiting": 0., "Claimed": 2., "Isolation": "gvisor", "Age": ""},
		"agentruntimes":    {"Name": "a", "Ready": nil, "Image": "x", "Isolation": nil, "Age": ""},
	} {
		got := columns(t, name)
		if _, ok := got["Age"].(string); ok {
			got["Age"] = "" // grows
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// columns are those of the one resource that there is.
func columns(t *testing.T, name string) map[string]any {
	t.Helper()
	data, err := server.typed.RESTClient().Get().AbsPath("/apis/"+v1alpha1.GroupVersion.String()+"/namespaces/default/"+name).
		SetHeader("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1").Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(data, &table); err != nil {
		t.Fatal(err)
	}
	if len(table.Rows) != 1 {
		t.Fatalf("there are %d rows: %s", len(table.Rows), data)
	}
	out := map[string]any{}
	for i, column := range table.ColumnDefinitions {
		out[column.Name] = table.Rows[0].Cells[i]
	}
	return out
}
