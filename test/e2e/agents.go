package e2e

import (
	"encoding/json"
	"fmt"
)

// agentServer is an agent with state. It knows nothing at "/".
const agentServer = `
import hashlib, http.server, json, os, threading
count, go = 0, threading.Semaphore(0)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, value, status=200):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    def do_POST(self):
        global count
        left, digest = int(self.headers.get("Content-Length") or 0), hashlib.sha256()
        size = left
        while left:
            piece = self.rfile.read(min(left, 1 << 20))
            digest.update(piece)
            left -= len(piece)
        if self.path == "/count":
            count += 1
            self.answer({"count": count})
        elif self.path == "/go":
            go.release()
            self.answer("gone")
        elif self.path == "/die":
            os._exit(3)
        else:
            self.answer({"size": size, "sha256": digest.hexdigest()})
    def do_GET(self):
        if self.path == "/events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for n in range(3):
                event = f"data: {n}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                go.acquire()
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/blob":
            self.answer(b"x" * (32 << 20))
        elif self.path == "/":
            self.answer({"error": "no such page"}, 404)
        else:
            self.answer({"port": self.server.server_port, "path": self.path, "uid": os.getuid(), "cwd": os.getcwd(),
                         "headers": {k.lower(): v for k, v in self.headers.items()}})
    do_PUT = do_HEAD = do_GET

admin = http.server.ThreadingHTTPServer(("", 9001), Handler)
threading.Thread(target=admin.serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(("", 9000), Handler).serve_forever()
`

// agentText is an AgentRuntime that runs a program of Python, with more of its spec.
func agentText(name, image, program, more string) string {
	command, _ := json.Marshal([]string{"python3", "-c", program}) // strings can always be
	return fmt.Sprintf(`apiVersion: runtime.agentcube.volcano.sh/v1alpha1
kind: AgentRuntime
metadata: {name: %s, namespace: default}
spec:
  targetPort:
    - {port: 9001, pathPrefix: /admin, protocol: HTTP}
    - {port: 9000, pathPrefix: /, protocol: HTTP}
  podTemplate:
    spec:
      securityContext: {runAsUser: 1000, runAsNonRoot: true}
      containers:
        - name: agent
          image: %s
          workingDir: /srv
          command: %s
          resources: {limits: {cpu: "1", memory: 256Mi}}
  %s
status: {}
`, name, image, command, more)
}
