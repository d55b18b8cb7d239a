//! Service addresses and node ports. Every one handed out is a key of its own in the store, written only if it is absent: so no two
//! services get the same, however many API servers there are. What is claimed for a service that never came to be is freed by a repair.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Server;
use super::feed::Freshness;
use super::query::Answer;
use super::registry::{json, services};
use super::respond::store_status;
use crate::cache::Query;
use crate::object::status::Cause;
use crate::object::{Object, ObjectKey, Revision, Status, resource};
use crate::store::{Expect, Outcome, StoreError};

/// Time between repairs. What is leaked is freed by the second repair that sees it.
const REPAIR_EVERY: Duration = Duration::from_secs(180);
/// Random tries before all that is taken is looked at.
const GUESSES: usize = 8;
/// Of a larger range only so much is used.
const LARGEST: u128 = 1 << 20;

/// The service that holds a claim: the value under a claim's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    namespace: String,
    name: String,
    uid: String,
}

impl Owner {
    fn of(service: &Value) -> Self {
        let text = |pointer| json::text(service, pointer).to_owned();
        Self { namespace: text("/metadata/namespace"), name: text("/metadata/name"), uid: text("/metadata/uid") }
    }
}

/// What can be claimed, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    Addresses,
    Ports,
}

impl Pool {
    fn prefix(self, server: &Server) -> String {
        let name = if self == Self::Addresses { "serviceips" } else { "servicenodeports" };
        format!("{}/ranges/{name}/", server.config.prefix)
    }

    /// Indexes that may be given out unasked; the first of them are given out last, so that who asks for one likely gets it.
    fn indexes(self, server: &Server) -> std::ops::Range<u128> {
        match self {
            // Neither the network's own address nor the broadcast address.
            Self::Addresses => {
                1..server.config.service_range.size().min(LARGEST).saturating_sub(u128::from(server.config.service_range.is_ipv4()))
            }
            Self::Ports => 0..server.config.node_ports.len() as u128,
        }
    }

    fn name(self, server: &Server, index: u128) -> Option<String> {
        match self {
            Self::Addresses => server.config.service_range.nth(index).map(|it| it.to_string()),
            Self::Ports => server.config.node_ports.clone().nth(usize::try_from(index).ok()?).map(|it| it.to_string()),
        }
    }
}

/// Why nothing was claimed.
enum Refusal {
    Taken,
    Full,
    Store(Box<Status>),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(store_status(error))
    }
}

/// What was claimed for one write, and what that write makes free.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    taken: Vec<(String, Revision)>,
    freed: Vec<String>,
    owner: Option<Owner>,
}

impl Claims {
    /// Claims what a service about to be written needs and `old` does not have, and writes it into the service.
    ///
    /// # Errors
    /// 422 for addresses and ports that are taken or out of range, 500 if all are taken.
    pub(crate) async fn make(server: &Server, key: &ObjectKey, service: &mut Value, old: Option<&Value>, dry_run: bool) -> Answer<Self> {
        let mut claims = Self::default();
        if key.resource != &resource::SERVICE {
            return Ok(claims);
        }
        claims.owner = Some(Owner::of(service));
        let before = old.map(|it| held(server, it)).unwrap_or_default();
        let mut claimer = Claimer { server, key, before: &before, dry_run, claims: &mut claims };
        let done = async {
            claimer.address(service).await?;
            claimer.ports(service).await
        };
        if let Err(status) = done.await {
            claims.abandon(server).await;
            return Err(status);
        }
        let after: HashSet<String> = held(server, service).into_iter().collect();
        claims.freed = before.into_iter().filter(|it| !after.contains(it)).collect();
        Ok(claims)
    }

    /// The write happened: frees what the service no longer has.
    pub(crate) async fn settle(self, server: &Server) {
        let Some(owner) = &self.owner else { return };
        free(server, &self.freed, owner).await;
    }

    /// The write did not happen: gives back what was claimed.
    pub(crate) async fn abandon(&self, server: &Server) {
        for (key, revision) in &self.taken {
            if let Err(error) = server.store.delete(key, *revision).await {
                tracing::warn!("freeing {key}, the repair will: {error}");
            }
        }
    }

    /// Frees what a deleted object held.
    pub(crate) async fn release(server: &Server, key: &ObjectKey, object: &Object) {
        if key.resource != &resource::SERVICE {
            return;
        }
        if let Ok(service) = serde_json::from_slice::<Value>(object.body()) {
            free(server, &held(server, &service), &Owner::of(&service)).await;
        }
    }
}

