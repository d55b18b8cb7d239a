"""The dynamic client, which knows of every kind what discovery says."""

from kubernetes import dynamic
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, ResourceNotFoundError

from cluster import ClusterTest


class Dynamic(ClusterTest):
    def setUp(self):
        super().setUp()
        self.dynamic = dynamic.DynamicClient(self.client)
        self.maps = self.dynamic.resources.get(api_version="v1", kind="ConfigMap")

    def test_objects(self):
        maps, ns = self.maps, self.namespace
        maps.create(body=self.config_map("a", x="1"), namespace=ns)
        with self.assertRaises(ConflictError):
            maps.create(body=self.config_map("a"), namespace=ns)
        for kind in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
            self.assertEqual(maps.patch(name="a", namespace=ns, body={"data": {"x": kind}}, content_type=kind).data.x, kind)
        self.assertEqual([it.metadata.name for it in maps.get(namespace=ns, label_selector="app=test").items], ["a"])
        maps.delete(name="a", namespace=ns)
        with self.assertRaises(NotFoundError):
            maps.get(name="a", namespace=ns)

    def test_applied_on_the_server(self):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}}
        made = self.dynamic.server_side_apply(self.maps, body=body, namespace=self.namespace, field_manager="one")
        self.assertEqual(made.metadata.managedFields[0].manager, "one")
        body["data"]["x"] = "2"
        with self.assertRaises(ConflictError):
            self.dynamic.server_side_apply(self.maps, body=body, namespace=self.namespace, field_manager="other")
        forced = self.dynamic.server_side_apply(
            self.maps, body=body, namespace=self.namespace, field_manager="other", force_conflicts=True)
        self.assertEqual(forced.data.x, "2")

    def test_watch(self):
        self.maps.create(body=self.config_map("a"), namespace=self.namespace)
        for event in self.maps.watch(namespace=self.namespace, label_selector="app=test", timeout=30):
            self.assertEqual((event["type"], event["object"].metadata.name), ("ADDED", "a"))
            break

    def test_kinds(self):
        for api_version, kind in (("apps/v1", "Deployment"), ("batch/v1", "CronJob"), ("rbac.authorization.k8s.io/v1", "ClusterRole")):
            resource = self.dynamic.resources.get(api_version=api_version, kind=kind)
            self.assertEqual(resource.get(**({"namespace": self.namespace} if resource.namespaced else {})).kind, kind + "List")
        with self.assertRaises(ResourceNotFoundError):
            self.dynamic.resources.get(api_version="example.com/v1", kind="None")
