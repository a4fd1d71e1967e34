"""A real Kubernetes with Argo Workflows on one Linux machine, for tests; see docs/cluster.md."""
