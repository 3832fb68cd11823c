package behind

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// newsless lets everything through but news: a watch begins and nothing ever comes. One
// that would begin with what there is, is refused, so that it is listed instead.
type newsless struct{ http.RoundTripper }

func (t newsless) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	switch {
	case !q.Has("watch"):
		return t.RoundTripper.RoundTrip(r)
	case q.Has("sendInitialEvents"):
		return nil, errors.New("refused")
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestMadeByAnother: a sandbox that another manager has made since the last news is not
// in the list, and still there; one that nobody has made is not.
func TestMadeByAnother(t *testing.T) {
	binaries := os.Getenv("AGENTCUBE_KUBERNETES")
	if binaries == "" {
		t.Fatal("AGENTCUBE_KUBERNETES is not set; run these tests with: make test-kubernetes")
	}
	c, err := cluster.Start(t.Context(), cluster.Options{Binaries: binaries})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.WriteLogs(t.Output())
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	another, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	behind := rest.CopyConfig(config)
	behind.Wrap(func(rt http.RoundTripper) http.RoundTripper { return newsless{rt} })
	client, err := kubernetes.NewForConfig(behind)
	if err != nil {
		t.Fatal(err)
	}
	d, err := kube.New(kube.Config{
		Client: client, Namespace: metav1.NamespaceDefault, Pods: podspec.Settings{AgentImage: "agent"}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer d.Close()

	const id = "s-made-by-another"
	labels, annotations, err := podspec.Own(id, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range podspec.Selector("") {
		labels[k] = v
	}
	no := false
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: id, Labels: labels, Annotations: annotations},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}, AutomountServiceAccountToken: &no},
	}
	for { // until the namespace has its service account
		if _, err = another.CoreV1().Pods(metav1.NamespaceDefault).Create(t.Context(), pod, metav1.CreateOptions{}); err == nil {
			break
		}
		select {
		case <-t.Context().Done():
			t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if all, err := d.List(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("the driver is not behind: it lists %+v, %v", all, err)
	}
	if sb, err := d.Get(t.Context(), id); err != nil || sb.ID != id {
		t.Errorf("Get: %+v, %v", sb, err)
	}
	if _, err := d.Get(t.Context(), "s-made-by-nobody"); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("Get of what is not there: %v", err)
	}
	if err := d.Delete(t.Context(), id); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if _, err := d.Get(t.Context(), id); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("Get of what was deleted: %v", err)
	}
}
