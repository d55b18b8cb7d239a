//! Decides which reports become new events, which raise the count of an existing one, and which are dropped, as client-go's recorder does.
//! Pure: reports carry their time.

use std::collections::HashMap;
use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::{EventType, Report, Source};

/// The messages of a topic are forgotten this long after the last one.
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// From this many distinct messages of a topic on, they share one event.
const SIMILAR: usize = 10;
/// Events about one object: this many at once, then one per [`REFILL`].
const BURST: i64 = 25;
const REFILL: SignedDuration = SignedDuration::from_mins(5);
/// Bound of each map.
const REMEMBERED: usize = 4_096;

/// An event to be written.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub event: Event,
    /// The event has not been written before.
    pub new: bool,
}

impl Write {
    pub(super) fn name(&self) -> &str {
        self.event.metadata.name.as_deref().unwrap_or_default()
    }
}

/// Key for similar reports: object, type, reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Topic {
    object: Subject,
    kind: EventType,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    field_path: String,
}

#[derive(Debug)]
pub(super) struct Correlator {
    source: Source,
    events: HashMap<(Topic, String), Counted>,
    messages: HashMap<Topic, Messages>,
    /// When each object's bucket would be full again.
    full_at: HashMap<Subject, Timestamp>,
    last_stamp: i128,
}

#[derive(Debug)]
struct Counted {
    name: String,
    count: i32,
    first: Timestamp,
    last: Timestamp,
}

#[derive(Debug)]
struct Messages {
    last: Timestamp,
    distinct: HashSet<String>,
}

impl Correlator {
    pub(super) fn new(source: Source) -> Self {
        Self { source, events: HashMap::new(), messages: HashMap::new(), full_at: HashMap::new(), last_stamp: 0 }
    }

    /// Counts the report; `None` if the object has used up its rate.
    pub(super) fn observe(&mut self, report: &Report) -> Option<Write> {
        let (key, message) = self.key(report);
        let subject = key.0.object.clone();
        let (event, new) = self.count(key, report, message);
        self.allowed(&subject, report.at).then_some(Write { event, new })
    }

    fn count(&mut self, key: (Topic, String), report: &Report, message: String) -> (Event, bool) {
        let known = self.events.get(&key).map(|it| (it.name.clone(), it.count, it.first));
        let new = known.is_none();
        let (name, count, first) = known.unwrap_or_else(|| (self.name(report), 0, report.at));
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        // As in Kubernetes, an event that combines several messages names no reporting component.
        let reporter = |it: &str| if key.1 == report.message { text(it) } else { None };
        let event = Event {
            metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace(&report.about)), ..ObjectMeta::default() },
            involved_object: report.about.clone(),
            type_: Some(format!("{:?}", report.kind)),
            reason: Some(report.reason.clone()),
            message: Some(message),
            count: Some(count + 1),
            first_timestamp: Some(Time(first)),
            last_timestamp: Some(Time(report.at)),
            source: Some(EventSource { component: text(&self.source.component), host: text(&self.source.host) }),
            reporting_component: reporter(&self.source.component),
            reporting_instance: reporter(&self.source.host),
            ..Event::default()
        };
        forget(&mut self.events, |counted| counted.last);
        self.events.insert(key, Counted { name, count: count + 1, first, last: report.at });
        (event, new)
    }

    /// The key of the report's event, and the message to show.
    fn key(&mut self, report: &Report) -> ((Topic, String), String) {
        let topic = Topic { object: subject(&report.about), kind: report.kind, reason: report.reason.clone() };
        forget(&mut self.messages, |messages| messages.last);
        let new = || Messages { last: report.at, distinct: HashSet::new() };
        let messages = self.messages.entry(topic.clone()).or_insert_with(new);
        if report.at.duration_since(messages.last) > WINDOW {
            *messages = new();
        }
        messages.last = report.at;
        if messages.distinct.contains(&report.message) || messages.distinct.len() + 1 < SIMILAR {
            messages.distinct.insert(report.message.clone());
            ((topic, report.message.clone()), report.message.clone())
        } else {
            ((topic, String::new()), format!("(combined from similar events): {}", report.message))
        }
    }

    fn allowed(&mut self, subject: &Subject, now: Timestamp) -> bool {
        forget(&mut self.full_at, |full_at| *full_at);
        let full_at = self.full_at.entry(subject.clone()).or_insert(now);
        let next = (*full_at).max(now) + REFILL;
        let allowed = next.duration_since(now) <= REFILL * i32::try_from(BURST).unwrap_or(i32::MAX);
        if allowed {
            *full_at = next;
        }
        allowed
    }

    /// A unique name, ascending with time.
    fn name(&mut self, report: &Report) -> String {
        self.last_stamp = report.at.as_nanosecond().max(self.last_stamp + 1);
        format!("{}.{:x}", report.about.name.as_deref().unwrap_or_default(), self.last_stamp)
    }
}

