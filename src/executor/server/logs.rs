//! `/containerLogs/<namespace>/<pod>/<container>`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::super::names;
use super::super::observe;
use super::super::pod::{Observed, Seen, units};
use super::super::shared::Shared;
use super::respond::{Response, stream};
use crate::object::resource;
use crate::runtime::{LogOptions, State};
use crate::util::url;

/// Code and text.
pub(super) struct Failure(pub u16, pub String);

/// The parameters of a request.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    options: LogOptions,
    previous: bool,
    limit: Option<usize>,
}

pub(super) async fn answer(shared: &Shared, namespace: &str, name: &str, container: &str, query: &str) -> Result<Response, Failure> {
    let wanted = parse(query, Timestamp::now()).map_err(|text| Failure(422, text))?;
    let object = shared.cache.get(&resource::POD, namespace, name);
    let object = object.filter(|pod| pod.field("spec.nodeName") == Some(&shared.config.node_name));
    let object = object.ok_or_else(|| Failure(404, format!("pod {name:?} does not exist\n")))?;
    let pod = object.typed::<Pod>().map_err(|error| Failure(500, error.to_string()))?;
    if !pod.spec.iter().flat_map(units).any(|unit| unit.spec.name == container) {
        return Err(Failure(404, format!("container {container:?} not found in pod {name:?}\n")));
    }
    let containers = observe::containers(shared, names::uid_on_node(pod)).await.map_err(|error| Failure(500, error.to_string()))?;
    let observed = Observed::new(containers);
    let id = choose(&observed, pod, container, wanted.previous).map_err(|text| Failure(400, text))?;
    let logs = shared.runtime.logs(&id, &wanted.options);
    Ok(stream(super::chunks(logs, wanted.limit)))
}

/// The id of the container whose log is requested.
fn choose(observed: &Observed, pod: &Pod, container: &str, previous: bool) -> Result<String, String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let newest = observed.newest(container).filter(|seen| seen.container.state != State::Created);
    let waiting = status(pod, container).and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    // A container that waits for its restart has only its last run.
    let waits_again = newest.is_some_and(|seen| seen.exit().is_some()) && waiting.is_some();
    let chosen = if previous && !waits_again { observed.previous(container) } else { newest };
    match chosen {
        Some(seen) => Ok(Seen::id(seen).to_owned()),
        None if previous => Err(format!("previous terminated container {container:?} in pod {name:?} not found")),
        None => Err(match waiting.unwrap_or("ContainerCreating") {
            "ErrImagePull" => format!("container {container:?} in pod {name:?} is waiting to start: image can't be pulled"),
            "ImagePullBackOff" => format!("container {container:?} in pod {name:?} is waiting to start: trying and failing to pull image"),
            reason => format!("container {container:?} in pod {name:?} is waiting to start: {reason}"),
        }),
    }
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let mut statuses = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    statuses.find(|status| status.name == container)
}

fn parse(query: &str, now: Timestamp) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    for (key, value) in url::parameters(query) {
        let number = || {
            value
                .parse::<i64>()
                .ok()
                .filter(|number| *number >= 0)
                .ok_or_else(|| format!("{key}: Invalid value: {value:?}: must be greater than or equal to 0"))
        };
        match key.as_str() {
            "follow" => wanted.options.follow = url::is_set(&value),
            "timestamps" => wanted.options.timestamps = url::is_set(&value),
            "previous" => wanted.previous = url::is_set(&value),
            "tailLines" => wanted.options.tail = Some(number()?.unsigned_abs()),
            "limitBytes" => wanted.limit = Some(usize::try_from(number()?).unwrap_or(usize::MAX)),
            "sinceSeconds" => {
                wanted.options.since = Some(now.checked_sub(SignedDuration::from_secs(number()?)).unwrap_or(Timestamp::UNIX_EPOCH));
            }
            "sinceTime" => {
                wanted.options.since = Some(value.parse().map_err(|_| format!("sinceTime: Invalid value: {value:?}: not RFC 3339"))?)
            }
            _ => {}
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_understood() {
        let now = Timestamp::from_second(1000).unwrap();
        let wanted = parse("follow=true&tailLines=5&sinceSeconds=60&limitBytes=9&timestamps=1&x=y", now).unwrap();
        let options = LogOptions { follow: true, tail: Some(5), since: Timestamp::from_second(940).ok(), timestamps: true };
        assert_eq!(wanted, Wanted { options, previous: false, limit: Some(9) });
        let wanted = parse("sinceTime=1970-01-01T00%3A00%3A10Z&previous=true", now).unwrap();
        assert_eq!((wanted.options.since, wanted.previous), (Timestamp::from_second(10).ok(), true));
        // Go ignores values that it cannot parse.
        assert_eq!(
            parse("follow=false&previous=%zz&timestamps", now).unwrap().options,
            LogOptions { timestamps: true, ..LogOptions::default() }
        );
        assert!(parse("tailLines=-1", now).is_err());
        assert!(parse("sinceTime=never", now).is_err());
    }
}
