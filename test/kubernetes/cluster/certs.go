package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority signs the certificates of one cluster, and forgets its key with it.
type authority struct {
	dir    string // where certificates and keys are written
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

// pair is the files of a certificate and its key.
type pair struct{ cert, key string }

func newAuthority(dir string) (*authority, error) {
	a := &authority{dir: dir}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	template := a.template(pkix.Name{CommonName: "agentcube-test"})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	a.key = key
	_, err = a.write("ca", der, key)
	return a, err
}

func (a *authority) files() pair { return a.named("ca") }

func (a *authority) named(name string) pair {
	return pair{cert: filepath.Join(a.dir, name+".crt"), key: filepath.Join(a.dir, name+".key")}
}

// issue makes a certificate for a server at the addresses, which may also be used
// as a client that the API server knows as user, a member of group.
func (a *authority) issue(name, user, group string, addresses ...string) (pair, error) {
	subject := pkix.Name{CommonName: user}
	if group != "" {
		subject.Organization = []string{group}
	}
	template := a.template(subject)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for _, address := range addresses {
		if ip := net.ParseIP(address); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, address)
		}
	}
	if len(addresses) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return pair{}, fmt.Errorf("sign certificate: %w", err)
	}
	return a.write(name, der, key)
}

// Certificate is one of the cluster's authority, for hosts, with its key and the
// certificate of the authority, in PEM: for what a test serves, or shows as a client.
func (c *Cluster) Certificate(name string, hosts ...string) (ca, cert, key []byte, err error) {
	files, err := c.ca.issue(name, name, "", hosts...)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, part := range []struct {
		to   *[]byte
		path string
	}{{&ca, c.ca.files().cert}, {&cert, files.cert}, {&key, files.key}} {
		if *part.to, err = os.ReadFile(part.path); err != nil {
			return nil, nil, nil, fmt.Errorf("read certificate: %w", err)
		}
	}
	return ca, cert, key, nil
}

func (a *authority) template(subject pkix.Name) *x509.Certificate {
	a.serial++
	return &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: subject,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(7 * 24 * time.Hour),
	}
}

func (a *authority) write(name string, der []byte, key any) (pair, error) {
	files := a.named(name)
	if err := writePEM(files.cert, "CERTIFICATE", der); err != nil {
		return pair{}, err
	}
	return files, writeKey(files.key, key)
}

// serviceAccountKey makes the key that tokens of service accounts are signed with:
// RSA, as that is what every verifier of such tokens knows.
func (a *authority) serviceAccountKey() (private, public string, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", "", fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", "", fmt.Errorf("encode key: %w", err)
	}
	private, public = filepath.Join(a.dir, "accounts.key"), filepath.Join(a.dir, "accounts.pub")
	if err := writePEM(public, "PUBLIC KEY", der); err != nil {
		return "", "", err
	}
	return private, public, writeKey(private, key)
}

func writeKey(path string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	return writePEM(path, "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}

// writeKubeconfig writes, as JSON, which is YAML, how to reach the API server at
// url with a certificate. It holds all it needs, so that it can be copied.
func (a *authority) writeKubeconfig(path, url string, client pair) error {
	ca, caErr := os.ReadFile(a.files().cert)
	cert, certErr := os.ReadFile(client.cert)
	key, err := os.ReadFile(client.key)
	for _, err := range []error{caErr, certErr, err} {
		if err != nil {
			return fmt.Errorf("read certificate: %w", err)
		}
	}
	type object map[string]any
	const name = "agentcube-test"
	data, err := json.MarshalIndent(object{
		"apiVersion": "v1", "kind": "Config", "current-context": name,
		"clusters": []object{{"name": name, "cluster": object{"server": url, "certificate-authority-data": ca}}},
		"users":    []object{{"name": name, "user": object{"client-certificate-data": cert, "client-key-data": key}}},
		"contexts": []object{{"name": name, "context": object{"cluster": name, "user": name}}},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode kubeconfig: %w", err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}
