//! Which container of a pod a request means.

use serde_json::Value;

use super::error::{Answer, bad};
use crate::util::json;

/// The one that is asked for, or the only one.
///
/// # Errors
/// 400 for one that is not there, and where there are several and none is named.
pub(crate) fn container(pod: &Value, asked: Option<&str>) -> Answer<String> {
    let name = json::text(pod, "/metadata/name");
    let names = |field: &str| -> Vec<String> {
        json::items(pod, &format!("/spec/{field}")).iter().map(|it| json::text(it, "/name").to_owned()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let Some(asked) = asked else {
        if let ([only], true) = (main.as_slice(), init.is_empty()) {
            return Ok(only.clone());
        }
        let mut message = format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
        for (what, names) in [("init", init), ("ephemeral", ephemeral)] {
            if !names.is_empty() {
                message.push_str(&format!(" or one of the {what} containers: [{}]", names.join(" ")));
            }
        }
        return Err(bad(message));
    };
    if [main, init, ephemeral].iter().flatten().any(|it| it == asked) {
        return Ok(asked.to_owned());
    }
    Err(bad(format!("container {asked} is not valid for pod {name}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_named_or_the_only_one() {
        let one = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}]}});
        let two =
            json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, None).unwrap(), "a");
        assert_eq!(container(&two, Some("i")).unwrap(), "i");
        let message = |pod, asked| container(pod, asked).unwrap_err().message;
        assert_eq!(
            message(&two, None),
            "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(message(&one, Some("x")), "container x is not valid for pod web");
    }
}
