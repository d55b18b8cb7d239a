"""What comes with the client: manifests, and the election of a leader."""

import textwrap
import threading

import yaml
from kubernetes import client, utils
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

from cluster import ClusterTest


class Manifests(ClusterTest):
    def test_several_in_one(self):
        text = textwrap.dedent("""
            apiVersion: v1
            kind: Service
            metadata: {name: web}
            spec: {selector: {app: web}, ports: [{port: 80}]}
            ---
            apiVersion: apps/v1
            kind: Deployment
            metadata: {name: web}
            spec:
              selector: {matchLabels: {app: web}}
              template:
                metadata: {labels: {app: web}}
                spec: {containers: [{name: web, image: nginx}]}
            ---
            apiVersion: v1
            kind: List
            items:
            - {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
            - {apiVersion: v1, kind: Secret, metadata: {name: a}}
        """)
        utils.create_from_yaml(self.client, yaml_objects=list(yaml.safe_load_all(text)), namespace=self.namespace)
        self.assertTrue(client.AppsV1Api(self.client).read_namespaced_deployment("web", self.namespace).metadata.uid)
        for read in (self.core.read_namespaced_service, self.core.read_namespaced_config_map, self.core.read_namespaced_secret):
            self.assertTrue(read("web" if read == self.core.read_namespaced_service else "a", self.namespace).metadata.uid)
        with self.assertRaises(utils.FailToCreateError) as caught:
            utils.create_from_dict(self.client, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}, namespace=self.namespace)
        self.assertIn('secrets \\"a\\" already exists', str(caught.exception))


class Leaders(ClusterTest):
    def test_one_leads_at_a_time(self):
        client.Configuration.set_default(self.client.configuration)
        leads, done = threading.Event(), threading.Event()

        def work():
            leads.set()
            done.wait(30)

        lock = ConfigMapLock("leader", self.namespace, "one")
        config = electionconfig.Config(lock, lease_duration=3, renew_deadline=2, retry_period=1, onstarted_leading=work, onstopped_leading=None)
        threading.Thread(target=leaderelection.LeaderElection(config).run, daemon=True).start()
        self.assertTrue(leads.wait(30))
        other = leaderelection.LeaderElection(electionconfig.Config(
            ConfigMapLock("leader", self.namespace, "two"), lease_duration=3, renew_deadline=2, retry_period=1,
            onstarted_leading=lambda: None, onstopped_leading=None))
        self.assertFalse(other.try_acquire_or_renew())
        held, record = lock.get("leader", self.namespace)
        self.assertTrue(held)
        self.assertEqual(record.holder_identity, "one")
        done.set()
