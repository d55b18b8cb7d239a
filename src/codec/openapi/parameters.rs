//! What operations are told in their paths and queries.

use serde_json::{Value, json};

use super::Dialect;

/// What an operation is told beside its body.
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
    of_path("path", "What is asked for there."),
];
const PRETTY: Parameter = of_query("pretty", "string", "If true, the answer is indented.");
const DRY_RUN: Parameter = of_query("dryRun", "string", "All: check the request in full, but store nothing.");
const FIELD_MANAGER: Parameter = of_query("fieldManager", "string", "Who makes the change, for the record of who owns which field.");
const FIELD_VALIDATION: Parameter = of_query(
    "fieldValidation",
    "string",
    "What to do about unknown and duplicate fields: Ignore them, Warn of them, or refuse them (Strict).",
);
const FORCE: Parameter = of_query("force", "boolean", "With server-side apply: take over fields that others own.");
const CONTINUE: Parameter = of_query("continue", "string", "Where the previous page ended.");
const FIELD_SELECTOR: Parameter = of_query("fieldSelector", "string", "Only objects with these field values.");
const LABEL_SELECTOR: Parameter = of_query("labelSelector", "string", "Only objects with these labels.");
const LIMIT: Parameter = of_query("limit", "integer", "How many objects a page has at most.");
const RESOURCE_VERSION: Parameter = of_query("resourceVersion", "string", "Which version of the list is asked for.");
const VERSION_MATCH: Parameter = of_query("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan.");
const INITIAL_EVENTS: Parameter = of_query("sendInitialEvents", "boolean", "With watch: begin with an event for each object there is.");
const TIMEOUT: Parameter = of_query("timeoutSeconds", "integer", "How long a list or watch may take.");
const GRACE: Parameter = of_query("gracePeriodSeconds", "integer", "How long the object has to end; 0 is at once.");
const UNREADABLE: Parameter = of_query(
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "boolean",
    "Delete the object although it cannot be read. Nothing here cannot.",
);
const ORPHAN: Parameter = of_query("orphanDependents", "boolean", "Old form of propagationPolicy.");
const PROPAGATION: Parameter =
    of_query("propagationPolicy", "string", "What becomes of the objects it owns: Orphan, Background or Foreground.");
const COMMAND: Parameter = of_query("command", "string", "What to run, a parameter a word. No shell reads it.");
const PORTS: Parameter = of_query("ports", "integer", "Which ports are forwarded.");
const PATH: Parameter = of_query("path", "string", "What is asked for there.");
const CONTAINER: Parameter = of_query("container", "string", "Which container is meant, if there are several.");
const STDERR: Parameter = of_query("stderr", "boolean", "Whether to get what it writes to its standard error.");
const STDIN: Parameter = of_query("stdin", "boolean", "Whether to write to its standard input.");
const STDOUT: Parameter = of_query("stdout", "boolean", "Whether to get what it writes to its standard output.");
const TTY: Parameter = of_query("tty", "boolean", "Whether it has a terminal.");

pub(super) const WRITE: &[Parameter] = &[PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
pub(super) const APPLY: &[Parameter] = &[PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
pub(super) const READ: &[Parameter] = &[PRETTY];
pub(super) const DELETE: &[Parameter] = &[PRETTY, DRY_RUN, GRACE, UNREADABLE, ORPHAN, PROPAGATION];
pub(super) const LIST: &[Parameter] = &[
    PRETTY,
    of_query("allowWatchBookmarks", "boolean", "With watch: send events that only tell how far the watch has come."),
    CONTINUE,
    FIELD_SELECTOR,
    LABEL_SELECTOR,
    LIMIT,
    RESOURCE_VERSION,
    VERSION_MATCH,
    INITIAL_EVENTS,
    TIMEOUT,
    of_query("watch", "boolean", "Answer with a stream of the changes from resourceVersion on."),
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
    of_query("follow", "boolean", "Whether to go on with what is written later."),
    of_query("insecureSkipTLSVerifyBackend", "boolean", "Whether the node's certificate does not matter."),
    of_query("limitBytes", "integer", "How much is read at most."),
    of_query("previous", "boolean", "Whether the container is meant that ran before the present one."),
    of_query("sinceSeconds", "integer", "How old the oldest line may be."),
    of_query("stream", "string", "All, Stdout or Stderr."),
    of_query("tailLines", "integer", "With how many lines from the end to begin."),
    of_query("timestamps", "boolean", "Whether each line begins with its time."),
];

/// What a connection is told.
pub(super) fn of_connection(kind: &str) -> &'static [Parameter] {
    match kind {
        "PodExecOptions" => &[COMMAND, CONTAINER, STDERR, STDIN, STDOUT, TTY],
        "PodAttachOptions" => &[CONTAINER, STDERR, STDIN, STDOUT, TTY],
        "PodPortForwardOptions" => &[PORTS],
        _ => &[PATH],
    }
}

/// As documents have it.
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
