//! Rights and ids of pods and containers.

use std::collections::HashSet;

use serde_json::Value;

use super::at::At;
use super::names;
use crate::object::status::Cause;

/// The name in messages.
const APP_ARMOR: &str = "AppArmor";
/// The longest name of a kernel parameter.
const SYSCTL: usize = 253;

/// Checks the `securityContext` of a pod.
pub(super) fn pod(context: &At<'_>, out: &mut Vec<Cause>) {
    ids(context, &["fsGroup", "runAsUser", "runAsGroup"], out);
    for (at, group) in context.list("supplementalGroups").iter().enumerate() {
        if !group.as_i64().is_some_and(|it| (0..=i64::from(i32::MAX)).contains(&it)) {
            let path = format!("{}[{at}]", context.path("supplementalGroups"));
            out.push(Cause::invalid(path, group, &names::between(0, i32::MAX.into())));
        }
    }
    let mut seen = HashSet::new();
    for sysctl in context.items("sysctls") {
        match sysctl.text("name") {
            "" => sysctl.required("name", "", out),
            name => {
                if !is_sysctl(name) {
                    let part = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
                    let why = format!(r"must have at most {SYSCTL} characters and match regex ^({part}[\./])*{part}$");
                    sysctl.invalid("name", &why, out);
                }
                if !seen.insert(name) {
                    sysctl.duplicate("name", out);
                }
            }
        }
    }
    context.one_of("fsGroupChangePolicy", &["Always", "OnRootMismatch"], out);
    profiles(context, out);
    windows(&context.at("windowsOptions"), out);
    context.one_of("supplementalGroupsPolicy", &["Merge", "Strict"], out);
    context.one_of("seLinuxChangePolicy", &["Recursive"], out);
}

/// Checks a pod's use of host namespaces against its own settings.
pub(super) fn host(spec: &At<'_>, out: &mut Vec<Cause>) {
    let context = spec.at("securityContext");
    if spec.get("hostUsers") == &Value::Bool(false) {
        // Kubernetes writes two of them so.
        for (key, called) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            if spec.flag(key) {
                spec.forbidden(called, "when `pod.Spec.HostUsers` is false", out);
            }
        }
    }
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        out.push(Cause::invalid(context.path("shareProcessNamespace"), &true.into(), why));
    }
    for sysctl in context.items("sysctls") {
        let name = sysctl.text("name").replace('/', ".");
        let of_ipc = name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|it| name.starts_with(it));
        for (shared, of_it) in [("hostNetwork", name.starts_with("net.")), ("hostIPC", of_ipc)] {
            if of_it && spec.flag(shared) {
                sysctl.invalid("name", &format!("may not be specified when '{shared}' is true"), out);
            }
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let inner = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let part = |part: &str| {
        part.bytes().all(|it| inner(it) || b"-_".contains(&it))
            && [part.bytes().next(), part.bytes().last()].iter().all(|it| it.is_some_and(inner))
    };
    name.len() <= SYSCTL && name.split(['.', '/']).all(part)
}

fn profiles(context: &At<'_>, out: &mut Vec<Cause>) {
    for (key, name) in [("seccompProfile", "seccomp"), ("appArmorProfile", APP_ARMOR)] {
        if context.has(key) {
            profile(&context.at(key), key, name, out);
        }
    }
}

fn profile(profile: &At<'_>, key: &str, name: &str, out: &mut Vec<Cause>) {
    match profile.text("type") {
        "" => profile.required("type", &format!("type is required when {key} is set"), out),
        _ => profile.one_of("type", &["Localhost", "RuntimeDefault", "Unconfined"], out),
    }
    match (profile.text("type"), profile.has("localhostProfile")) {
        ("Localhost", true) if name == APP_ARMOR => loaded(profile, out),
        ("Localhost", false) => profile.required("localhostProfile", &format!("must be set when {name} type is Localhost"), out),
        ("Localhost", true) => profile.may("localhostProfile", names::local_path, out),
        (kind, true) if name == APP_ARMOR && !matches!(kind, "RuntimeDefault" | "Unconfined") => {}
        (_, true) => profile.invalid("localhostProfile", &format!("can only be set when {name} type is Localhost"), out),
        (_, false) => {}
    }
}

