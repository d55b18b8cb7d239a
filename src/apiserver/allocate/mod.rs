//! Service addresses and node ports. Each allocated one is a key of its own in the store, created only if absent, so that no two services
//! get the same one, however many API servers there are. The key of an address is that of an IPAddress, an object like any other. A repair
//! frees claims of services that were never created.

mod claim;
mod families;
mod pool;
mod repair;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use serde_json::Value;

use super::Server;
use super::error::Answer;
use super::registry::services;
use crate::object::status::Cause;
use crate::object::{Object, ObjectKey, Revision, Status, resource, service};
use crate::util::{address, json};
use claim::{Claim, Owner};
use pool::Pool;
pub(crate) use repair::{adopt, repair};

/// Random tries before all that is taken is looked at.
const GUESSES: usize = 8;
/// Why an address is refused, or none is allocated: no range contains it, or none is ready.
const NO_RANGE: &str = "the provided network does not match the current range";

/// Why nothing was claimed.
enum Refusal {
    Taken,
    Full,
    NoRange,
    Store(Box<Status>),
}

/// The claims made for one write, and those that the write frees.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    taken: Vec<(Claim, Revision)>,
    freed: Vec<Claim>,
    owner: Option<Owner>,
}

impl Claims {
    /// Claims the addresses and ports that a service about to be written needs and `old` lacks, and writes them into the service.
    ///
    /// # Errors
    /// 422 for addresses and ports that are taken or out of range, 500 if all are taken.
    pub(crate) async fn make(server: &Server, key: &ObjectKey, service: &mut Value, old: Option<&Value>, dry_run: bool) -> Answer<Self> {
        let mut claims = Self::default();
        if key.resource != &resource::SERVICE {
            return Ok(claims);
        }
        claims.owner = Some(Owner::of(service));
        let before = old.map(held).unwrap_or_default();
        let mut claimer = Claimer { server, key, before: &before, dry_run, claims: &mut claims };
        let done = async {
            claimer.address(service, old).await?;
            claimer.ports(service).await
        };
        if let Err(status) = done.await {
            claims.abandon(server).await;
            return Err(status);
        }
        let after: HashSet<Claim> = held(service).into_iter().collect();
        claims.freed = before.into_iter().filter(|it| !after.contains(it)).collect();
        Ok(claims)
    }

    /// Frees claims that the service no longer has, after the write at this revision.
    pub(crate) async fn settle(self, server: &Server, written: Revision) {
        let Some(owner) = &self.owner else { return };
        free(server, &self.freed, owner, written).await;
    }

    /// Gives back the claims after a write that did not happen.
    pub(crate) async fn abandon(&self, server: &Server) {
        for (claim, revision) in &self.taken {
            if let Err(status) = claim.drop_at(server, *revision).await {
                tracing::warn!("freeing {claim:?} failed, the repair loop will free it: {status}");
            }
        }
    }

    /// Frees the claims of an object that was deleted at this revision.
    pub(crate) async fn release(server: &Server, key: &ObjectKey, object: &Object, deleted: Revision) {
        if key.resource != &resource::SERVICE {
            return;
        }
        if let Ok(service) = serde_json::from_slice::<Value>(object.body()) {
            free(server, &held(&service), &Owner::of(&service), deleted).await;
        }
    }
}

async fn free(server: &Server, claims: &[Claim], owner: &Owner, until: Revision) {
    for claim in claims {
        claim.free(server, owner, until).await;
    }
}

/// The claims of a service.
fn held(service: &Value) -> Vec<Claim> {
    let addresses = if service::kind(service) == "ExternalName" { &[] } else { json::items(service, "/spec/clusterIPs") };
    let addresses = addresses.iter().filter_map(|it| address::read(it.as_str()?)).map(Claim::Address);
    let ports = json::items(service, "/spec/ports").iter().map(services::node_port);
    let ports = ports.chain(json::integer(service, "/spec/healthCheckNodePort")).filter_map(|it| u16::try_from(it).ok());
    let ports = ports.filter(|it| *it != 0).map(Claim::Port);
    let mut claims: Vec<Claim> = addresses.chain(ports).collect();
    claims.sort();
    claims.dedup();
    claims
}

struct Claimer<'a> {
    server: &'a Server,
    key: &'a ObjectKey,
    before: &'a [Claim],
    dry_run: bool,
    claims: &'a mut Claims,
}

