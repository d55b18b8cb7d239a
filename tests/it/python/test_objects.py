"""The typed clients: CoreV1Api, AppsV1Api, BatchV1Api and their errors."""

import json

from kubernetes import client
from kubernetes.client.rest import ApiException

from cluster import ClusterTest


class Objects(ClusterTest):
    def refused(self, code, reason, call, *args, **kwargs):
        with self.assertRaises(ApiException) as caught:
            call(*args, **kwargs)
        self.assertTrue(caught.exception.body.endswith("}\n"))
        status = json.loads(caught.exception.body)
        self.assertEqual((caught.exception.status, status["reason"]), (code, reason))
        return status

    def test_config_maps(self):
        core, ns = self.core, self.namespace
        made = core.create_namespaced_config_map(ns, self.config_map("a", x="1"))
        self.assertTrue(made.metadata.uid)
        self.refused(409, "AlreadyExists", core.create_namespaced_config_map, ns, self.config_map("a"))
        self.refused(404, "NotFound", core.read_namespaced_config_map, "none", ns)
        status = self.refused(422, "Invalid", core.create_namespaced_config_map, ns, self.config_map("Wrong_Name"))
        self.assertEqual(status["details"]["causes"][0]["field"], "metadata.name")
        core.patch_namespaced_config_map("a", ns, {"data": {"y": "2"}})
        self.assertEqual(core.read_namespaced_config_map("a", ns).data, {"x": "1", "y": "2"})
        made.data = {"z": "3"}
        self.refused(409, "Conflict", core.replace_namespaced_config_map, "a", ns, made)
        made.metadata.resource_version = None
        self.assertEqual(core.replace_namespaced_config_map("a", ns, made).data, {"z": "3"})
        for name in "bcd":
            core.create_namespaced_config_map(ns, self.config_map(name))
        page = core.list_namespaced_config_map(ns, label_selector="app=test", limit=3)
        self.assertEqual([it.metadata.name for it in page.items], ["a", "b", "c"])
        rest = core.list_namespaced_config_map(ns, label_selector="app=test", limit=3, _continue=page.metadata._continue)
        self.assertEqual([it.metadata.name for it in rest.items], ["d"])
        core.delete_collection_namespaced_config_map(ns, label_selector="app=test")
        self.assertEqual(core.list_namespaced_config_map(ns, label_selector="app=test").items, [])

    def test_pods_and_services(self):
        core, ns = self.core, self.namespace
        spec = client.V1PodSpec(containers=[client.V1Container(name="web", image="nginx", ports=[client.V1ContainerPort(container_port=80)])])
        metadata = client.V1ObjectMeta(name="web", labels={"app": "web"})
        # The account it runs as is made by a controller.
        for _ in range(100):
            if core.list_namespaced_service_account(ns).items:
                break
        pod = core.create_namespaced_pod(ns, client.V1Pod(metadata=metadata, spec=spec))
        self.assertEqual((pod.status.phase, pod.spec.restart_policy), ("Pending", "Always"))
        core.patch_namespaced_pod_status("web", ns, {"status": {"phase": "Running"}})
        self.assertEqual(core.read_namespaced_pod_status("web", ns).status.phase, "Running")
        ports = [client.V1ServicePort(port=80, target_port="http")]
        service = core.create_namespaced_service(
            ns, client.V1Service(metadata=metadata, spec=client.V1ServiceSpec(selector={"app": "web"}, ports=ports)))
        self.assertRegex(service.spec.cluster_ip, r"^10\.10\.10\.")
        gone = core.delete_namespaced_pod("web", ns)
        self.assertIn(gone.status if isinstance(gone.status, str) else "", ("", "Success"))
        self.refused(404, "NotFound", core.read_namespaced_pod, "web", ns)

    def test_deployments(self):
        apps, ns = client.AppsV1Api(self.client), self.namespace
        template = client.V1PodTemplateSpec(
            metadata=client.V1ObjectMeta(labels={"app": "web"}),
            spec=client.V1PodSpec(containers=[client.V1Container(name="web", image="nginx")]))
        spec = client.V1DeploymentSpec(replicas=1, selector={"matchLabels": {"app": "web"}}, template=template)
        apps.create_namespaced_deployment(ns, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec))
        scaled = apps.patch_namespaced_deployment_scale("web", ns, {"spec": {"replicas": 2}})
        self.assertEqual(scaled.spec.replicas, 2)
        self.assertEqual(apps.read_namespaced_deployment("web", ns).spec.replicas, 2)
        apps.delete_namespaced_deployment("web", ns, propagation_policy="Foreground")

    def test_jobs(self):
        batch, ns = client.BatchV1Api(self.client), self.namespace
        pods = {"spec": {"restartPolicy": "Never", "containers": [{"name": "date", "image": "busybox", "command": ["date"]}]}}
        job = batch.create_namespaced_job(ns, {"metadata": {"name": "date"}, "spec": {"template": pods}})
        self.assertEqual((job.spec.completions, job.spec.backoff_limit), (1, 6))
        cron = {"metadata": {"name": "date"}, "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": pods}}}}
        self.assertEqual(batch.create_namespaced_cron_job(ns, cron).spec.concurrency_policy, "Allow")
        cron["spec"]["schedule"] = "never"
        self.refused(422, "Invalid", batch.replace_namespaced_cron_job, "date", ns, cron)
        batch.delete_namespaced_job("date", ns, propagation_policy="Background")
        batch.delete_namespaced_cron_job("date", ns)