/// Drops the older half once there are too many entries.
fn forget<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, last: impl Fn(&V) -> Timestamp) {
    if map.len() < REMEMBERED {
        return;
    }
    let mut times: Vec<Timestamp> = map.values().map(&last).collect();
    let (_, median, _) = times.select_nth_unstable(REMEMBERED / 2);
    let median = *median;
    map.retain(|_, value| last(value) > median);
}

/// Events about objects without a namespace are kept in `default`.
fn namespace(about: &ObjectReference) -> String {
    about.namespace.clone().filter(|it| !it.is_empty()).unwrap_or_else(|| "default".to_owned())
}

fn subject(about: &ObjectReference) -> Subject {
    let text = |it: &Option<String>| it.clone().unwrap_or_default();
    Subject {
        kind: text(&about.kind),
        namespace: text(&about.namespace),
        name: text(&about.name),
        uid: text(&about.uid),
        field_path: text(&about.field_path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, message: &str, second: i64) -> Report {
        let about = ObjectReference { name: Some(name.to_owned()), namespace: Some("a".to_owned()), ..ObjectReference::default() };
        let at = Timestamp::from_second(1_700_000_000 + second).unwrap();
        Report { about, kind: EventType::Warning, reason: "Failed".to_owned(), message: message.to_owned(), at }
    }

    fn correlator() -> Correlator {
        Correlator::new(Source { component: "scheduler".to_owned(), host: String::new() })
    }

    fn run(correlator: &mut Correlator, report: &Report) -> String {
        match correlator.observe(report) {
            None => "dropped".to_owned(),
            Some(Write { event, new: true }) => format!("create {}", event.message.unwrap()),
            Some(Write { event, new: false }) => format!("{} {}", event.count.unwrap(), event.message.unwrap()),
        }
    }

    #[test]
    fn repetitions_are_counted() {
        let mut correlator = correlator();
        for (second, expected) in [(0, "create m"), (1, "2 m"), (600, "3 m"), (1_201, "4 m")] {
            assert_eq!(run(&mut correlator, &report("web", "m", second)), expected, "{second}");
        }
        assert_eq!(run(&mut correlator, &report("db", "m", 1_201)), "create m");
    }

    #[test]
    fn similar_reports_share_an_event() {
        let mut correlator = correlator();
        for at in 0..9 {
            assert_eq!(run(&mut correlator, &report("web", &format!("m{at}"), at)), format!("create m{at}"));
        }
        assert_eq!(run(&mut correlator, &report("web", "m10", 11)), "create (combined from similar events): m10");
        assert_eq!(run(&mut correlator, &report("web", "m11", 12)), "2 (combined from similar events): m11");
        assert_eq!(run(&mut correlator, &report("web", "m3", 13)), "2 m3");
    }

    #[test]
    fn an_object_is_cut_short() {
        let mut correlator = correlator();
        let outcomes: Vec<_> = (0..30).map(|_| run(&mut correlator, &report("web", "m", 0))).collect();
        assert_eq!(outcomes.iter().filter(|it| *it == "dropped").count(), 5);
        assert_eq!(run(&mut correlator, &report("web", "m", 299)), "dropped");
        assert_eq!(run(&mut correlator, &report("web", "m", 300)), "32 m");
        assert_eq!(run(&mut correlator, &report("db", "m", 0)), "create m");
    }

    #[test]
    fn names_are_unique_and_memory_is_bounded() {
        let mut correlator = correlator();
        let mut names = HashSet::new();
        for at in 0..20_000 {
            let Some(Write { event, new: true }) = correlator.observe(&report(&format!("x{at}"), "m", at / 1_000)) else {
                panic!("a new object gets a new event");
            };
            assert!(names.insert(event.metadata.name.clone()));
        }
        assert!(correlator.events.len() <= REMEMBERED && correlator.messages.len() <= REMEMBERED && correlator.full_at.len() <= REMEMBERED);
    }
}
