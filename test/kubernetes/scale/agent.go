package scale

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// serveAgents answers as PicoD at the addresses of nodes, until ctx ends.
func serveAgents(ctx context.Context, count int) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /init", func(w http.ResponseWriter, r *http.Request) { initialize(w, r, key) })
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	for i := range count {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(nodeAddress(i), strconv.Itoa(int(sandbox.AgentPort))))
		if err != nil {
			return fmt.Errorf("be PicoD: %w", err)
		}
		go func() { _ = server.Serve(l) }()
	}
	return nil
}

// initialize answers with a certificate of the session, as long as PicoD's.
func initialize(w http.ResponseWriter, r *http.Request, key *ecdsa.PrivateKey) {
	var in struct {
		SessionID  string            `json:"sessionId"`
		SessionEnv map[string]string `json:"sessionEnv"`
		Files      []any             `json:"files"`
		Strict     bool              `json:"strict"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 8<<20)).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		DNSNames: []string{api.SecureName(in.SessionID)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"variables": len(in.SessionEnv), "files": len(in.Files), "strict": in.Strict,
		"certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	})
}