impl Claimer<'_> {
    /// The families of a service, and its address within the cluster.
    async fn address(&mut self, service: &mut Value, old: Option<&Value>) -> Answer<()> {
        let family = if self.server.config.service_range.is_ipv4() { "IPv4" } else { "IPv6" };
        families::settle(service, old, family).map_err(|causes| self.all_invalid(causes))?;
        if service::kind(service) == "ExternalName" {
            return Ok(());
        }
        let asked = json::text(service, "/spec/clusterIP").to_owned();
        let address = match asked.as_str() {
            "None" => asked,
            "" => self.any_address().await.map_err(|refusal| exhausted(refusal, "serviceIP"))?.to_string(),
            _ => self.this_address(asked).await?,
        };
        let spec = json::map(service, "spec");
        spec.insert("clusterIP".to_owned(), address.clone().into());
        spec.insert("clusterIPs".to_owned(), vec![address].into());
        Ok(())
    }

    async fn this_address(&mut self, asked: String) -> Answer<String> {
        let list = format!("[]string{{{asked:?}}}");
        let address = address::read(&asked).ok_or_else(|| {
            self.invalid(Cause::invalid("spec.clusterIPs[0]", &Value::from(asked.as_str()), "must be a valid IP address"))
        })?;
        let range = self.server.config.service_range;
        let claim = Claim::Address(address);
        let claimed = match self.has(claim) {
            true => Ok(()),
            // As in Kubernetes, a dry run does not check whether it is taken.
            false if self.dry_run && range.has_host(address) => Ok(()),
            false if !pool::ranges(self.server).iter().any(|it| it.has_host(address)) => Err(Refusal::NoRange),
            false => self.this(claim).await,
        };
        let why = match claimed {
            Ok(()) => return Ok(asked),
            Err(Refusal::Store(status)) => return Err(status),
            Err(Refusal::NoRange) if self.dry_run => {
                format!("the provided IP ({asked}) is not in the valid range. The range of valid IPs is {range}")
            }
            Err(Refusal::NoRange) => NO_RANGE.to_owned(),
            Err(_) => "provided IP is already allocated".to_owned(),
        };
        Err(self.invalid(Cause::invalid_shown("spec.clusterIPs", &list, &format!("failed to allocate IP {asked}: {why}"))))
    }

    /// An address out of the first range that has one left.
    async fn any_address(&mut self) -> Result<IpAddr, Refusal> {
        let ranges = pool::ranges(self.server);
        if ranges.is_empty() {
            return Err(Refusal::NoRange);
        }
        for range in ranges {
            if self.dry_run {
                // As in Kubernetes: an address that is never allocated.
                return range.nth(0).ok_or(Refusal::Full);
            }
            match self.any(Pool::Addresses(range)).await {
                Ok(Claim::Address(address)) => return Ok(address),
                Ok(Claim::Port(_)) | Err(Refusal::Full) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::Full)
    }

    /// The ports under which every node reaches the service.
    async fn ports(&mut self, service: &mut Value) -> Answer<()> {
        let (wanted, for_checks) = (service::has_node_ports(service), service::has_check_port(service));
        let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        let mut ports = spec.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
        // One number may serve several protocols of a service.
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
        let Some(port) = u16::try_from(number).ok().filter(|it| range.contains(it)) else {
            // Kubernetes then only looks whether it is taken.
            if self.dry_run {
                return Ok(());
            }
            let detail = format!("provided port is not in the valid range. The range of valid ports is {}-{}", range.start(), range.end());
            return Err(self.invalid(invalid(&detail)));
        };
        match self.this(Claim::Port(port)).await {
            Ok(()) => Ok(()),
            Err(Refusal::Store(status)) => Err(status),
            Err(_) => Err(self.invalid(invalid("provided port is already allocated"))),
        }
    }

    async fn any_port(&mut self) -> Answer<i64> {
        match self.any(Pool::Ports).await {
            Ok(Claim::Port(port)) => Ok(port.into()),
            Ok(Claim::Address(_)) => Err(exhausted(Refusal::Full, "nodePort")),
            Err(refusal) => Err(exhausted(refusal, "nodePort")),
        }
    }

    fn invalid(&self, cause: Cause) -> Box<Status> {
        self.all_invalid(vec![cause])
    }

    fn all_invalid(&self, causes: Vec<Cause>) -> Box<Status> {
        Box::new(Status::invalid(self.key.resource, &self.key.name.name, causes))
    }

    /// Whether the service has it already.
    fn has(&self, claim: Claim) -> bool {
        self.before.contains(&claim) || self.claims.taken.iter().any(|(taken, _)| *taken == claim)
    }

    /// Claims one that was asked for, unless the service has it already.
    async fn this(&mut self, claim: Claim) -> Result<(), Refusal> {
        if self.has(claim) {
            return Ok(());
        }
        if self.dry_run {
            return if claim.is_free(self.server).await? { Ok(()) } else { Err(Refusal::Taken) };
        }
        let owner = self.claims.owner.as_ref().expect("claims have an owner");
        match claim.take(self.server, owner).await? {
            Some(revision) => {
                self.claims.taken.push((claim, revision));
                Ok(())
            }
            None => Err(Refusal::Taken),
        }
    }

    /// Claims a free one.
    async fn any(&mut self, pool: Pool) -> Result<Claim, Refusal> {
        let all = pool.indexes(self.server);
        let upper = pool::unasked(&all);
        if !upper.is_empty() {
            for _ in 0..GUESSES {
                let guess = rand::random_range(upper.clone());
                if let Some(claim) = pool.nth(self.server, guess)
                    && self.try_this(claim).await?
                {
                    return Ok(claim);
                }
            }
        }
        let taken = pool.taken(self.server).await?;
        let begin = if upper.is_empty() { all.start } else { rand::random_range(upper.clone()) };
        for index in (begin..all.end).chain(upper.start..begin.max(upper.start)).chain(all.start..upper.start.min(begin)) {
            if let Some(claim) = pool.nth(self.server, index).filter(|it| !taken.contains(it))
                && self.try_this(claim).await?
            {
                return Ok(claim);
            }
        }
        Err(Refusal::Full)
    }

    /// Claims this one if it is free. One that the service holds already is not another one.
    async fn try_this(&mut self, claim: Claim) -> Result<bool, Refusal> {
        if self.before.contains(&claim) || claim.is_seen(self.server) {
            return Ok(false);
        }
        match self.this(claim).await {
            Ok(()) => Ok(true),
            Err(Refusal::Taken) => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }
}

fn exhausted(refusal: Refusal, what: &str) -> Box<Status> {
    match refusal {
        Refusal::Store(status) => status,
        Refusal::NoRange => Box::new(Status::internal(format!("failed to allocate a {what}: {NO_RANGE}"))),
        _ => Box::new(Status::internal(format!("failed to allocate a {what}: range is full"))),
    }
}
