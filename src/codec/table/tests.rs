//! The tables of each kind, as kubectl prints them.

use serde_json::{Value, json};

use super::*;
use crate::object::resource;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn object(resource: ResourceRef, mut value: Value) -> Arc<Object> {
    let metadata = value.as_object_mut().unwrap().entry("metadata").or_insert(json!({}));
    for (key, filled) in [("name", "x"), ("resourceVersion", "7"), ("creationTimestamp", "2026-01-01T00:57:00Z")] {
        if metadata.get(key).is_none() {
            metadata[key] = filled.into();
        }
    }
    value["apiVersion"] = resource.api_version().into();
    value["kind"] = resource.kind.into();
    Object::from_wire(resource, Bytes::from(value.to_string())).unwrap()
}

fn table(resource: ResourceRef, objects: &[Arc<Object>], include: IncludeObject, metadata: &str, with_columns: bool) -> Bytes {
    TableWriter::new(resource, MetaVersion::V1, include, now()).table(objects, metadata, with_columns)
}

fn render(resource: ResourceRef, value: Value) -> Value {
    let bytes = table(resource, &[object(resource, value)], IncludeObject::None, r#"{"resourceVersion":"9"}"#, true);
    serde_json::from_slice(&bytes).unwrap()
}

fn cells(resource: ResourceRef, value: Value) -> Value {
    render(resource, value)["rows"][0]["cells"].clone()
}

#[test]
fn every_resource_fills_its_columns() {
    for resource in resource::ALL {
        let whole = match resource.plural {
            "deployments" | "replicasets" | "statefulsets" | "daemonsets" => {
                json!({"spec": {"selector": {}, "template": {"metadata": {}, "spec": {"containers": []}}}})
            }
            _ => json!({}),
        };
        for value in [whole, json!({"spec": "not a spec", "metadata": {"name": "x"}})] {
            let table = render(resource, value.clone());
            let (columns, cells) = (table["columnDefinitions"].as_array().unwrap(), table["rows"][0]["cells"].as_array().unwrap());
            assert_eq!(columns.len(), cells.len(), "{resource:?} {value}: {cells:?}");
            let name = columns.iter().position(|it| it["format"] == "name").unwrap();
            assert_eq!(cells[name], "x", "{resource:?}");
        }
        let plain = !resource.allows("get") || *resource == &resource::CSI_STORAGE_CAPACITY;
        assert_eq!(printer(resource).is_none(), plain, "{resource:?}");
    }
}

#[test]
fn the_parts_of_a_table() {
    let pod = object(&resource::POD, json!({"metadata": {"name": "a\"b", "labels": {"k": "v"}}, "spec": {"containers": []}}));
    let whole: Value = serde_json::from_slice(pod.body()).unwrap();
    let metadata = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": whole["metadata"]});
    for (include, expected) in
        [(IncludeObject::None, Value::Null), (IncludeObject::Metadata, metadata.clone()), (IncludeObject::Object, whole.clone())]
    {
        let bytes = table(&resource::POD, &[pod.clone(), pod.clone()], include, r#"{"resourceVersion":"9"}"#, false);
        let table: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["apiVersion"], "meta.k8s.io/v1");
        assert_eq!(table["metadata"], json!({"resourceVersion": "9"}));
        assert_eq!(table["columnDefinitions"], Value::Null);
        assert_eq!(table["rows"].as_array().unwrap().len(), 2);
        assert_eq!(table["rows"][1]["object"], expected);
        assert_eq!(table["rows"][1]["cells"][0], "a\"b");
    }
    let empty: Value = serde_json::from_slice(&table(&resource::POD, &[], IncludeObject::Metadata, "{}", true)).unwrap();
    assert_eq!(empty["rows"], json!([]));
    let names: Vec<_> =
        empty["columnDefinitions"].as_array().unwrap().iter().map(|it| (it["name"].as_str().unwrap(), &it["priority"])).collect();
    assert_eq!(names[..2], [("Name", &json!(0)), ("Ready", &json!(0))]);
    assert_eq!(names[5], ("IP", &json!(1)));
}

#[test]
fn how_pods_fare() {
    let running = |ready: bool| json!({"name": "c", "ready": ready, "restartCount": 0, "state": {"running": {}}});
    let waiting = |reason: &str, restarts: i32| {
        json!({"name": "c", "ready": false, "restartCount": restarts, "state": {"waiting": {"reason": reason}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:59:30Z"}}})
    };
    let ended = |state: Value| json!({"name": "c", "ready": false, "restartCount": 0, "state": {"terminated": state}});
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let one = json!({"containers": [{"name": "c"}]});
    let two = json!({"containers": [{"name": "c"}, {"name": "d"}]});
    let init = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
    let sidecar = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i", "restartPolicy": "Always"}]});
    let with = |mut container: Value, name: &str| {
        container["name"] = name.into();
        container
    };
    for (spec, status, deleted, expected) in [
        (&one, json!({"phase": "Pending"}), false, ["0/1", "Pending", "0"]),
        (&one, json!({"phase": "Running", "containerStatuses": [running(true)]}), false, ["1/1", "Running", "0"]),
        (&two, json!({"phase": "Running", "containerStatuses": [running(true), running(false)]}), false, ["1/2", "Running", "0"]),
        (
            &one,
            json!({"phase": "Pending", "containerStatuses": [waiting("ContainerCreating", 0)]}),
            false,
            ["0/1", "ContainerCreating", "0"],
        ),
        (
            &one,
            json!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff", 3)]}),
            false,
            ["0/1", "CrashLoopBackOff", "3 (30s ago)"],
        ),
        (
            &one,
            json!({"phase": "Succeeded", "containerStatuses": [ended(json!({"exitCode": 0, "reason": "Completed"}))]}),
            false,
            ["0/1", "Completed", "0"],
        ),
        (&one, json!({"phase": "Failed", "containerStatuses": [ended(json!({"exitCode": 3}))]}), false, ["0/1", "ExitCode:3", "0"]),
        (
            &one,
            json!({"phase": "Failed", "containerStatuses": [ended(json!({"exitCode": 137, "signal": 9}))]}),
            false,
            ["0/1", "Signal:9", "0"],
        ),
        (&one, json!({"phase": "Failed", "reason": "Evicted"}), false, ["0/1", "Evicted", "0"]),
        (
            &two,
            json!({"phase": "Running", "containerStatuses": [ended(json!({"exitCode": 0, "reason": "Completed"})), running(true)]}),
            false,
            ["1/2", "NotReady", "0"],
        ),
        (
            &two,
            json!({"phase": "Running", "conditions": ready, "containerStatuses": [ended(json!({"exitCode": 0, "reason": "Completed"})), running(true)]}),
            false,
            ["1/2", "Running", "0"],
        ),
        (&one, json!({"phase": "Running", "containerStatuses": [running(true)]}), true, ["1/1", "Terminating", "0"]),
        (&one, json!({"phase": "Running", "reason": "NodeLost", "containerStatuses": [running(true)]}), true, ["1/1", "Unknown", "0"]),
        (
            &one,
            json!({"phase": "Succeeded", "containerStatuses": [ended(json!({"exitCode": 0, "reason": "Completed"}))]}),
            true,
            ["0/1", "Completed", "0"],
        ),
        (
            &one,
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            false,
            ["0/1", "SchedulingGated", "0"],
        ),
        (
            &init,
            json!({"phase": "Pending", "initContainerStatuses": [with(running(false), "i"), with(waiting("PodInitializing", 0), "j")],
                "containerStatuses": [waiting("PodInitializing", 0)]}),
            false,
            ["0/1", "Init:0/2", "0"],
        ),
        (
            &init,
            json!({"phase": "Pending", "initContainerStatuses":
                [with(ended(json!({"exitCode": 0, "reason": "Completed"})), "i"), with(waiting("PodInitializing", 0), "j")]}),
            false,
            ["0/1", "Init:1/2", "0"],
        ),
        (
            &init,
            json!({"phase": "Pending", "initContainerStatuses": [with(ended(json!({"exitCode": 2})), "i")]}),
            false,
            ["0/1", "Init:ExitCode:2", "0"],
        ),
        (
            &init,
            json!({"phase": "Pending", "initContainerStatuses": [with(ended(json!({"exitCode": 2, "reason": "Error"})), "i")]}),
            false,
            ["0/1", "Init:Error", "0"],
        ),
        (
            &init,
            json!({"phase": "Pending", "initContainerStatuses": [with(waiting("CrashLoopBackOff", 2), "i")]}),
            false,
            ["0/1", "Init:CrashLoopBackOff", "2 (30s ago)"],
        ),
        (
            &init,
            json!({"phase": "Pending", "conditions": [{"type": "Initialized", "status": "True"}],
                "initContainerStatuses": [with(ended(json!({"exitCode": 0})), "i"), with(ended(json!({"exitCode": 0})), "j")],
                "containerStatuses": [waiting("PodInitializing", 0)]}),
            false,
            ["0/1", "PodInitializing", "0"],
        ),
        (
            &sidecar,
            json!({"phase": "Running", "containerStatuses": [running(true)],
                "initContainerStatuses": [{"name": "i", "ready": true, "started": true, "restartCount": 4, "state": {"running": {}}}]}),
            false,
            ["2/2", "Running", "4"],
        ),
    ] {
        let mut status = status;
        for list in ["containerStatuses", "initContainerStatuses"] {
            for container in status.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                container["image"] = "i".into();
                container["imageID"] = "".into();
            }
        }
        let mut metadata = json!({});
        if deleted {
            metadata["deletionTimestamp"] = "2026-01-01T00:59:00Z".into();
        }
        let cells = cells(&resource::POD, json!({"metadata": metadata, "spec": spec, "status": status}));
        assert_eq!(cells.as_array().unwrap()[1..4], expected.map(Value::from), "{status}");
        assert_eq!(cells[4], "3m");
    }
}

#[test]
fn cells_of_other_kinds() {
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "y"}]}});
    let selector = json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [
        {"key": "c", "operator": "In", "values": ["y", "x"]}, {"key": "d", "operator": "DoesNotExist"}]});
    for (resource, value, expected) in [
        (
            &resource::POD,
            json!({"spec": {"containers": [], "nodeName": "n", "readinessGates": [{"conditionType": "g"}, {"conditionType": "h"}]},
                "status": {"podIPs": [{"ip": "1.2.3.4"}], "conditions": [{"type": "g", "status": "True"}]}}),
            json!(["x", "0/0", "", "0", "3m", "1.2.3.4", "n", "<none>", "1/2"]),
        ),
        (&resource::POD_TEMPLATE, json!({"template": template}), json!(["x", "c,d", "x,y", "a=b"])),
        (
            &resource::SERVICE,
            json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "selector": {"b": "2", "a": "1"},
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            json!(["x", "NodePort", "10.0.0.1", "<none>", "80:30080/TCP,53/UDP", "3m", "a=1,b=2"]),
        ),
        (&resource::SERVICE, json!({"spec": {"clusterIP": "None"}}), json!(["x", "ClusterIP", "None", "<none>", "<none>", "3m", "<none>"])),
        (
            &resource::SERVICE,
            json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}}),
            json!(["x", "LoadBalancer", "10.0.0.1", "<pending>", "<none>", "3m", "<none>"]),
        ),
        (
            &resource::SERVICE,
            json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "externalIPs": ["9.9.9.9"]},
                "status": {"loadBalancer": {"ingress": [{"ip": "8.8.8.8"}, {"hostname": "h"}]}}}),
            json!(["x", "LoadBalancer", "10.0.0.1", "8.8.8.8,h,9.9.9.9", "<none>", "3m", "<none>"]),
        ),
        (
            &resource::SERVICE,
            json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}),
            json!(["x", "ExternalName", "<none>", "a.b", "<none>", "3m", "<none>"]),
        ),
        (&resource::ENDPOINTS, json!({}), json!(["x", "<none>", "3m"])),
        (
            &resource::ENDPOINTS,
            json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "::1"}], "ports": [{"port": 80}, {"port": 81}]},
                {"addresses": [{"ip": "2.2.2.2"}]}]}),
            json!(["x", "1.1.1.1:80,[::1]:80,1.1.1.1:81 + 2 more...", "3m"]),
        ),
        (
            &resource::ENDPOINT_SLICE,
            json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1.1.1.1"]}]}),
            json!(["x", "IPv4", "80", "1.1.1.1", "3m"]),
        ),
        (&resource::ENDPOINT_SLICE, json!({"addressType": "IPv4", "endpoints": []}), json!(["x", "IPv4", "<unset>", "<unset>", "3m"])),
        (
            &resource::REPLICATION_CONTROLLER,
            json!({"spec": {"replicas": 3, "selector": {"a": "b"}, "template": template}, "status": {"replicas": 2, "readyReplicas": 1}}),
            json!(["x", 3, 2, 1, "3m", "c,d", "x,y", "a=b"]),
        ),
        (
            &resource::REPLICA_SET,
            json!({"spec": {"replicas": 3, "selector": selector, "template": template}, "status": {"replicas": 2, "readyReplicas": 1}}),
            json!(["x", 3, 2, 1, "3m", "c,d", "x,y", "a=1,b=2,c in (x,y),!d"]),
        ),
        (
            &resource::DEPLOYMENT,
            json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template},
                "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}}),
            json!(["x", "1/3", 2, 1, "3m", "c,d", "x,y", "a=b"]),
        ),
        (
            &resource::STATEFUL_SET,
            json!({"spec": {"replicas": 2, "selector": {}, "serviceName": "", "template": template}, "status": {"replicas": 2, "readyReplicas": 2}}),
            json!(["x", "2/2", "3m", "c,d", "x,y"]),
        ),
        (
            &resource::DAEMON_SET,
            json!({"spec": {"selector": {}, "template": {"spec": {"containers": [], "nodeSelector": {"d": "e"}}}},
                "status": {"desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberReady": 2, "numberMisscheduled": 0,
                    "updatedNumberScheduled": 1, "numberAvailable": 2}}),
            json!(["x", 4, 3, 2, 1, 2, "d=e", "3m", "", "", "<none>"]),
        ),
        (
            &resource::CONTROLLER_REVISION,
            json!({"revision": 4, "metadata": {"ownerReferences":
                [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true}]}}),
            json!(["x", "daemonset.apps/d", 4, "3m"]),
        ),
        (
            &resource::JOB,
            json!({"spec": {"completions": 3, "template": template}, "status": {"succeeded": 1, "startTime": "2026-01-01T00:58:00Z"}}),
            json!(["x", "Running", "1/3", "2m", "3m", "c,d", "x,y", "<none>"]),
        ),
        (
            &resource::JOB,
            json!({"spec": {"parallelism": 2, "template": {}}, "status": {"conditions": [{"type": "Complete", "status": "True"}],
                "startTime": "2026-01-01T00:58:00Z", "completionTime": "2026-01-01T00:58:07Z"}}),
            json!(["x", "Complete", "0/1 of 2", "7s", "3m", "", "", "<none>"]),
        ),
        (
            &resource::CRON_JOB,
            json!({"spec": {"schedule": "* * * * *", "suspend": false, "jobTemplate": {"spec": {"template": template}}},
                "status": {"lastScheduleTime": "2026-01-01T00:59:50Z"}}),
            json!(["x", "* * * * *", "<none>", "False", 0, "10s", "3m", "c,d", "x,y", "<none>"]),
        ),
        (
            &resource::NODE,
            json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}}, "spec": {"unschedulable": true},
                "status": {"conditions": [{"type": "Ready", "status": "Unknown"}], "addresses": [{"type": "InternalIP", "address": "1.1.1.1"}]}}),
            json!([
                "x",
                "NotReady,SchedulingDisabled",
                "edge,worker",
                "3m",
                "",
                "1.1.1.1",
                "<none>",
                "<unknown>",
                "<unknown>",
                "<unknown>"
            ]),
        ),
        (&resource::LEASE, json!({"spec": {"holderIdentity": "h"}}), json!(["x", "h", "3m"])),
        (&resource::NAMESPACE, json!({"status": {"phase": "Active"}}), json!(["x", "Active", "3m"])),
        (&resource::CONFIG_MAP, json!({"data": {"a": "b"}, "binaryData": {"c": ""}}), json!(["x", 2, "3m"])),
        (&resource::SECRET, json!({"type": "Opaque", "data": {"a": "Yg=="}}), json!(["x", "Opaque", 1, "3m"])),
        (&resource::SERVICE_ACCOUNT, json!({"secrets": [{"name": "s"}]}), json!(["x", 1, "3m"])),
        (&resource::LIMIT_RANGE, json!({}), json!(["x", "2026-01-01T00:57:00Z"])),
        (
            &resource::RESOURCE_QUOTA,
            json!({"status": {"hard": {"cpu": "2", "pods": "10", "limits.cpu": "4"}, "used": {"pods": "3", "limits.cpu": "1"}}}),
            json!(["x", "cpu: 0/2, pods: 3/10", "limits.cpu: 1/4", "3m"]),
        ),
        (
            &resource::EVENT,
            json!({"metadata": {}, "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "f"}, "type": "Normal", "reason": "R",
                "message": " m\n", "source": {"component": "c", "host": "h"}, "firstTimestamp": "2026-01-01T00:59:00Z",
                "lastTimestamp": "2026-01-01T00:59:55Z", "count": 2}),
            json!(["5s", "Normal", "R", "pod/p", "f", "c, h", "m", "60s", 2, "x"]),
        ),
        (
            &resource::EVENT,
            json!({"metadata": {}, "involvedObject": {"kind": "Node"}, "eventTime": "2026-01-01T00:59:50.000000Z", "reportingComponent": "r"}),
            json!(["10s", "", "", "node", "", "r", "", "10s", 1, "x"]),
        ),
        (
            &resource::PERSISTENT_VOLUME,
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "storageClassName": "s",
                "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "n", "name": "c"}}, "status": {"phase": "Bound"}}),
            json!(["x", "1Gi", "RWO,ROX", "Retain", "Bound", "n/c", "s", "<unset>", "", "3m", "<unset>"]),
        ),
        (
            &resource::PERSISTENT_VOLUME_CLAIM,
            json!({"spec": {"volumeName": "v", "volumeMode": "Filesystem"},
                "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"]}}),
            json!(["x", "Bound", "v", "1Gi", "RWX", "", "<unset>", "3m", "Filesystem"]),
        ),
        (
            &resource::POD_DISRUPTION_BUDGET,
            json!({"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}}),
            json!(["x", "50%", "N/A", 1, "3m"]),
        ),
    ] {
        assert_eq!(cells(resource, value), expected, "{resource:?}");
    }
}
