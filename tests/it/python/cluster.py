"""The cluster that the tests are for, a namespace of its own for each."""

import os
import unittest
import uuid

from kubernetes import client


def api_client():
    configuration = client.Configuration()
    configuration.host = os.environ["SERVER"]
    return client.ApiClient(configuration)


class ClusterTest(unittest.TestCase):
    def setUp(self):
        self.client = api_client()
        self.core = client.CoreV1Api(self.client)
        self.namespace = "test-" + uuid.uuid4().hex[:8]
        self.core.create_namespace({"metadata": {"name": self.namespace}})

    def tearDown(self):
        self.core.delete_namespace(self.namespace)
        self.client.close()

    def config_map(self, name, **data):
        return {"metadata": {"name": name, "labels": {"app": "test"}}, "data": data}
