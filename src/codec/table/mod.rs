//! Objects as the tables that `kubectl get` prints: for each resource its columns, and how an object fills them.
//!
//! The tables are written as bytes, row by row, with what a row carries of its object copied from the object's own bytes.

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
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use self::row::Row;
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
    /// The type of its cells. Not every column has the one that its cells are of: clients have been told so for too long.
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

    /// Tells the row's object from others.
    const fn name(name: &'static str, doc: &'static str) -> Self {
        Self { format: "name", ..Self::text(name, doc) }
    }

    /// Shown by `-o wide` only.
    const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }
}

const NAME: Column = Column::name("Name", "Name of the object, unique among those of its kind in its namespace.");
/// Of what is there from the start of a cluster, the moment says more than the age.
const CREATED_AT: Column = Column::date("Created At", "When the object was created.");
const AGE: Column = Column::text("Age", "Time since the object was created.");

/// The table of one resource.
struct Printer {
    resource: ResourceRef,
    columns: &'static [Column],
    /// Appends a cell for each column, or fails before the first.
    cells: fn(&Object, &mut Row<'_>) -> serde_json::Result<()>,
}

/// Fills a row from the object's typed form.
fn typed<T: DeserializeOwned + Any + Send + Sync>(
    object: &Object,
    row: &mut Row<'_>,
    cells: fn(&T, &mut Row<'_>),
) -> serde_json::Result<()> {
    cells(object.typed()?, row);
    Ok(())
}

/// As [`typed`], behind a cell with the object's name.
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

/// What a resource without a table of its own gets.
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

/// A `meta.k8s.io/v1` Table of these objects. `list_metadata` is the JSON of the list's `metadata`; `now` is what ages are counted to.
/// Only the first table of a watch has columns.
pub fn table(
    resource: ResourceRef,
    objects: &[Arc<Object>],
    include: IncludeObject,
    list_metadata: &str,
    with_columns: bool,
    now: Timestamp,
) -> Bytes {
    let (columns, cells) = printer(resource).map_or((PLAIN, plain as _), |it| (it.columns, it.cells));
    let mut out = Vec::with_capacity(1024 + 512 * objects.len());
    out.extend_from_slice(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#);
    out.extend_from_slice(list_metadata.as_bytes());
    out.extend_from_slice(br#","columnDefinitions":"#);
    if with_columns {
        write_columns(&mut out, columns);
    } else {
        out.extend_from_slice(b"null");
    }
    out.extend_from_slice(br#","rows":["#);
    for (at, object) in objects.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let mut row = Row::start(&mut out, object, now);
        if cells(&in_version(object, resource.storage()), &mut row).is_err() {
            row.unreadable(object.name(), columns.len());
        }
        row.finish();
        out.extend_from_slice(br#","object":"#);
        match include {
            IncludeObject::None => out.extend_from_slice(b"null"),
            IncludeObject::Metadata => write_partial(&mut out, object),
            IncludeObject::Object => out.extend_from_slice(object.body()),
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Bytes::from(out)
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

/// The `PartialObjectMetadata` of an object.
pub fn partial_metadata(object: &Object) -> Bytes {
    let mut out = Vec::with_capacity(512);
    write_partial(&mut out, object);
    Bytes::from(out)
}

/// A `PartialObjectMetadataList` of these objects. `list_metadata` is the JSON of the list's `metadata`.
pub fn partial_metadata_list(objects: &[Arc<Object>], list_metadata: &str) -> Bytes {
    let mut out = Vec::with_capacity(128 + 512 * objects.len());
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":"#);
    out.extend_from_slice(list_metadata.as_bytes());
    out.extend_from_slice(br#","items":["#);
    for (at, object) in objects.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_partial(&mut out, object);
    }
    out.extend_from_slice(b"]}");
    Bytes::from(out)
}

fn write_partial(out: &mut Vec<u8>, object: &Object) {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    match serde_json::from_slice::<Whole<'_>>(object.body()) {
        Ok(whole) => out.extend_from_slice(whole.metadata.get().as_bytes()),
        // An object has metadata: it was parsed to make it one.
        Err(_) => out.extend_from_slice(b"{}"),
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests;
