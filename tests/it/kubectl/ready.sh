#!/bin/sh
# ready SELECTOR: waits for pods with these labels and says of them what their kubelets would: that they run and are ready.
until pods=$(kubectl get pods -l "$1" -o name) && [ -n "$pods" ]; do sleep 0.1; done
for pod in $pods; do
  kubectl patch "$pod" --subresource=status -p '{"status": {"phase": "Running", "podIP": "10.1.0.1",
    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}' >/dev/null
done
