package e2e

import (
	"os"
	"path/filepath"
	"strings"
)

// InstallationVariable names, in the environment, a file with the [Installation] that
// the tests of [Anywhere] are to use, as JSON. They start none of their own then.
const InstallationVariable = "AGENTCUBE_INSTALLATION"

// Installation is an AgentCube that somebody else has started.
type Installation struct {
	// Manager and Router are the URLs of the two planes.
	Manager, Router string
	// Token is shown by who uses it, and Stranger by who may do the same with sessions
	// of its own.
	Token, Stranger string
	// Isolation is what sessions of the templates say of theirs.
	Isolation string
	// Sleeps says whether sessions can be paused and copied. Where they cannot, tests
	// look at how that is refused.
	Sleeps bool
	// Lags says that Routers hear of the end of a session a moment late, as long as its
	// sandbox takes to end.
	Lags bool
}

// Anywhere are the tests that need an AgentCube to talk to, and nothing of the machine
// or of the process behind it: they are run on one machine and, as they are, on a
// cluster.
func Anywhere() []string {
	return []string{
		"TestAgent", "TestEndToEnd", "TestEndToEndChanged", "TestEndToEndIdle", "TestEndToEndPeers", "TestExitCodes", "TestFilesInAndOut",
		"TestGiven", "TestHostileRouter", "TestLargeFiles", "TestOldAgentClient", "TestOldClients", "TestOutputForPrograms", "TestOwnServerAnswers", "TestPort", "TestSDKItself", "TestSessionsEnd", "TestWhoMayCall",
	}
}

// small is a sandbox that does not take much.
const small = "maxProcesses: 64\n    resources: {limits: {cpu: \"1\", memory: 256Mi, ephemeral-storage: 128Mi}}"

// Templates are the resources that the tests of [Anywhere] use besides those that come
// with AgentCube, as YAML by name of a file. The image is the default one, by the name
// that it has there; root is the repository.
func Templates(root, image string) (map[string]string, error) {
	out := map[string]string{
		"agentcube-custom-template.yaml": interpreterText("agentcube", "custom-template", image, "", small),
		"default-short-idle.yaml":        interpreterText("default", "short-idle", image, "sessionTimeout: 6s", small),
		"default-short-life.yaml":        interpreterText("default", "short-life", image, "maxSessionDuration: 3s", small),
		"default-strict.yaml":            interpreterText("default", "strict", image, "strict: true", small),
		"default-given.yaml":             interpreterText("default", "given", image, "", "environment: [{name: TEMPLATE, value: template}, {name: GREETING, value: template}]\n    resources: {limits: {memory: 256Mi, ephemeral-storage: 128Mi}}"),
		"own-server.yaml":                interpreterText("default", "own-server", image, "authMode: none\n  ports: [{port: 9000, pathPrefix: /}]", "command: [python3, -m, http.server, \"9000\", --directory, /]\n    resources: {limits: {memory: 256Mi, ephemeral-storage: 128Mi}}"),
		"default-small.yaml":             interpreterText("default", "small", image, "", small),
		"agent.yaml":                     agentText("agent", image, agentServer, "sessionTimeout: 15m\n  maxSessionDuration: 8h"),
		"brief.yaml":                     agentText("brief", image, agentServer, "sessionTimeout: 6s"),
	}
	example, err := os.ReadFile(filepath.Join(root, "sdk", "python", "examples", "agent.yaml"))
	if err != nil {
		return nil, err
	}
	out["my-agent.yaml"] = strings.ReplaceAll(string(example), localImage, image)
	return out, nil
}

// localImage is how the default image is called where agentcube has imported it.
const localImage = "agentcube/python:latest"

// interpreterText is a CodeInterpreter, with more of its spec and of its template.
func interpreterText(namespace, name, image, spec, template string) string {
	return "apiVersion: runtime.agentcube.volcano.sh/v1alpha1\nkind: CodeInterpreter\n" +
		"metadata: {name: " + name + ", namespace: " + namespace + "}\n" +
		"spec:\n  " + spec + "\n" +
		"  template:\n    image: " + image + "\n    " + template + "\n"
}