/// Checks the name of a profile that the node has.
fn loaded(profile: &At<'_>, out: &mut Vec<Cause>) {
    const LONGEST: usize = 4095;
    let name = profile.text("localhostProfile");
    if name.trim() != name {
        profile.invalid("localhostProfile", "must not be padded with whitespace", out);
    } else if name.is_empty() {
        profile.required("localhostProfile", &format!("must be set when {APP_ARMOR} type is Localhost"), out);
    }
    if name.len() > LONGEST {
        out.push(Cause::too_long(profile.path("localhostProfile"), LONGEST));
    }
}

/// Checks the `securityContext` of a container.
pub(super) fn container(context: &At<'_>, out: &mut Vec<Cause>) {
    ids(context, &["runAsUser", "runAsGroup"], out);
    context.one_of("procMount", &["Default", "Unmasked"], out);
    profiles(context, out);
    let capabilities = context.at("capabilities");
    let admin = capabilities.list("add").iter().any(|it| matches!(it.as_str(), Some("CAP_SYS_ADMIN" | "SYS_ADMIN")));
    if context.get("allowPrivilegeEscalation") == &Value::Bool(false) {
        if context.flag("privileged") {
            out.push(Cause::invalid(
                context.path.as_str(),
                context.value,
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        if admin {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            out.push(Cause::invalid(context.path.as_str(), context.value, why));
        }
    }
    windows(&context.at("windowsOptions"), out);
}

/// Checks the options for Windows of a pod or a container.
fn windows(options: &At<'_>, out: &mut Vec<Cause>) {
    const SPEC: &str = "gmsaCredentialSpec";
    /// The longest specification, in KiB.
    const LONGEST: usize = 64;
    options.may("gmsaCredentialSpecName", names::subdomain, out);
    match options.get(SPEC).as_str() {
        Some("") => options.invalid(SPEC, "gmsaCredentialSpec cannot be an empty string", out),
        Some(spec) if spec.len() > LONGEST * 1024 => {
            options.invalid(SPEC, &format!("gmsaCredentialSpec size must be under {LONGEST} KiB"), out);
        }
        _ => {}
    }
    options.may("runAsUserName", windows_user, out);
}

/// A user of Windows, with or without a domain before it.
fn windows_user(name: &str) -> names::Faults {
    const DOMAIN: usize = 256;
    const USER: usize = 104;
    let fault = |what: &str| format!("runAsUserName{what}");
    if name.is_empty() {
        return vec![fault(" cannot be an empty string")];
    }
    if name.contains(|it: char| it.is_ascii_control()) {
        return vec![fault(" cannot contain control characters")];
    }
    let (domain, user) = match name.split('\\').collect::<Vec<_>>()[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec![fault(" cannot contain more than one backslash")],
    };
    let mut faults = names::Faults::new();
    if domain.is_some_and(|it| it.len() >= DOMAIN) {
        faults.push(fault(&format!("'s Domain length must be under {DOMAIN} characters")));
    }
    if domain.is_some_and(|it| !is_net_bios(it) && !is_windows_domain(it)) {
        faults.push(fault("'s Domain doesn't match the NetBios nor the DNS format"));
    }
    match user.len() {
        0 => faults.push(fault("'s User cannot be empty")),
        length if length > USER => faults.push(fault(&format!("'s User length must not be longer than {USER} characters"))),
        _ => {}
    }
    if !user.is_empty() && user.bytes().all(|it| b". ".contains(&it)) {
        faults.push(fault("'s User cannot contain only periods or spaces"));
    }
    if user.contains(|it: char| r#""/\:;|=,+*?<>@[]"#.contains(it)) {
        faults.push(fault(r#"'s User cannot contain the following characters: "/\:;|=,+*?<>@[]"#));
    }
    faults
}

fn is_net_bios(name: &str) -> bool {
    (1..=15).contains(&name.chars().count()) && !name.starts_with('.') && !name.contains(|it: char| r#"\/:*?"<>|"#.contains(it))
}

fn is_windows_domain(name: &str) -> bool {
    name.split('.').all(|label| {
        let ends = [label.bytes().next(), label.bytes().last()];
        label.len() <= 63
            && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
            && ends.iter().all(|it| it.is_some_and(|it| it.is_ascii_alphanumeric()))
    })
}

/// Checks numbers of users and groups.
fn ids(context: &At<'_>, keys: &[&str], out: &mut Vec<Cause>) {
    for key in keys {
        if context.number(key).is_some_and(|it| !(0..=i64::from(i32::MAX)).contains(&it)) {
            context.invalid(key, &names::between(0, i32::MAX.into()), out);
        }
    }
}
