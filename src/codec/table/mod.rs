//! The tables of `kubectl get`: the columns of each resource, and an object's cells.
//!
//! Tables are written as bytes, row by row; the part of an object in its row is copied from the object's own bytes.

mod autoscaler;
mod batch;
mod cluster;
mod config;
mod event;
mod network;
mod node;
mod pod;
mod policy;
mod provision;
mod rbac;
mod row;
mod service;
mod storage;
mod workload;

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use self::row::Row;
use super::metadata::{MetaVersion, write_partial_metadata};
use super::version::in_version;
use crate::object::{Object, ResourceRef};

/// How much of each object a table's rows carry (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// A column; the text columns that only `-o wide` shows have a priority above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    name: &'static str,
    doc: &'static str,
    /// The declared type of its cells. As in Kubernetes, some cells are of another type, for compatibility.
    kind: &'static str,
    format: &'static str,
    priority: u8,
}

impl Column {
    const fn text(name: &'static str, doc: &'static str) -> Self {
        Self { name, doc, kind: "string", format: "", priority: 0 }
    }

    const fn integer(name: &'static str, doc: &'static str) -> Self {
        Self { kind: "integer", ..Self::text(name, doc) }
    }

    const fn boolean(name: &'static str, doc: &'static str) -> Self {
        Self { kind: "boolean", ..Self::text(name, doc) }
    }

    const fn date(name: &'static str, doc: &'static str) -> Self {
        Self { kind: "date", ..Self::text(name, doc) }
    }

    /// The column that identifies the row's object.
    const fn name(name: &'static str, doc: &'static str) -> Self {
        Self { format: "name", ..Self::text(name, doc) }
    }

    /// Shown by `-o wide` only.
    const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }
}

const NAME: Column = Column::name("Name", "Name of the object, unique among those of its kind in its namespace.");
/// For objects that exist from a cluster's start, the time is more useful than the age.
const CREATED_AT: Column = Column::date("Created At", "When the object was created.");
const AGE: Column = Column::text("Age", "Time since the object was created.");

/// The table of one resource.
struct Printer {
    resource: ResourceRef,
    columns: &'static [Column],
    cells: Cells,
}

/// Appends a cell for each column, or fails before the first.
type Cells = fn(&Object, &mut Row<'_>) -> serde_json::Result<()>;

/// Fills a row from the object's typed form.
fn typed<T: DeserializeOwned + Any + Send + Sync>(
    object: &Object,
    row: &mut Row<'_>,
    cells: fn(&T, &mut Row<'_>),
) -> serde_json::Result<()> {
    cells(object.typed()?, row);
    Ok(())
}

/// As [`typed`], with the object's name as the first cell.
fn named<T: DeserializeOwned + Any + Send + Sync>(
    object: &Object,
    row: &mut Row<'_>,
    cells: fn(&T, &mut Row<'_>),
) -> serde_json::Result<()> {
    let it = object.typed()?;
    row.text(object.name());
    cells(it, row);
    Ok(())
}

/// The columns of resources without their own table.
const PLAIN: &[Column] = &[NAME, CREATED_AT];

fn plain(object: &Object, row: &mut Row<'_>) -> serde_json::Result<()> {
    row.text(object.name());
    row.moment();
    Ok(())
}

fn printer(resource: ResourceRef) -> Option<&'static Printer> {
    [
        pod::PRINTERS,
        service::PRINTERS,
        workload::PRINTERS,
        batch::PRINTERS,
        node::PRINTERS,
        config::PRINTERS,
        event::PRINTERS,
        storage::PRINTERS,
        policy::PRINTERS,
        autoscaler::PRINTERS,
        network::PRINTERS,
        rbac::PRINTERS,
        provision::PRINTERS,
        cluster::PRINTERS,
    ]
    .into_iter()
    .flatten()
    .find(|it| it.resource == resource.storage())
}

/// Writes tables of one resource: the head, its rows with a comma between them, the end.
#[derive(Debug)]
pub struct TableWriter {
    resource: ResourceRef,
    printer: (&'static [Column], Cells),
    version: MetaVersion,
    include: IncludeObject,
    now: Timestamp,
}

impl TableWriter {
    /// The end of a table.
    pub const END: &[u8] = b"]}";

    /// Ages are computed at `now`.
    pub fn new(resource: ResourceRef, version: MetaVersion, include: IncludeObject, now: Timestamp) -> Self {
        let printer = printer(resource).map_or((PLAIN, plain as Cells), |it| (it.columns, it.cells));
        Self { resource, printer, version, include, now }
    }

    /// `metadata` is the JSON of the list's metadata. Only the first table of a watch has columns.
    pub fn head(&self, metadata: &str, with_columns: bool, out: &mut Vec<u8>) {
        let head = format!(r#"{{"kind":"Table","apiVersion":"{}","metadata":{metadata},"columnDefinitions":"#, self.version.api_version());
        out.extend_from_slice(head.as_bytes());
        if with_columns {
            write_columns(out, self.printer.0);
        } else {
            out.extend_from_slice(b"null");
        }
        out.extend_from_slice(br#","rows":["#);
    }

    pub fn row(&self, object: &Arc<Object>, out: &mut Vec<u8>) {
        let (columns, cells) = self.printer;
        let mut row = Row::start(out, object, self.now);
        if cells(&in_version(object, self.resource.storage()), &mut row).is_err() {
            row.unreadable(object.name(), columns.len());
        }
        row.finish();
        out.extend_from_slice(br#","object":"#);
        match self.include {
            IncludeObject::None => out.extend_from_slice(b"null"),
            IncludeObject::Metadata => write_partial_metadata(object, self.version, out),
            IncludeObject::Object => out.extend_from_slice(object.body()),
        }
        out.push(b'}');
    }

    /// A whole table.
    pub fn table(&self, objects: &[Arc<Object>], metadata: &str, with_columns: bool) -> Bytes {
        let mut out = Vec::with_capacity(1024 + 512 * objects.len());
        self.head(metadata, with_columns, &mut out);
        for (at, object) in objects.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.row(object, &mut out);
        }
        out.extend_from_slice(Self::END);
        out.into()
    }
}

fn write_columns(out: &mut Vec<u8>, columns: &[Column]) {
    out.push(b'[');
    for (at, column) in columns.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let definition = serde_json::json!({
            "name": column.name, "type": column.kind, "format": column.format, "description": column.doc, "priority": column.priority,
        });
        out.extend_from_slice(definition.to_string().as_bytes());
    }
    out.push(b']');
}

#[cfg(test)]
mod tests;
