//! The path and query parameters of operations.

use serde_json::{Value, json};

use super::Dialect;

/// A parameter of an operation, besides its body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// `path` or `query`.
    place: &'static str,
    kind: &'static str,
    says: &'static str,
}

const fn of_query(name: &'static str, kind: &'static str, says: &'static str) -> Parameter {
    Parameter { name, place: "query", kind, says }
}

const fn of_path(name: &'static str, says: &'static str) -> Parameter {
    Parameter { name, place: "path", kind: "string", says }
}

pub(super) const OF_PATHS: &[Parameter] = &[
    of_path("name", "The name of the object."),
    of_path("namespace", "The namespace of the object."),
    of_path("path", "Path of the request."),
];
const PRETTY: Parameter = of_query("pretty", "string", "If true, the response is indented.");
const DRY_RUN: Parameter = of_query("dryRun", "string", "All: check the request, but store nothing.");
const FIELD_MANAGER: Parameter =
    of_query("fieldManager", "string", "Name of the client that makes the change, recorded as owner of the changed fields.");
const FIELD_VALIDATION: Parameter =
    of_query("fieldValidation", "string", "Treatment of unknown and duplicate fields: Ignore, Warn, or Strict, which refuses them.");
const FORCE: Parameter = of_query("force", "boolean", "With server-side apply: take over fields of other managers.");
const CONTINUE: Parameter = of_query("continue", "string", "Token of the previous page.");
const FIELD_SELECTOR: Parameter = of_query("fieldSelector", "string", "Only objects with these field values.");
const LABEL_SELECTOR: Parameter = of_query("labelSelector", "string", "Only objects with these labels.");
const LIMIT: Parameter = of_query("limit", "integer", "Maximum number of objects in a page.");
const RESOURCE_VERSION: Parameter = of_query("resourceVersion", "string", "Version of the list or object.");
const VERSION_MATCH: Parameter = of_query("resourceVersionMatch", "string", "Meaning of resourceVersion: Exact or NotOlderThan.");
const INITIAL_EVENTS: Parameter = of_query("sendInitialEvents", "boolean", "With watch: begin with an event for each existing object.");
const TIMEOUT: Parameter = of_query("timeoutSeconds", "integer", "Maximum duration of a list or watch, in seconds.");
const GRACE: Parameter = of_query("gracePeriodSeconds", "integer", "How long the object has to end, in seconds; 0 deletes at once.");
const UNREADABLE: Parameter =
    of_query("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "Delete the object even if it cannot be read.");
const ORPHAN: Parameter = of_query("orphanDependents", "boolean", "Old form of propagationPolicy.");
const PROPAGATION: Parameter = of_query("propagationPolicy", "string", "How dependents are treated: Orphan, Background or Foreground.");
const COMMAND: Parameter = of_query("command", "string", "Command and arguments, one parameter each; no shell is involved.");
const PORTS: Parameter = of_query("ports", "integer", "Ports to forward.");
const PATH: Parameter = of_query("path", "string", "Path of the request.");
const CONTAINER: Parameter = of_query("container", "string", "Name of the container. Required if there are several.");
const STDERR: Parameter = of_query("stderr", "boolean", "Whether to receive standard error.");
const STDIN: Parameter = of_query("stdin", "boolean", "Whether to send standard input.");
const STDOUT: Parameter = of_query("stdout", "boolean", "Whether to receive standard output.");
const TTY: Parameter = of_query("tty", "boolean", "Whether a terminal is allocated.");

pub(super) const WRITE: &[Parameter] = &[PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
pub(super) const APPLY: &[Parameter] = &[PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
pub(super) const READ: &[Parameter] = &[PRETTY];
pub(super) const DELETE: &[Parameter] = &[PRETTY, DRY_RUN, GRACE, UNREADABLE, ORPHAN, PROPAGATION];
pub(super) const LIST: &[Parameter] = &[
    PRETTY,
    of_query("allowWatchBookmarks", "boolean", "With watch: send bookmarks, which report the progress of the watch."),
    CONTINUE,
    FIELD_SELECTOR,
    LABEL_SELECTOR,
    LIMIT,
    RESOURCE_VERSION,
    VERSION_MATCH,
    INITIAL_EVENTS,
    TIMEOUT,
    of_query("watch", "boolean", "Respond with a stream of the changes since resourceVersion."),
];
pub(super) const DELETE_MANY: &[Parameter] = &[
    PRETTY,
    CONTINUE,
    DRY_RUN,
    FIELD_SELECTOR,
    GRACE,
    UNREADABLE,
    LABEL_SELECTOR,
    LIMIT,
    ORPHAN,
    PROPAGATION,
    RESOURCE_VERSION,
    VERSION_MATCH,
    INITIAL_EVENTS,
    TIMEOUT,
];
pub(super) const LOG: &[Parameter] = &[
    PRETTY,
    CONTAINER,
    of_query("follow", "boolean", "Whether to follow the log."),
    of_query("insecureSkipTLSVerifyBackend", "boolean", "Whether to skip verification of the node's certificate."),
    of_query("limitBytes", "integer", "Maximum size of the response, in bytes."),
    of_query("previous", "boolean", "Whether to read the log of the previous container."),
    of_query("sinceSeconds", "integer", "Maximum age of lines, in seconds."),
    of_query("stream", "string", "All, Stdout or Stderr."),
    of_query("tailLines", "integer", "Number of lines from the end of the log."),
    of_query("timestamps", "boolean", "Whether to prefix each line with its time."),
];

/// The parameters of a connection.
pub(super) fn of_connection(kind: &str) -> &'static [Parameter] {
    match kind {
        "PodExecOptions" => &[COMMAND, CONTAINER, STDERR, STDIN, STDOUT, TTY],
        "PodAttachOptions" => &[CONTAINER, STDERR, STDIN, STDOUT, TTY],
        "PodPortForwardOptions" => &[PORTS],
        _ => &[PATH],
    }
}

/// The form in documents.
pub(super) fn parameter(it: &Parameter, dialect: Dialect) -> Value {
    let mut value = json!({"name": it.name, "in": it.place, "description": it.says});
    if it.place == "path" {
        value["required"] = true.into();
    }
    match dialect {
        Dialect::V2 => {
            value["type"] = it.kind.into();
            value["uniqueItems"] = true.into();
        }
        Dialect::V3 => value["schema"] = json!({"type": it.kind, "uniqueItems": true}),
    }
    value
}
