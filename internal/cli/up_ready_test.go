package cli

import (
	"bytes"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/config"
)

func TestNotifyServiceManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	var logged bytes.Buffer
	s := &server{cfg: config.New([]string{"NOTIFY_SOCKET=" + path}), log: slog.New(slog.NewTextHandler(&logged, nil))}
	s.notify("READY=1")
	s.stopping()
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		buf := make([]byte, 64)
		if err := socket.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := socket.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("got %q, %v, want %q", buf[:n], err, want)
		}
	}
	if strings.Contains(logged.String(), "not notified") {
		t.Errorf("logged %s", logged.String())
	}

	s.cfg.NotifySocket = path + "-gone"
	s.notify("READY=1")
	if !strings.Contains(logged.String(), "not notified") {
		t.Errorf("nobody to notify, logged %s", logged.String())
	}
}
