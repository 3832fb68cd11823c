package install

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// encrypted upgrades to TLS everywhere, with certificates that Router and Workload
// Manager have to show each other, and uses what was installed. A client without one has
// its sessions made by the Router.
func (w *world) encrypted(t *testing.T, token string) {
	const routerName = "router.agentcube.test"
	ca, _ := w.secret(t, "router-tls", cluster.NodeIP)
	managerCA, _ := w.secret(t, "manager-tls", "workloadmanager."+release+".svc", cluster.NodeIP)
	_, shown := w.secret(t, "router-client", routerName)
	w.helm(t, "upgrade", func(values object) {
		values["tls"] = object{
			"router":          object{"secretName": "router-tls", "clientSecretName": "router-client"},
			"workloadmanager": object{"secretName": "manager-tls", "clientCASecretName": "manager-tls", "clientNames": []string{routerName}},
		}
	})
	router, manager := strings.Replace(w.router, "http:", "https:", 1), strings.Replace(w.manager, "http:", "https:", 1)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	ask := func(method, url, session, body string, certificates ...tls.Certificate) (*http.Response, string, error) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certificates}}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(api.HeaderSessionID, session)
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			return nil, "", err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return resp, string(text), err
	}

	execute := router + "/v1/namespaces/default/code-interpreters/" + client.DefaultTemplate + "/invocations/api/execute"
	resp, text, err := ask("POST", execute, "", `{"command": ["echo", "made by the Router"]}`)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(text, "made by the Router") {
		t.Fatalf("a session that the Router has made: %v %s", err, text)
	}
	id := resp.Header.Get(api.HeaderSessionID)
	if resp, text, err = ask("POST", execute, id, `{"command": ["echo", "again"]}`); err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(text, "again") {
		t.Errorf("the same session: %v %s", err, text)
	}
	// Without a certificate nobody gets as far as to say who it is.
	if _, _, err := ask("GET", manager+"/v1/sessions", "", ""); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("a client without certificate: %v", err)
	}
	if resp, text, err = ask("DELETE", manager+"/v1/sessions/"+id, "", "", shown); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("a client with the certificate: %v %s", err, text)
	}
	w.throughTLS(t, append(ca, managerCA...), token, manager, router)
	w.helm(t, "upgrade", nil) // what comes after speaks plain text again
	w.replaced(t)
}

// replaced waits until the Pods from before an upgrade are gone.
func (w *world) replaced(t *testing.T) {
	t.Helper()
	await(t, "those from before to be gone", func() (bool, error) {
		n := len(w.parts(t))
		return n == 4, fmt.Errorf("there are %d Pods", n)
	})
}

// throughTLS upgrades to a Workload Manager that asks for no certificates, and uses
// sessions that are encrypted as far as their sandbox, past the TLS of the Router.
func (w *world) throughTLS(t *testing.T, authorities []byte, token, manager, router string) {
	w.helm(t, "upgrade", func(values object) {
		values["tls"] = object{"router": object{"secretName": "router-tls"}, "workloadmanager": object{"secretName": "manager-tls"}}
	})
	w.replaced(t)
	file := filepath.Join(t.TempDir(), "authorities.pem")
	if err := os.WriteFile(file, authorities, 0o600); err != nil {
		t.Fatal(err)
	}
	const program = "from agentcube import CodeInterpreterClient\nwith CodeInterpreterClient() as c:\n" +
		"    print(c.execute_command('echo past the Router'), len(c.audit_record().entries))\n"
	for what, args := range map[string][]string{
		"the command line": {places.program, "run", "--", "echo", "past the Router"},
		"the Python SDK":   {places.interpreter, "-c", program},
	} {
		before := w.scrape(t, "router")["agentcube_router_tunnel_duration_seconds_count"]
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+file, "WORKLOAD_MANAGER_URL="+manager, "ROUTER_URL="+router, "API_TOKEN="+token, "PYTHONPATH="+places.sdk)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "past the Router") {
			t.Errorf("%s: %s, %v", what, out, err)
		}
		await(t, what+" to have been carried unread", func() (bool, error) {
			now := w.scrape(t, "router")["agentcube_router_tunnel_duration_seconds_count"]
			return now > before, fmt.Errorf("connections were %v, and are %v", before, now)
		})
	}
}

// secret keeps a certificate for hosts, with its key and its authority.
func (w *world) secret(t *testing.T, name string, hosts ...string) (ca []byte, own tls.Certificate) {
	t.Helper()
	ca, cert, key, err := w.Certificate(name, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.CoreV1().Secrets(release).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key, "ca.crt": ca},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if own, err = tls.X509KeyPair(cert, key); err != nil {
		t.Fatal(err)
	}
	return ca, own
}
