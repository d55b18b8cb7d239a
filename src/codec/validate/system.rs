//! Fields that the operating system of a pod's node rules out.

use serde_json::Value;

use super::at::At;
use super::container;
use crate::object::status::Cause;

/// The Linux-only fields of a pod (of its `securityContext`, or of the pod itself) and of a container's `securityContext`.
const OF_PODS: [(bool, &str); 15] = [
    (true, "appArmorProfile"),
    (true, "seLinuxOptions"),
    (false, "hostUsers"),
    (false, "hostPID"),
    (false, "hostIPC"),
    (true, "seccompProfile"),
    (true, "fsGroup"),
    (true, "fsGroupChangePolicy"),
    (true, "sysctls"),
    (false, "shareProcessNamespace"),
    (true, "runAsUser"),
    (true, "runAsGroup"),
    (true, "supplementalGroups"),
    (true, "supplementalGroupsPolicy"),
    (true, "seLinuxChangePolicy"),
];
const OF_CONTAINERS: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// Checks that a pod uses no field that its operating system does not support.
pub(super) fn system(spec: &At<'_>, out: &mut Vec<Cause>) {
    if !spec.has("os") {
        return;
    }
    let (os, context) = (spec.at("os"), spec.at("securityContext"));
    let contexts = || container::all(spec).map(|it| it.at("securityContext"));
    match os.text("name") {
        "" => os.required("name", "cannot be empty", out),
        "linux" => {
            for context in std::iter::once(context).chain(contexts()).filter(|it| it.has("windowsOptions")) {
                context.forbidden("windowsOptions", "windows options cannot be set for a linux pod", out);
            }
        }
        "windows" => {
            let why = "cannot be set for a windows pod";
            for (in_context, key) in OF_PODS {
                let of = if in_context { &context } else { spec };
                // Host namespaces that are not shared, and empty values, count as not set.
                let is_off = matches!((key, of.get(key)), ("hostPID" | "hostIPC", Value::Bool(false)));
                if of.has(key) && !is_off && !(key == "sysctls" && of.list(key).is_empty()) {
                    of.forbidden(key, why, out);
                }
            }
            for context in contexts() {
                OF_CONTAINERS.iter().filter(|it| context.has(it)).for_each(|it| context.forbidden(it, why, out));
            }
        }
        name => out.push(Cause::not_supported(os.path.as_str(), name, &["linux", "windows"])),
    }
}

fn options<'a>(of: &At<'a>) -> At<'a> {
    of.at("securityContext").at("windowsOptions")
}

/// Checks containers that are processes of a Windows host.
pub(super) fn host_processes(spec: &At<'_>, out: &mut Vec<Cause>) {
    const KEY: &str = "hostProcess";
    let pod = options(spec);
    if pod.is_absent() && !container::all(spec).any(|it| !options(&it).is_absent()) {
        return;
    }
    let (mut all, mut of_host) = (0, 0);
    for container in container::all(spec) {
        all += 1;
        let own = options(&container);
        if pod.has(KEY) && own.has(KEY) && pod.get(KEY) != own.get(KEY) {
            let why = format!("pod hostProcess value must be identical if both are specified, was {}", pod.flag(KEY));
            own.invalid(KEY, &why, out);
        }
        of_host += usize::from(if own.has(KEY) { own.flag(KEY) } else { pod.flag(KEY) });
    }
    if of_host == 0 {
        return;
    }
    if of_host != all {
        let why = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        out.push(Cause::invalid(spec.path.as_str(), &"".into(), why));
    }
    if !spec.flag("hostNetwork") {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        out.push(Cause::invalid(spec.path("hostNetwork"), &false.into(), why));
    }
}
