//! Reconciles claims with services. The services are the truth: values in a service are claimed for it, others are freed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::super::Server;
use super::super::error::{Answer, store_status};
use super::super::freshness::Freshness;
use super::super::local_transport::LocalTransport;
use super::claim::{self, Claim, Owner};
use super::held;
use crate::cache::{Event, Query};
use crate::client::Client;
use crate::client::events::{self, EventRecorder, EventType};
use crate::codec;
use crate::object::resource::{IP_ADDRESS, SERVICE, SERVICE_CIDR};
use crate::object::{Object, Revision, Status, service_range};
use crate::store::Expect;
use crate::util::json;

/// Interval of repairs. The second repair that sees a leaked claim frees it.
const REPAIR_EVERY: Duration = Duration::from_secs(180);
const REPORTER: &str = "ipallocator-repair-controller";
const ALLOCATION: &str = "ClusterIPNotAllocated";

/// Before serving: claims the values of services from versions with other claims, and deletes those claims.
///
/// # Errors
/// If the store cannot be read or written.
pub(crate) async fn adopt(server: &Server) -> Answer<()> {
    let mut adopted = 0;
    for object in server.cache.list(&SERVICE, &Query::default()).objects {
        let Some((owner, claims)) = read(&object) else { continue };
        for claim in claims {
            if let Claim::Address(address) = claim
                && server.cached(&Claim::address(address)).is_none()
            {
                adopted += usize::from(claim.take(server, &owner).await?.is_some());
            }
        }
    }
    if adopted > 0 {
        tracing::info!("created IPAddress objects for {adopted} service addresses");
    }
    for entry in claim::scan(server, &claim::old_addresses_prefix(server)).await? {
        server.store.delete(&entry.key, entry.revision).await.map_err(store_status)?;
    }
    Ok(())
}

