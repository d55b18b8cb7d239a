//! The resources of an agent's offers, drawn down pod by pod: across roles, all or nothing.

use super::demand::Demand;
use super::limits::Milli;
use super::ports::PortSet;
use crate::mesos::v1::{Resource, value};

/// The resources of the executor itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecutorCost {
    pub cpu: Milli,
    pub mem: Milli,
}

/// The remaining resources of one agent's offers.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// The resource as offered, without its value: Mesos requires its reservation and allocation unchanged.
    like: Resource,
    kind: Kind,
    left: Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cpu,
    Mem,
    Gpus,
    Ports,
}

#[derive(Clone, Debug)]
enum Left {
    Scalar(Milli),
    Ports(PortSet),
}

/// Why a ledger cannot satisfy a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shortage {
    /// The pod may not use any role that this framework has.
    Roles,
    Cpu,
    Mem,
    Gpus,
    /// A host port that the pod names is not offered.
    NamedPort,
    /// Too few host ports are left.
    AnyPort,
}

/// The resources for a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    pub resources: Vec<Resource>,
    /// The host ports assigned to the pod, by role preference and then number; named ports are not included.
    pub chosen_ports: Vec<u16>,
    /// The resources for its executor, if it has to pay for one.
    pub executor: Vec<Resource>,
}

/// Amounts taken per entry, to be turned into resources or put back.
type Drawn = Vec<(usize, Taken)>;

#[derive(Clone, Copy, Debug)]
enum Taken {
    Scalar(Milli),
    Port(u16),
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "cpus" => Self::Cpu,
            "mem" => Self::Mem,
            "gpus" => Self::Gpus,
            "ports" => Self::Ports,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpus",
            Self::Mem => "mem",
            Self::Gpus => "gpus",
            Self::Ports => "ports",
        }
    }
}

/// The role of a resource's innermost reservation; `*` if unreserved.
pub fn role(resource: &Resource) -> &str {
    resource.reservations.last().and_then(|it| it.role.as_deref()).or(resource.role.as_deref()).unwrap_or("*")
}

