module github.com/volcano-sh/agentcube/test/kubernetes/binaries/pause

go 1.26.0
