"""Watches."""

import threading

from kubernetes import watch

from cluster import ClusterTest


class Watches(ClusterTest):
    def test_changes_arrive_in_order(self):
        core, ns = self.core, self.namespace
        core.create_namespaced_config_map(ns, self.config_map("a"))

        def write():
            core.patch_namespaced_config_map("a", ns, {"data": {"x": "1"}})
            core.create_namespaced_config_map(ns, self.config_map("b"))
            core.delete_namespaced_config_map("a", ns)

        seen, stream = [], watch.Watch()
        for event in stream.stream(core.list_namespaced_config_map, ns, label_selector="app=test", timeout_seconds=30):
            if not seen:
                threading.Thread(target=write).start()
            seen.append((event["type"], event["object"].metadata.name))
            if len(seen) == 4:
                stream.stop()
        self.assertEqual(seen, [("ADDED", "a"), ("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")])

    def test_goes_on_from_a_version(self):
        core, ns = self.core, self.namespace
        core.create_namespaced_config_map(ns, self.config_map("a"))
        version = core.list_namespaced_config_map(ns).metadata.resource_version
        core.create_namespaced_config_map(ns, self.config_map("b"))
        stream = watch.Watch()
        for event in stream.stream(core.list_namespaced_config_map, ns, label_selector="app=test", resource_version=version, timeout_seconds=30):
            self.assertEqual((event["type"], event["object"].metadata.name), ("ADDED", "b"))
            break

    def test_ends_when_it_is_told_to(self):
        events = watch.Watch().stream(self.core.list_namespaced_config_map, self.namespace, label_selector="app=none", timeout_seconds=1)
        self.assertEqual(list(events), [])