/// Repairs periodically, and at once if a value is deleted that a service still has.
pub(crate) async fn repair(server: Arc<Server>) -> anyhow::Result<()> {
    let shutdown = server.tasks.shutdown();
    let (events, writer) = events::recorder(Client::new(Arc::new(LocalTransport::new(server.clone()))).named(REPORTER), REPORTER, "");
    server.tasks.spawn("events of the repair", writer.run(shutdown.clone()));
    let mut repair = Repair { server, events, suspects: HashMap::new() };
    let mut due = Instant::now();
    let watch = |it: &Repair| it.server.cache.watch(&IP_ADDRESS, Query::default(), it.server.cache.revision(&IP_ADDRESS)).ok();
    let mut addresses = watch(&repair);
    loop {
        let change = async {
            match &mut addresses {
                Some(addresses) => addresses.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep_until(due) => {
                if let Err(status) = repair.once().await {
                    tracing::warn!("repairing service addresses: {status}");
                }
                due = Instant::now() + REPAIR_EVERY;
            }
            change = change => match change {
                Ok(Event::Deleted(object)) => {
                    if let Err(status) = repair.reclaim(&object).await {
                        tracing::warn!("repairing {}: {status}", object.name());
                    }
                }
                Ok(_) => {}
                Err(_) => (addresses, due) = (watch(&repair), Instant::now()),
            }
        }
    }
}

/// A service, and its values.
fn read(object: &Object) -> Option<(Owner, Vec<Claim>)> {
    let service: Value = serde_json::from_slice(object.body()).ok()?;
    Some((Owner::of(&service), held(&service)))
}

struct Repair {
    server: Arc<Server>,
    events: EventRecorder,
    /// Claims that no service had when they were last looked at: one may have been about to be written.
    suspects: HashMap<Claim, Revision>,
}

impl Repair {
    /// Looks at every service and every claim.
    async fn once(&mut self) -> Answer<()> {
        let server = self.server.clone();
        let mut ports: HashMap<Claim, (Owner, Revision)> =
            claim::ports(&server).await?.into_iter().map(|(claim, owner, revision)| (claim, (owner, revision))).collect();
        for resource in [&IP_ADDRESS, &SERVICE_CIDR, &SERVICE] {
            server.freshen(resource, Freshness::Newest).await?;
        }
        // Claims are read before services, so that a claim made in between is not taken for a leak.
        let mut addresses: HashMap<Claim, Arc<Object>> = server
            .cache
            .list(&IP_ADDRESS, &Query::default())
            .objects
            .into_iter()
            .filter_map(|it| Some((Claim::Address(it.name().parse().ok()?), it)))
            .collect();
        for object in server.cache.list(&SERVICE, &Query::default()).objects {
            let Some((owner, claims)) = read(&object) else { continue };
            for claim in claims {
                match claim {
                    Claim::Address(address) => {
                        if self.check_address(&object, &owner, address, addresses.get(&claim)).await? {
                            addresses.remove(&claim);
                        }
                    }
                    Claim::Port(port) => match ports.get(&claim) {
                        Some((holder, _)) if *holder == owner => drop(ports.remove(&claim)),
                        Some(_) => tracing::error!("node port {port} of service {}/{} is another service's", owner.namespace, owner.name),
                        None => drop(claim.take(&server, &owner).await?),
                    },
                }
            }
        }
        addresses.retain(|_, it| service_range::is_managed(it));
        let left = addresses.iter().map(|(claim, it)| (*claim, it.revision())).chain(ports.iter().map(|(claim, it)| (*claim, it.1)));
        let suspects = std::mem::take(&mut self.suspects);
        for (claim, revision) in left {
            if suspects.get(&claim) != Some(&revision) {
                self.suspects.insert(claim, revision);
                continue;
            }
            tracing::info!("freeing {claim:?}: no service uses it");
            claim.drop_at(&server, revision).await?;
            if let Some(address) = addresses.get(&claim) {
                self.tell_leak(address);
            }
        }
        Ok(())
    }

    /// Claims an address for its service if it is not, or not rightly. False if the claim there is is another service's.
    async fn check_address(&self, service: &Arc<Object>, owner: &Owner, address: IpAddr, claim: Option<&Arc<Object>>) -> Answer<bool> {
        let (family, server) = (service_range::family(address), &self.server);
        let tell = |reason: &str, message: String| self.events.event(service, EventType::Warning, reason, message);
        let ranges = server.cache.list(&SERVICE_CIDR, &Query::default()).objects;
        if !ranges.iter().any(|it| service_range::has_host(it, address)) {
            let why = "is not within any configured Service CIDR; please recreate service";
            tell("ClusterIPOutOfRange", format!("Cluster IP [{family}]: {address} {why}"));
        }
        let Some(claim) = claim else {
            if Claim::Address(address).take(server, owner).await?.is_some() {
                tell(ALLOCATION, format!("Cluster IP [{family}]: {address} is not allocated; repairing"));
            }
            return Ok(true);
        };
        let holder = service_range::service(claim);
        if holder == Some((&owner.namespace, &owner.name)) {
            if !is_labelled(claim, address) {
                self.rewrite(claim, owner, address).await?;
            }
            return Ok(true);
        }
        let held_there = holder.and_then(|(namespace, name)| read(&*server.cache.get(&SERVICE, namespace, name)?));
        if held_there.is_some_and(|(_, claims)| claims.contains(&Claim::Address(address))) {
            tracing::error!("{address} of service {}/{} is another service's", owner.namespace, owner.name);
            let message = format!("Cluster IP [{family}]:{address} was assigned to multiple services; please recreate service");
            tell("ClusterIPAlreadyAllocated", message);
            return Ok(false);
        }
        if self.rewrite(claim, owner, address).await? {
            let whose = format!("the ClusterIP [{family}]: {address} for Service {}/{}", owner.namespace, owner.name);
            tell(ALLOCATION, format!("{whose} has a wrong reference; repairing"));
        }
        Ok(true)
    }

    /// Replaces a claim by that of the service, unless it has changed meanwhile.
    async fn rewrite(&self, claim: &Object, owner: &Owner, address: IpAddr) -> Answer<bool> {
        let (mut value, _) = codec::apply::stored(claim.body()).map_err(|error| Box::new(Status::internal(error)))?;
        let wanted = claim::describe(address, owner);
        let labels = json::entry_map(json::metadata(&mut value), "labels");
        for (key, label) in wanted["metadata"]["labels"].as_object().into_iter().flatten() {
            labels.insert(key.clone(), label.clone());
        }
        value["spec"] = wanted["spec"].clone();
        Ok(claim::write(&self.server, address, &value, Expect::At(claim.revision())).await?.is_ok())
    }

    fn tell_leak(&self, address: &Object) {
        let ip = address.name();
        let (reason, message) = match service_range::service(address) {
            None => {
                let parent = service_range::parent(address).map(|it| format!("{}/{}", it.resource, it.name)).unwrap_or_default();
                let what = format!("IPAddress {ip} appears to have been modified, not referencing a Service {parent}");
                ("IPAddressNotAllocated", format!("{what}: cleaning up"))
            }
            Some((namespace, name)) if self.server.cache.get(&SERVICE, namespace, name).is_none() => {
                ("IPAddressNotAllocated", format!("IPAddress: {ip} for Service {namespace}/{name} appears to have leaked: cleaning up"))
            }
            Some((namespace, name)) => {
                ("IPAddressWrongReference", format!("IPAddress: {ip} for Service {namespace}/{name} has a wrong reference; cleaning up"))
            }
        };
        self.events.event(address, EventType::Warning, reason, message);
    }

    /// Claims a deleted value again if its service still has it.
    async fn reclaim(&self, deleted: &Object) -> Answer<()> {
        let Some((namespace, name)) = service_range::service(deleted) else { return Ok(()) };
        // If it was deleted because the service was deleted or changed, the cache must see that first.
        self.server.freshen(&SERVICE, Freshness::NotOlderThan(deleted.revision())).await?;
        let Some(service) = self.server.cache.get(&SERVICE, namespace, name) else { return Ok(()) };
        let (Some((owner, claims)), Ok(address)) = (read(&service), deleted.name().parse()) else { return Ok(()) };
        if claims.contains(&Claim::Address(address)) {
            self.check_address(&service, &owner, address, self.server.cached(&Claim::address(address)).as_ref()).await?;
        }
        Ok(())
    }
}

/// Whether an IPAddress has the labels that the API server sets.
fn is_labelled(claim: &Object, address: IpAddr) -> bool {
    service_range::is_managed(claim) && claim.meta().label(service_range::FAMILY) == Some(service_range::family(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::tests::{Fixture, start};

    fn repair_of(it: &Fixture) -> Repair {
        let server = it.server.server.clone();
        let client = Client::new(Arc::new(LocalTransport::new(server.clone())));
        Repair { server, events: events::recorder(client, REPORTER, "").0, suspects: HashMap::new() }
    }

    fn owner(name: &str) -> Owner {
        Owner { namespace: "default".to_owned(), name: name.to_owned(), uid: "u".to_owned() }
    }

    #[tokio::test]
    async fn what_no_service_has_is_freed_at_second_sight() {
        let it = start().await;
        let mut repair = repair_of(&it);
        let leaked = [Claim::Address("10.10.10.99".parse().unwrap()), Claim::Port(30999)];
        for claim in leaked {
            claim.take(&repair.server, &owner("gone")).await.unwrap().unwrap();
        }
        for free in [false, true] {
            repair.once().await.unwrap();
            for claim in leaked {
                assert_eq!(claim.is_free(&repair.server).await.unwrap(), free, "{claim:?}");
            }
        }
        it.stop().await;
    }

    #[tokio::test]
    async fn what_a_service_has_is_claimed_for_it() {
        let it = start().await;
        let mut repair = repair_of(&it);
        let spec = serde_json::json!({"type": "NodePort", "clusterIP": "10.10.10.50", "ports": [{"port": 80, "nodePort": 30050}]});
        let service = serde_json::json!({"metadata": {"name": "web"}, "spec": spec});
        it.create("/api/v1/namespaces/default/services", service).await.ok();
        let address: IpAddr = "10.10.10.50".parse().unwrap();
        // A port without a service, and an address that names another service and lacks its labels.
        Claim::Port(30050).drop_at(&repair.server, claim::ports(&repair.server).await.unwrap()[0].2).await.unwrap();
        let there = repair.server.cached(&Claim::address(address)).unwrap();
        let mut wrong = claim::describe(address, &owner("other"));
        wrong["metadata"]["labels"] = Value::Null;
        claim::write(&repair.server, address, &wrong, Expect::At(there.revision())).await.unwrap().unwrap();
        repair.once().await.unwrap();
        let there = repair.server.cached(&Claim::address(address)).unwrap();
        assert_eq!(service_range::service(&there), Some(("default", "web")));
        assert!(is_labelled(&there, address));
        assert!(!Claim::Port(30050).is_free(&repair.server).await.unwrap());
        it.stop().await;
    }

    #[tokio::test]
    async fn a_claim_of_a_later_service_of_that_name_stays() {
        let it = start().await;
        let server = it.server.server.clone();
        let claim = Claim::Address("10.10.10.50".parse().unwrap());
        let revision = claim.take(&server, &owner("web")).await.unwrap().unwrap();
        claim.free(&server, &owner("web"), revision - 1).await;
        assert!(!claim.is_free(&server).await.unwrap());
        claim.free(&server, &owner("other"), revision).await;
        assert!(!claim.is_free(&server).await.unwrap());
        claim.free(&server, &owner("web"), revision).await;
        assert!(claim.is_free(&server).await.unwrap());
        it.stop().await;
    }
}
