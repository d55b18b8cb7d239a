//! Decides whether a lease may be taken, and whether it is still held. Pure: time is passed in, and never compared between machines.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Candidate;
use crate::object::{Object, Revision};

/// The content of a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) revision: Revision,
    /// Empty if the lease was released.
    pub(super) holder: String,
    duration: Duration,
    acquired: Option<Timestamp>,
    transitions: i32,
}

impl Record {
    pub(super) fn of(object: &Object) -> Self {
        // An object that does not decode as a lease is free to be taken.
        let spec = object.typed::<Lease>().ok().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        Self {
            revision: object.revision(),
            holder: spec.holder_identity.unwrap_or_default(),
            duration: Duration::from_secs(spec.lease_duration_seconds.unwrap_or_default().try_into().unwrap_or_default()),
            acquired: spec.acquire_time.map(|time| time.0),
            transitions: spec.lease_transitions.unwrap_or_default(),
        }
    }
}

/// The next action on the lease; the values are its new spec.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Another replica holds the lease.
    Wait,
    Create(Value),
    /// Write the lease if it is still at this revision.
    Take(Revision, Value),
}

#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    lease_duration: Duration,
    renew_deadline: Duration,
    /// The newest record, and when it was first seen. Its duration counts from then, because clocks of machines differ.
    seen: Option<(Record, Instant)>,
    /// When our own hold began or was last confirmed.
    renewed: Option<Instant>,
}

impl Election {
    pub(super) fn new(candidate: &Candidate) -> Self {
        Self {
            identity: candidate.identity.clone(),
            lease_duration: candidate.lease_duration,
            renew_deadline: candidate.renew_deadline,
            seen: None,
            renewed: None,
        }
    }

    /// Decides on the current content of the lease (`None`: there is none).
    pub(super) fn look(&mut self, record: Option<Record>, now: Instant, clock: Timestamp) -> Step {
        let Some(record) = record else {
            self.seen = None;
            return Step::Create(self.spec(clock, clock, 0));
        };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen.revision != record.revision) {
            self.seen = Some((record.clone(), now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        if record.holder == self.identity {
            let acquired = record.acquired.unwrap_or(clock);
            return Step::Take(record.revision, self.spec(acquired, clock, record.transitions));
        }
        // Another replica has taken the lease: our own hold is over.
        self.renewed = None;
        if !record.holder.is_empty() && now < since + record.duration {
            return Step::Wait;
        }
        Step::Take(record.revision, self.spec(clock, clock, record.transitions.saturating_add(1)))
    }

    /// Records a successful write of the lease; `at` is when it was begun.
    pub(super) fn renewed(&mut self, at: Instant) {
        self.renewed = Some(at);
    }

    /// The time that leadership lasts without another renewal; `None` if this replica does not lead.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let until = self.renewed? + self.renew_deadline;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    pub(super) fn leads(&self, now: Instant) -> bool {
        self.left(now).is_some()
    }

    fn spec(&self, acquired: Timestamp, renewed: Timestamp, transitions: i32) -> Value {
        json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.lease_duration.as_secs().max(1),
            "acquireTime": MicroTime(acquired),
            "renewTime": MicroTime(renewed),
            "leaseTransitions": transitions,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn election(identity: &str) -> Election {
        Election::new(&Candidate::new("kube-system", "x", identity))
    }

    fn record(revision: Revision, spec: &Value) -> Record {
        Record {
            revision,
            holder: spec["holderIdentity"].as_str().unwrap().to_owned(),
            duration: Duration::from_secs(spec["leaseDurationSeconds"].as_u64().unwrap()),
            acquired: spec["acquireTime"].as_str().map(|it| it.parse().unwrap()),
            transitions: spec["leaseTransitions"].as_i64().unwrap().try_into().unwrap(),
        }
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free() {
        let (start, clock) = (Instant::now(), Timestamp::from_second(1_700_000_000).unwrap());
        let second = Duration::from_secs;
        let (mut a, mut b) = (election("a"), election("b"));
        let Step::Create(spec) = a.look(None, start, clock) else { panic!("there is no lease yet") };
        assert_eq!(spec["acquireTime"], "2023-11-14T22:13:20.000000Z");
        a.renewed(start);
        assert!(a.leads(start + second(9)) && !a.leads(start + second(10)));
        assert_eq!(b.look(Some(record(1, &spec)), start + second(1), clock), Step::Wait);
        assert_eq!(b.look(Some(record(1, &spec)), start + second(15), clock), Step::Wait);
        let Step::Take(1, taken) = b.look(Some(record(1, &spec)), start + second(16), clock) else { panic!("it expired") };
        assert_eq!((&taken["holderIdentity"], &taken["leaseTransitions"]), (&"b".into(), &1.into()));
        // A released lease is free at once.
        let given = Record { revision: 2, holder: String::new(), ..record(1, &spec) };
        assert!(matches!(a.look(Some(given), start + second(17), clock), Step::Take(2, _)));
    }

    proptest! {
        /// Clocks disagree; requests are slow, lost, or answered late: never do two replicas lead at once.
        #[test]
        fn there_is_one_leader(turns in prop::collection::vec((0..3usize, 0..4_000u64, 0..3_000u64, 0..10u8), 1..200)) {
            let start = Instant::now();
            let mut elections = ["a", "b", "c"].map(election);
            let mut lease: Option<Record> = None;
            let mut now = start;
            for (who, pause, latency, luck) in turns {
                now += Duration::from_millis(pause);
                let clock = Timestamp::from_second(1_700_000_000 + who as i64 * 10_000).unwrap();
                let step = elections[who].look(lease.clone(), now, clock);
                let begun = now;
                // The revision guards against writes of others between the read and the write, so time just goes on.
                now += Duration::from_millis(latency);
                let written = match step {
                    Step::Wait => None,
                    Step::Create(spec) => Some(record(1, &spec)),
                    Step::Take(revision, spec) => Some(record(revision + 1, &spec)),
                };
                if let Some(written) = written && luck > 1 {
                    lease = Some(written);
                    // A lost response: the lease was written, but the replica does not know.
                    if luck > 2 {
                        elections[who].renewed(begun);
                    }
                }
                prop_assert!(elections.iter().filter(|it| it.leads(now)).count() <= 1);
            }
        }
    }
}