/// An unreserved scalar.
pub fn scalar(name: &str, amount: Milli) -> Resource {
    Resource {
        name: name.to_owned(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(value::Scalar { value: amount as f64 / 1000.0 }),
        ..Resource::default()
    }
}

impl Ledger {
    /// Adds the resources of an offer, except kinds that pods do not use, revocable and shared ones, and disks.
    pub fn add(&mut self, offered: &[Resource]) {
        for resource in offered {
            let Some(kind) = Kind::of(&resource.name) else { continue };
            if resource.revocable.is_some() || resource.shared.is_some() || resource.disk.is_some() {
                continue;
            }
            let like = Resource { scalar: None, ranges: None, set: None, ..resource.clone() };
            let at = self.entries.iter().position(|entry| entry.like == like).unwrap_or_else(|| {
                let left = if kind == Kind::Ports { Left::Ports(PortSet::new()) } else { Left::Scalar(0) };
                self.entries.push(Entry { like, kind, left });
                self.entries.len() - 1
            });
            match &mut self.entries[at].left {
                Left::Scalar(left) => *left += resource.scalar.as_ref().map_or(0, |it| (it.value * 1000.0).round().max(0.0) as Milli),
                Left::Ports(left) => {
                    for range in resource.ranges.iter().flat_map(|it| &it.range) {
                        left.insert(range.begin, range.end);
                    }
                }
            }
        }
    }

    fn available(&self, kind: Kind, roles: &[Box<str>]) -> Milli {
        let of_roles = |entry: &&Entry| entry.kind == kind && roles.iter().any(|it| **it == *role(&entry.like));
        self.entries
            .iter()
            .filter(of_roles)
            .map(|entry| match &entry.left {
                Left::Scalar(left) => *left,
                Left::Ports(left) => left.len() as Milli,
            })
            .sum()
    }

    /// How many more pods of this demand the scalars would hold, as a fraction: the measure of how free an agent is. An upper bound: ports
    /// are not counted, nor roles that several demands share.
    ///
    /// # Errors
    /// The resource that does not suffice for one pod.
    pub fn room(&self, demand: &Demand, executor: ExecutorCost) -> Result<f64, Shortage> {
        if demand.roles.is_empty() {
            return Err(Shortage::Roles);
        }
        let mut room = f64::MAX;
        for (kind, want, extra, short) in [
            (Kind::Cpu, demand.cpu, executor.cpu, Shortage::Cpu),
            (Kind::Mem, demand.mem, executor.mem, Shortage::Mem),
            (Kind::Gpus, demand.gpus, 0, Shortage::Gpus),
        ] {
            if want == 0 {
                continue;
            }
            let available = self.available(kind, &demand.roles).saturating_sub(extra);
            if available < want {
                return Err(short);
            }
            room = room.min(available as f64 / want as f64);
        }
        Ok(room)
    }

    /// Takes a pod's resources, and those of a new executor from the framework's roles. All or nothing.
    ///
    /// # Errors
    /// The resource that does not suffice; the ledger is then unchanged.
    pub fn take(&mut self, demand: &Demand, executor: ExecutorCost, framework_roles: &[Box<str>]) -> Result<Grant, Shortage> {
        if demand.roles.is_empty() {
            return Err(Shortage::Roles);
        }
        let (mut pod, mut own) = (Drawn::new(), Drawn::new());
        let drawn = self.draw(demand, executor, framework_roles, &mut pod, &mut own);
        match drawn {
            Ok(chosen_ports) => Ok(Grant { resources: self.resources(&pod), chosen_ports, executor: self.resources(&own) }),
            Err(short) => {
                self.put_back(&pod);
                self.put_back(&own);
                Err(short)
            }
        }
    }

    /// Takes exactly these resources, which an executor was given before; returns whether all were there.
    pub fn take_exactly(&mut self, wanted: &[Resource]) -> bool {
        let before = self.clone();
        for resource in wanted {
            let amount = resource.scalar.as_ref().map_or(0, |it| (it.value * 1000.0).round() as Milli);
            let like = Resource { scalar: None, ranges: None, set: None, ..resource.clone() };
            let entry = self.entries.iter_mut().find(|entry| entry.like == like);
            match entry.map(|it| &mut it.left) {
                Some(Left::Scalar(left)) if *left >= amount => *left -= amount,
                _ => {
                    *self = before;
                    return false;
                }
            }
        }
        true
    }

    fn draw(
        &mut self,
        demand: &Demand,
        executor: ExecutorCost,
        framework_roles: &[Box<str>],
        pod: &mut Drawn,
        own: &mut Drawn,
    ) -> Result<Vec<u16>, Shortage> {
        self.draw_scalar(Kind::Cpu, demand.cpu, &demand.roles, pod).ok_or(Shortage::Cpu)?;
        self.draw_scalar(Kind::Mem, demand.mem, &demand.roles, pod).ok_or(Shortage::Mem)?;
        self.draw_scalar(Kind::Gpus, demand.gpus, &demand.roles, pod).ok_or(Shortage::Gpus)?;
        for port in &demand.fixed_ports {
            self.draw_port(&demand.roles, pod, |left| left.take(*port).then_some(*port)).ok_or(Shortage::NamedPort)?;
        }
        let chosen = (0..demand.any_ports).map(|_| self.draw_port(&demand.roles, pod, PortSet::take_lowest).ok_or(Shortage::AnyPort));
        let chosen = chosen.collect::<Result<Vec<u16>, Shortage>>()?;
        self.draw_scalar(Kind::Cpu, executor.cpu, framework_roles, own).ok_or(Shortage::Cpu)?;
        self.draw_scalar(Kind::Mem, executor.mem, framework_roles, own).ok_or(Shortage::Mem)?;
        Ok(chosen)
    }

    fn draw_scalar(&mut self, kind: Kind, mut want: Milli, roles: &[Box<str>], drawn: &mut Drawn) -> Option<()> {
        for wanted in roles {
            for (at, entry) in self.entries.iter_mut().enumerate() {
                if want == 0 {
                    return Some(());
                }
                if entry.kind != kind || role(&entry.like) != &**wanted {
                    continue;
                }
                if let Left::Scalar(left) = &mut entry.left {
                    let taken = want.min(*left);
                    if taken > 0 {
                        (*left, want) = (*left - taken, want - taken);
                        drawn.push((at, Taken::Scalar(taken)));
                    }
                }
            }
        }
        (want == 0).then_some(())
    }

    fn draw_port(&mut self, roles: &[Box<str>], drawn: &mut Drawn, mut pick: impl FnMut(&mut PortSet) -> Option<u16>) -> Option<u16> {
        for wanted in roles {
            for (at, entry) in self.entries.iter_mut().enumerate() {
                if entry.kind == Kind::Ports
                    && role(&entry.like) == &**wanted
                    && let Left::Ports(left) = &mut entry.left
                    && let Some(port) = pick(left)
                {
                    drawn.push((at, Taken::Port(port)));
                    return Some(port);
                }
            }
        }
        None
    }

    fn put_back(&mut self, drawn: &Drawn) {
        for (at, taken) in drawn {
            match (&mut self.entries[*at].left, *taken) {
                (Left::Scalar(left), Taken::Scalar(amount)) => *left += amount,
                (Left::Ports(left), Taken::Port(port)) => left.insert(port.into(), port.into()),
                _ => unreachable!("an entry keeps its kind"),
            }
        }
    }

    /// One resource per entry drawn from; ports as ranges of one port each.
    fn resources(&self, drawn: &Drawn) -> Vec<Resource> {
        let mut order: Vec<usize> = Vec::new();
        for (at, _) in drawn {
            if !order.contains(at) {
                order.push(*at);
            }
        }
        let of = |wanted: usize| drawn.iter().filter(move |(at, _)| *at == wanted).map(|(_, taken)| *taken);
        let resource = |at: usize| {
            let entry = &self.entries[at];
            let mut resource = Resource { name: entry.kind.name().to_owned(), ..entry.like.clone() };
            match &entry.left {
                Left::Scalar(_) => {
                    let amount: Milli = of(at).map(|it| if let Taken::Scalar(amount) = it { amount } else { 0 }).sum();
                    resource.scalar = Some(value::Scalar { value: amount as f64 / 1000.0 });
                }
                Left::Ports(_) => {
                    let mut ports: Vec<u64> =
                        of(at).filter_map(|it| if let Taken::Port(port) = it { Some(port.into()) } else { None }).collect();
                    ports.sort_unstable();
                    let range = ports.into_iter().map(|port| value::Range { begin: port, end: port }).collect();
                    resource.ranges = Some(value::Ranges { range });
                }
            }
            resource
        };
        order.into_iter().map(resource).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::scheduler) fn of_role(mut resource: Resource, role: &str) -> Resource {
        resource.role = Some(role.to_owned());
        resource
    }

    pub(in crate::scheduler) fn ports(ranges: &[(u64, u64)]) -> Resource {
        let range = ranges.iter().map(|(begin, end)| value::Range { begin: *begin, end: *end }).collect();
        let ranges = Some(value::Ranges { range });
        Resource { name: "ports".to_owned(), r#type: value::Type::Ranges.into(), ranges, ..Resource::default() }
    }

    fn roles(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|it| Box::from(*it)).collect()
    }

    fn demand(cpu: Milli, mem: Milli) -> Demand {
        Demand { cpu, mem, roles: roles(&["public", "*"]), ..Demand::default() }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.add(&[
            scalar("cpus", 2000),
            of_role(scalar("cpus", 1000), "public"),
            scalar("mem", 1_000_000),
            ports(&[(31_000, 31_002)]),
            of_role(ports(&[(80, 80), (7000, 7000)]), "public"),
            scalar("disk", 5_000_000),
        ]);
        ledger
    }

    const FREE: ExecutorCost = ExecutorCost { cpu: 0, mem: 0 };

    #[test]
    fn scalars_span_roles_in_order() {
        let mut ledger = ledger();
        let grant = ledger.take(&demand(1500, 64_000), FREE, &roles(&["*"])).unwrap();
        let amounts: Vec<_> = grant.resources.iter().map(|it| (it.name.as_str(), role(it), it.scalar.unwrap().value)).collect();
        assert_eq!(amounts, [("cpus", "public", 1.0), ("cpus", "*", 0.5), ("mem", "*", 64.0)]);
        assert_eq!(ledger.available(Kind::Cpu, &roles(&["*"])), 1500);
    }

    #[test]
    fn all_or_nothing() {
        let mut ledger = ledger();
        let cost = ExecutorCost { cpu: 1000, mem: 0 };
        let before = format!("{ledger:?}");
        assert_eq!(ledger.take(&demand(2500, 1), cost, &roles(&["*"])), Err(Shortage::Cpu));
        let ports = Demand { fixed_ports: vec![80, 81], ..demand(1, 1) };
        assert_eq!(ledger.take(&ports, FREE, &roles(&["*"])), Err(Shortage::NamedPort));
        let many = Demand { any_ports: 6, ..demand(1, 1) };
        assert_eq!(ledger.take(&many, FREE, &roles(&["*"])), Err(Shortage::AnyPort));
        assert_eq!(ledger.take(&Demand::default(), FREE, &roles(&["*"])), Err(Shortage::Roles));
        assert_eq!(format!("{ledger:?}"), before);
        let grant = ledger.take(&demand(2000, 1), cost, &roles(&["*"])).unwrap();
        assert_eq!(grant.executor, [scalar("cpus", 1000)].map(|it| Resource { role: None, ..it }));
    }

    #[test]
    fn ports_are_named_first_then_lowest_by_role() {
        let mut ledger = ledger();
        let grant = ledger.take(&Demand { fixed_ports: vec![31_000, 7000], any_ports: 2, ..demand(1, 1) }, FREE, &roles(&["*"])).unwrap();
        assert_eq!(grant.chosen_ports, [80, 31_001]);
        let of = |wanted: &str| {
            let found = grant.resources.iter().find(|it| it.name == "ports" && role(it) == wanted).unwrap();
            found.ranges.as_ref().unwrap().range.iter().map(|it| (it.begin, it.end)).collect::<Vec<_>>()
        };
        assert_eq!(of("public"), [(80, 80), (7000, 7000)]);
        assert_eq!(of("*"), [(31_000, 31_000), (31_001, 31_001)]);
    }

    #[test]
    fn an_executors_share_is_taken_again_exactly() {
        let mut ledger = ledger();
        let cost = ExecutorCost { cpu: 1250, mem: 128_000 };
        let grant = ledger.clone().take(&demand(1, 1), cost, &roles(&["*", "public"])).unwrap();
        assert!(ledger.take_exactly(&grant.executor));
        assert_eq!(ledger.available(Kind::Cpu, &roles(&["*"])), 750);
        assert!(!ledger.take_exactly(&grant.executor));
        assert_eq!(ledger.available(Kind::Cpu, &roles(&["*"])), 750);
    }

    proptest! {
        #[test]
        fn nothing_is_made_or_lost(pods in proptest::collection::vec((0u64..900, 0u64..400_000, 0u32..3), 1..30)) {
            let mut ledger = ledger();
            let total = |ledger: &Ledger, kind| ledger.available(kind, &roles(&["public", "*"]));
            let start = [Kind::Cpu, Kind::Mem, Kind::Ports].map(|kind| total(&ledger, kind));
            let (mut given, mut ports) = ([0; 3], std::collections::HashSet::new());
            for (cpu, mem, any_ports) in pods {
                let demand = Demand { any_ports, ..demand(cpu, mem) };
                let fits = ledger.room(&demand, FREE);
                match ledger.take(&demand, FREE, &roles(&["*"])) {
                    Ok(grant) => {
                        prop_assert!(fits.is_ok());
                        given[0] += cpu;
                        given[1] += mem;
                        given[2] += u64::from(any_ports);
                        prop_assert!(grant.chosen_ports.iter().all(|port| ports.insert(*port)));
                    }
                    Err(short) => prop_assert!(fits.is_err() || short == Shortage::AnyPort),
                }
            }
            for (at, kind) in [Kind::Cpu, Kind::Mem, Kind::Ports].into_iter().enumerate() {
                prop_assert_eq!(total(&ledger, kind) + given[at], start[at]);
            }
        }
    }
}