async fn free(server: &Server, keys: &[String], owner: &Owner) {
    for key in keys {
        let freed = async {
            let entry = server.store.get(key).await?;
            match entry.filter(|it| serde_json::from_slice::<Owner>(&it.value).is_ok_and(|it| it.uid == owner.uid)) {
                Some(entry) => server.store.delete(key, entry.revision).await.map(drop),
                None => Ok(()),
            }
        };
        if let Err(error) = freed.await {
            tracing::warn!("freeing {key}, the repair will: {error}");
        }
    }
}

/// The keys of what a service holds.
fn held(server: &Server, service: &Value) -> Vec<String> {
    let prefix = Pool::Addresses.prefix(server);
    let addresses = if services::kind(service) == "ExternalName" { &[] } else { json::items(service, "/spec/clusterIPs") };
    let addresses = addresses.iter().filter_map(Value::as_str).filter(|it| !matches!(*it, "" | "None")).map(|it| format!("{prefix}{it}"));
    let prefix = Pool::Ports.prefix(server);
    let ports = json::items(service, "/spec/ports").iter().map(services::node_port);
    let ports = ports.chain(json::integer(service, "/spec/healthCheckNodePort")).filter(|it| *it != 0).map(|it| format!("{prefix}{it}"));
    let mut keys: Vec<String> = addresses.chain(ports).collect();
    keys.sort();
    keys.dedup();
    keys
}

struct Claimer<'a> {
    server: &'a Server,
    key: &'a ObjectKey,
    before: &'a [String],
    dry_run: bool,
    claims: &'a mut Claims,
}

