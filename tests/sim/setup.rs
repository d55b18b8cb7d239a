//! The configuration of the simulated parts.

use std::time::Duration;

use km::mesos::v1::framework_info::{Capability, capability};
use km::mesos::v1::{FrameworkId, FrameworkInfo};
use km::scheduler::Tuning;
use km::scheduler::core::{BIND_TIMEOUT, Settings};
use km::scheduler::demand::Rules;
use km::scheduler::executorinfo::Prototype;
use km::scheduler::limits::Defaults;
use km::scheduler::reconcile::Pace;
use km::scheduler::resources::ExecutorCost;
use km::util::product::KUBERNETES;

/// The resources of each agent.
pub const RESOURCES: &str = "cpus:4;mem:4096;ports:[31000-31009]";

pub fn rules() -> Rules {
    let roles = vec![Box::from("*")];
    Rules {
        product: KUBERNETES,
        limits: Defaults::default(),
        framework_roles: roles.clone(),
        default_pod_roles: roles,
        any_port_by_default: true,
    }
}

pub fn settings(seed: u64, resumed: bool) -> Settings {
    let (tuning, cost) = (Tuning::default(), ExecutorCost { cpu: 250, mem: 128_000 });
    let reconcile = Pace {
        cooldown: Duration::from_secs(15),
        interval: Duration::from_secs(300),
        initial_delay: tuning.initial_implicit_reconciliation_delay,
        max_backoff: tuning.explicit_reconciliation_max_backoff,
    };
    Settings {
        rules: rules(),
        prototype: Prototype::new(KUBERNETES, "./km", vec!["./km".into()], &[], None, cost),
        discovery: false,
        offer_ttl: tuning.offer_ttl,
        initial_pod_backoff: tuning.initial_pod_backoff,
        max_pod_backoff: tuning.max_pod_backoff,
        reconcile,
        resumed,
        // Time leaps here; with a shorter gate, pods could be launched twice.
        gate: Duration::MAX / 2,
        // Time leaps here, and timeouts should be frequent.
        bind_timeout: BIND_TIMEOUT / 20,
        seed,
    }
}

pub fn framework(id: Option<&str>) -> FrameworkInfo {
    use capability::Type;
    let capabilities = [Type::MultiRole, Type::ReservationRefinement, Type::PartitionAware];
    FrameworkInfo {
        user: "root".to_owned(),
        name: "Kubernetes".to_owned(),
        id: id.map(|id| FrameworkId { value: id.to_owned() }),
        failover_timeout: Some(7.0 * 86_400.0),
        checkpoint: Some(true),
        roles: vec!["*".to_owned()],
        capabilities: capabilities.map(|it| Capability { r#type: Some(it.into()) }).into(),
        ..FrameworkInfo::default()
    }
}
