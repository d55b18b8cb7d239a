//! One claim: an address is an IPAddress object, a node port a key of its own in the store. Both are written only if absent.

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::Server;
use super::super::error::{Answer, store_status};
use super::super::registry::json;
use super::super::write_options::WriteOptions;
use crate::codec;
use crate::object::resource::IP_ADDRESS;
use crate::object::{Object, ObjectKey, Revision, Status, service_range};
use crate::store::{Entry, Expect, Outcome};

/// The field manager of an IPAddress.
const MANAGER: &str = "kube-apiserver";

/// The service that holds a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl Owner {
    pub(super) fn of(service: &Value) -> Self {
        let text = |pointer| json::text(service, pointer).to_owned();
        Self { namespace: text("/metadata/namespace"), name: text("/metadata/name"), uid: text("/metadata/uid") }
    }
}

/// A resource that one service can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Claim {
    Address(IpAddr),
    Port(u16),
}

impl Claim {
    /// The object that an address is.
    pub(super) fn address(address: IpAddr) -> ObjectKey {
        ObjectKey::new(&IP_ADDRESS, "", &address.to_string())
    }

    fn path(self, server: &Server) -> String {
        match self {
            Self::Address(address) => Self::address(address).to_path(&server.config.prefix),
            Self::Port(port) => format!("{}{port}", ports_prefix(server)),
        }
    }

    /// Claims it for a service; `None` if it is taken.
    pub(super) async fn take(self, server: &Server, owner: &Owner) -> Answer<Option<Revision>> {
        match self {
            Self::Address(address) => {
                let value = describe(address, owner);
                Ok(write(server, address, &value, Expect::Absent).await?.ok().map(|it| it.revision()))
            }
            Self::Port(_) => {
                let value = Bytes::from(serde_json::to_vec(owner).unwrap_or_default());
                match server.store.put(&self.path(server), value, Expect::Absent, None).await.map_err(store_status)? {
                    Outcome::Done(revision) => Ok(Some(revision)),
                    Outcome::Conflict(entry) => Ok(entry.filter(|it| self.is_of(it, owner)).map(|it| it.revision)),
                }
            }
        }
    }

    /// Whether the cache shows that it is taken.
    pub(super) fn is_seen(self, server: &Server) -> bool {
        matches!(self, Self::Address(address) if server.cached(&Self::address(address)).is_some())
    }

    /// Whether it is free in the store.
    pub(super) async fn is_free(self, server: &Server) -> Answer<bool> {
        Ok(server.store.get(&self.path(server)).await.map_err(store_status)?.is_none())
    }

    /// Frees the claim if `owner` made it no later than this revision: a later service of the same name keeps its own.
    pub(super) async fn free(self, server: &Server, owner: &Owner, until: Revision) {
        let freed = async {
            let entry = server.store.get(&self.path(server)).await.map_err(store_status)?;
            match entry.filter(|it| it.revision <= until && self.is_of(it, owner)) {
                Some(entry) => self.drop_at(server, entry.revision).await,
                None => Ok(()),
            }
        };
        if let Err(status) = freed.await {
            tracing::warn!("freeing {self:?} failed, the repair loop will free it: {status}");
        }
    }

    /// Deletes the claim if it is still at this revision.
    pub(super) async fn drop_at(self, server: &Server, revision: Revision) -> Answer<()> {
        match self {
            Self::Address(address) => server.remove(&Self::address(address), revision).await.map(drop),
            Self::Port(_) => server.store.delete(&self.path(server), revision).await.map(drop).map_err(store_status),
        }
    }

    fn is_of(self, entry: &Entry, owner: &Owner) -> bool {
        match self {
            Self::Address(_) => Object::from_stored(&IP_ADDRESS, &entry.value, entry.revision)
                .is_ok_and(|it| service_range::is_managed(&it) && service_range::service(&it) == Some((&owner.namespace, &owner.name))),
            Self::Port(_) => serde_json::from_slice::<Owner>(&entry.value).is_ok_and(|it| it == *owner),
        }
    }
}

/// Writes the IPAddress of a service. The inner error is the entry that the store has instead.
pub(super) async fn write(
    server: &Server,
    address: IpAddr,
    value: &Value,
    expect: Expect,
) -> Answer<Result<std::sync::Arc<Object>, Option<Entry>>> {
    let (now, options) = (json::now(), WriteOptions { manager: MANAGER.to_owned(), ..WriteOptions::default() });
    let managers = codec::apply::track((None, None), None, value, &options.writer(&IP_ADDRESS, "", &now));
    server.put(&Claim::address(address), value, managers.as_ref(), expect).await
}

/// The IPAddress of a service.
pub(super) fn describe(address: IpAddr, owner: &Owner) -> Value {
    json!({
        "kind": "IPAddress",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": address.to_string(),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": json::now(),
            "labels": {service_range::FAMILY: service_range::family(address), service_range::MANAGED_BY: service_range::ALLOCATOR},
        },
        "spec": {"parentRef": {"resource": "services", "namespace": owner.namespace, "name": owner.name}},
    })
}

/// Where the claims of node ports are.
pub(super) fn ports_prefix(server: &Server) -> String {
    format!("{}/ranges/servicenodeports/", server.config.prefix)
}

/// Where addresses were claimed before they were objects.
pub(super) fn old_addresses_prefix(server: &Server) -> String {
    format!("{}/ranges/serviceips/", server.config.prefix)
}

/// Everything below a prefix of the store.
pub(super) async fn scan(server: &Server, prefix: &str) -> Answer<Vec<Entry>> {
    let (mut all, mut start) = (Vec::new(), prefix.to_owned());
    loop {
        let page = server.store.range(prefix, &start, 2000, 0).await.map_err(store_status)?;
        if let Some(last) = page.entries.last() {
            start = format!("{}\0", last.key);
        }
        all.extend(page.entries);
        if !page.more {
            return Ok(all);
        }
    }
}

/// Every claim of a node port, with its owner and its revision.
pub(super) async fn ports(server: &Server) -> Answer<Vec<(Claim, Owner, Revision)>> {
    let prefix = ports_prefix(server);
    let entries = scan(server, &prefix).await?.into_iter();
    let read = |it: Entry| {
        let port = it.key.strip_prefix(&prefix)?.parse().ok()?;
        Some((Claim::Port(port), serde_json::from_slice(&it.value).unwrap_or_default(), it.revision))
    };
    Ok(entries.filter_map(read).collect())
}

impl From<Box<Status>> for super::Refusal {
    fn from(status: Box<Status>) -> Self {
        Self::Store(status)
    }
}