impl Claimer<'_> {
    /// The address of a service within the cluster, and the families that follow from it.
    async fn address(&mut self, service: &mut Value) -> Answer<()> {
        if services::kind(service) == "ExternalName" {
            return Ok(());
        }
        let family = if self.server.config.service_range.is_ipv4() { "IPv4" } else { "IPv6" };
        let selected = service.pointer("/spec/selector").and_then(Value::as_object).is_some_and(|it| !it.is_empty());
        let asked = json::text(service, "/spec/clusterIP").to_owned();
        let policy = json::text(service, "/spec/ipFamilyPolicy").to_owned();
        let address = match asked.as_str() {
            "None" => asked,
            _ if policy == "RequireDualStack" => {
                let detail = "this cluster is not configured for dual-stack services";
                return Err(self.invalid(Cause::invalid("spec.ipFamilyPolicy", &Value::from(policy), detail)));
            }
            "" => self.any(Pool::Addresses).await.map_err(|refusal| exhausted(refusal, "serviceIP"))?,
            _ => self.this_address(asked).await?,
        };
        let spec = json::map(service, "spec");
        // Whatever answers for a service without address and selector may have both families.
        let both = address == "None" && !selected && policy.is_empty();
        spec.insert("clusterIP".to_owned(), address.clone().into());
        spec.insert("clusterIPs".to_owned(), vec![address].into());
        json::set_default(spec, "ipFamilies", if both { vec!["IPv4", "IPv6"] } else { vec![family] });
        json::set_default(spec, "ipFamilyPolicy", if both { "RequireDualStack" } else { "SingleStack" });
        Ok(())
    }

    async fn this_address(&mut self, asked: String) -> Answer<String> {
        let refuse = |why: &str| {
            let message = format!("Invalid value: []string{{{asked:?}}}: failed to allocate IP {asked}: {why}");
            Cause { reason: "FieldValueInvalid".to_owned(), message, field: "spec.clusterIPs".to_owned() }
        };
        let range = self.server.config.service_range;
        let parsed: std::net::IpAddr = asked
            .parse()
            .map_err(|_| self.invalid(Cause::invalid("spec.clusterIPs[0]", &Value::from(asked.as_str()), "must be a valid IP address")))?;
        if !range.contains(parsed) {
            let why = format!("the provided IP ({asked}) is not in the valid range. The range of valid IPs is {range}");
            return Err(self.invalid(refuse(&why)));
        }
        match self.this(Pool::Addresses, &parsed.to_string()).await {
            Ok(()) => Ok(parsed.to_string()),
            Err(Refusal::Store(status)) => Err(status),
            Err(_) => Err(self.invalid(refuse("provided IP is already allocated"))),
        }
    }

    /// The ports under which every node reaches the service.
    async fn ports(&mut self, service: &mut Value) -> Answer<()> {
        let (wanted, for_checks) = (services::has_node_ports(service), wants_check_port(service));
        let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        let mut ports = spec.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
        // One number serves several protocols of a service.
        let mut numbers: HashMap<i64, HashSet<String>> = HashMap::new();
        let mut of_port: HashMap<Value, i64> = HashMap::new();
        for (index, port) in ports.iter().enumerate().filter(|(_, it)| services::node_port(it) != 0) {
            let (number, protocol) = (services::node_port(port), services::protocol(port).to_owned());
            let field = format!("spec.ports[{index}].nodePort");
            let known = numbers.entry(number).or_default();
            let again = !known.is_empty();
            if !known.insert(protocol) {
                return Err(self.invalid(Cause::duplicate(field, &number.into())));
            }
            if !again {
                self.this_port(field, number).await?;
            }
            of_port.entry(port["port"].clone()).or_insert(number);
        }
        for port in ports.iter_mut().filter(|it| wanted && services::node_port(it) == 0) {
            let protocol = services::protocol(port).to_owned();
            let shared = of_port.get(&port["port"]).copied().filter(|it| numbers.get(it).is_some_and(|it| !it.contains(&protocol)));
            let number = match shared {
                Some(number) => number,
                None => self.any_port().await?,
            };
            numbers.entry(number).or_default().insert(protocol);
            of_port.entry(port["port"].clone()).or_insert(number);
            port["nodePort"] = number.into();
        }
        if !ports.is_empty() {
            spec.insert("ports".to_owned(), ports.into());
        }
        match spec.get("healthCheckNodePort").and_then(Value::as_i64).filter(|it| *it != 0) {
            _ if !for_checks => drop(spec.remove("healthCheckNodePort")),
            Some(number) => self.this_port("spec.healthCheckNodePort".to_owned(), number).await?,
            None => {
                let number = self.any_port().await?;
                spec.insert("healthCheckNodePort".to_owned(), number.into());
            }
        }
        Ok(())
    }

    async fn this_port(&mut self, field: String, number: i64) -> Answer<()> {
        let range = &self.server.config.node_ports;
        let invalid = |detail: &str| Cause::invalid(field.clone(), &number.into(), detail);
        if !u16::try_from(number).is_ok_and(|it| range.contains(&it)) {
            let detail = format!("provided port is not in the valid range. The range of valid ports is {}-{}", range.start(), range.end());
            return Err(self.invalid(invalid(&detail)));
        }
        match self.this(Pool::Ports, &number.to_string()).await {
            Ok(()) => Ok(()),
            Err(Refusal::Store(status)) => Err(status),
            Err(_) => Err(self.invalid(invalid("provided port is already allocated"))),
        }
    }

    async fn any_port(&mut self) -> Answer<i64> {
        let name = self.any(Pool::Ports).await.map_err(|refusal| exhausted(refusal, "nodePort"))?;
        name.parse().map_err(|error| Box::new(Status::internal(error)))
    }

    fn invalid(&self, cause: Cause) -> Box<Status> {
        Box::new(Status::invalid(self.key.resource, &self.key.name.name, vec![cause]))
    }

    /// Claims one that was asked for, unless the service has it already.
    async fn this(&mut self, pool: Pool, name: &str) -> Result<(), Refusal> {
        let key = format!("{}{name}", pool.prefix(self.server));
        if self.before.contains(&key) || self.claims.taken.iter().any(|(taken, _)| *taken == key) {
            return Ok(());
        }
        if self.dry_run {
            return if self.server.store.get(&key).await?.is_none() { Ok(()) } else { Err(Refusal::Taken) };
        }
        let owner = self.claims.owner.as_ref().expect("claims have an owner");
        match claim(self.server, &key, owner).await? {
            Some(revision) => {
                self.claims.taken.push((key, revision));
                Ok(())
            }
            None => Err(Refusal::Taken),
        }
    }

    /// Claims a free one.
    async fn any(&mut self, pool: Pool) -> Result<String, Refusal> {
        let all = pool.indexes(self.server);
        let asked_for = all.start + ((all.end - all.start) / 16).clamp(16, 256).min(all.end - all.start);
        let upper = asked_for..all.end;
        if !upper.is_empty() {
            for _ in 0..GUESSES {
                let guess = rand::random_range(upper.clone());
                if let Some(name) = self.at(pool, guess).await? {
                    return Ok(name);
                }
            }
        }
        let taken = self.all_taken(pool).await?;
        let begin = if upper.is_empty() { all.start } else { rand::random_range(upper.clone()) };
        for index in (begin..all.end).chain(upper.start..begin.max(upper.start)).chain(all.start..upper.start.min(begin)) {
            if pool.name(self.server, index).is_some_and(|it| !taken.contains(&it))
                && let Some(name) = self.at(pool, index).await?
            {
                return Ok(name);
            }
        }
        Err(Refusal::Full)
    }

    async fn at(&mut self, pool: Pool, index: u128) -> Result<Option<String>, Refusal> {
        let Some(name) = pool.name(self.server, index) else { return Ok(None) };
        // One that the service holds already is not another one.
        if self.before.contains(&format!("{}{name}", pool.prefix(self.server))) {
            return Ok(None);
        }
        match self.this(pool, &name).await {
            Ok(()) => Ok(Some(name)),
            Err(Refusal::Taken) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    async fn all_taken(&self, pool: Pool) -> Result<HashSet<String>, Refusal> {
        let prefix = pool.prefix(self.server);
        let entries = scan(self.server, &prefix).await?;
        Ok(entries.into_iter().filter_map(|it| it.key.strip_prefix(&prefix).map(str::to_owned)).collect())
    }
}

/// Load balancers that keep to local endpoints ask each node on a port of its own whether it has any.
fn wants_check_port(service: &Value) -> bool {
    services::kind(service) == "LoadBalancer" && json::text(service, "/spec/externalTrafficPolicy") == "Local"
}

fn exhausted(refusal: Refusal, what: &str) -> Box<Status> {
    match refusal {
        Refusal::Store(status) => status,
        _ => Box::new(Status::internal(format!("failed to allocate a {what}: range is full"))),
    }
}

/// Writes a claim; `None` if another service has it.
async fn claim(server: &Server, key: &str, owner: &Owner) -> Result<Option<Revision>, StoreError> {
    let value = serde_json::to_vec(owner).unwrap_or_default();
    Ok(match server.store.put(key, Bytes::from(value), Expect::Absent, None).await? {
        Outcome::Done(revision) => Some(revision),
        Outcome::Conflict(Some(entry)) => {
            serde_json::from_slice::<Owner>(&entry.value).ok().filter(|it| it == owner).map(|_| entry.revision)
        }
        Outcome::Conflict(None) => None,
    })
}

async fn scan(server: &Server, prefix: &str) -> Result<Vec<crate::store::Entry>, StoreError> {
    let (mut all, mut start) = (Vec::new(), prefix.to_owned());
    loop {
        let page = server.store.range(prefix, &start, 2000, 0).await?;
        if let Some(last) = page.entries.last() {
            start = format!("{}\0", last.key);
        }
        all.extend(page.entries);
        if !page.more {
            return Ok(all);
        }
    }
}

/// Keeps claims and services equal.
pub(crate) async fn repair(server: Arc<Server>) -> anyhow::Result<()> {
    let shutdown = server.tasks.shutdown();
    let mut suspects = HashMap::new();
    loop {
        match repair_once(&server, &suspects).await {
            Ok(found) => suspects = found,
            Err(status) => tracing::warn!("repairing service addresses: {status}"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(REPAIR_EVERY) => {}
        }
    }
}

/// Frees claims that nobody has, if the last repair found them so too (a service may be about to be written), and claims what services
/// have unclaimed. Returns the new suspects, by key.
async fn repair_once(server: &Server, suspects: &HashMap<String, Revision>) -> Answer<HashMap<String, Revision>> {
    let mut claimed = HashMap::new();
    for pool in [Pool::Addresses, Pool::Ports] {
        let entries = scan(server, &pool.prefix(server)).await.map_err(store_status)?;
        claimed.extend(entries.into_iter().map(|it| (it.key, (it.value, it.revision))));
    }
    server.freshen(&resource::SERVICE, Freshness::Newest).await?;
    let mut unclaimed = Vec::new();
    for object in server.cache.list(&resource::SERVICE, &Query::default()).objects {
        let Ok(service) = serde_json::from_slice::<Value>(object.body()) else { continue };
        let owner = Owner::of(&service);
        for key in held(server, &service) {
            match claimed.get(&key) {
                Some((value, _)) if serde_json::from_slice::<Owner>(value).is_ok_and(|it| it == owner) => drop(claimed.remove(&key)),
                Some(_) => tracing::error!("{} of service {}/{} is another service's", key, owner.namespace, owner.name),
                None => unclaimed.push((key, owner.clone())),
            }
        }
    }
    for (key, owner) in unclaimed {
        claim(server, &key, &owner).await.map_err(store_status)?;
    }
    let mut found = HashMap::new();
    for (key, (_, revision)) in claimed {
        if suspects.get(&key) == Some(&revision) {
            tracing::info!("freeing {key}, which no service has");
            server.store.delete(&key, revision).await.map_err(store_status)?;
        } else {
            found.insert(key, revision);
        }
    }
    Ok(found)
}
