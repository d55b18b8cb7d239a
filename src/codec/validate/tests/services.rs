//! Services and their endpoints.

use serde_json::{Value, json};

use super::{check, complaints};
use crate::object::resource;

#[test]
fn services_and_endpoints() {
    let service = |spec: Value| json!({"metadata": {"name": "x"}, "spec": spec});
    let one = json!([{"port": 80}]);
    check(
        &resource::SERVICE,
        &[
            (service(json!({"ports": one})), &[]),
            (service(json!({})), &["spec.ports: Required value"]),
            (service(json!({"clusterIP": "None"})), &[]),
            (service(json!({"type": "ExternalName", "externalName": "a.b."})), &[]),
            (service(json!({"type": "ExternalName"})), &["spec.externalName: Required value"]),
            (
                service(json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "None",
                    "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})),
                &[
                    "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
                    "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
                    "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
                ],
            ),
            (
                service(json!({"clusterIP": "x", "ports": one})),
                &["spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"],
            ),
            (service(json!({"ports": [{"port": 1, "name": "a"}, {"port": 2}]})), &["spec.ports[1].name: Required value"]),
            (
                service(json!({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]})),
                &["spec.ports[1].name: Duplicate value: \"a\""],
            ),
            (
                service(json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]})),
                &["spec.ports[1]: Duplicate value: core.ServicePort{Name:\"\", Protocol:\"TCP\", AppProtocol:(*string)(nil), Port:1, \
                  TargetPort:intstr.IntOrString{Type:0, IntVal:0, StrVal:\"\"}, NodePort:0}"],
            ),
            (
                service(json!({"ports": [{"port": 0, "targetPort": 1}]})),
                &["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
            (
                service(json!({"ports": [{"port": 1, "protocol": "X"}]})),
                &["spec.ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\""],
            ),
            (
                service(json!({"ports": [{"port": 1, "targetPort": "a--b"}]})),
                &["spec.ports[0].targetPort: Invalid value: \"a--b\": must not contain consecutive hyphens"],
            ),
            (
                service(json!({"ports": [{"port": 1, "nodePort": 30000}]})),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                service(json!({"ports": one, "sessionAffinity": "x"})),
                &["spec.sessionAffinity: Unsupported value: \"x\": supported values: \"ClientIP\", \"None\""],
            ),
            (
                service(json!({"ports": one, "type": "x"})),
                &["spec.type: Unsupported value: \"x\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\""],
            ),
        ],
    );
    let at = |ip: &str| service(json!({"ports": one, "clusterIP": ip, "clusterIPs": [ip]}));
    assert_eq!(
        complaints(&resource::SERVICE, &at("10.0.0.2"), Some(&at("10.0.0.1"))),
        ["spec.clusterIPs[0]: Invalid value: []string{\"10.0.0.2\"}: may not change once set"]
    );
    assert_eq!(complaints(&resource::SERVICE, &at("10.0.0.1"), Some(&at("10.0.0.1"))), Vec::<String>::new());
    check(
        &resource::ENDPOINTS,
        &[
            (json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}]}]}), &[]),
            (
                json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}]}]}),
                &["subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"],
            ),
            (json!({"subsets": [{}]}), &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]),
            (
                json!({"subsets": [{"addresses": [{"ip": "x"}]}]}),
                &[
                    "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                    "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address",
                ],
            ),
        ],
    );
    check(
        &resource::ENDPOINT_SLICE,
        &[
            (json!({"addressType": "IPv4", "endpoints": [{"addresses": ["1.1.1.1"]}], "ports": [{"port": 1}]}), &[]),
            (
                json!({"addressType": "X", "endpoints": []}),
                &["addressType: Unsupported value: \"X\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""],
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{}]}),
                &["endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
        ],
    );
}
