//! Images: fetching them, and making one of a tar.

use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptions;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};

use super::Credentials;

/// How long a pull may make no progress, before and after the registry has answered.
const PULL_STALLED: Duration = Duration::from_secs(60);
/// The same of an import, whose answer begins once all is there.
const IMPORT_STALLED: Duration = Duration::from_secs(600);

/// Pulls one image. Without a tag or digest the tag is `latest`: the engine alone would take every tag there is.
pub(super) async fn pull(
    api: &bollard::Docker,
    reference: &str,
    auth: Option<&Credentials>,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), Error> {
    let (name, tag) = split(reference);
    let options = CreateImageOptions { from_image: Some(name.to_owned()), tag: Some(tag.to_owned()), ..Default::default() };
    let credentials = auth.map(|auth| DockerCredentials {
        username: Some(auth.user.clone()),
        password: Some(auth.password.clone()),
        serveraddress: Some(auth.server.clone()),
        ..Default::default()
    });
    let steps = api.create_image(Some(options), None, credentials);
    each(steps, PULL_STALLED, |step| step.status.iter().for_each(|status| progress(status))).await
}

/// Goes through the steps of an engine's work, each of which has to come within `limit` of the last.
async fn each<T>(steps: impl Stream<Item = Result<T, Error>>, limit: Duration, mut see: impl FnMut(T)) -> Result<(), Error> {
    let mut steps = std::pin::pin!(steps);
    let stalled = |_| Error::DockerStreamError { error: format!("there was no progress for {} seconds", limit.as_secs()) };
    while let Some(step) = tokio::time::timeout(limit, steps.try_next()).await.map_err(stalled)?? {
        see(step);
    }
    Ok(())
}

pub(super) async fn import(
    api: &bollard::Docker,
    reference: &str,
    entrypoint: &[String],
    root: BoxStream<'static, Bytes>,
) -> Result<(), Error> {
    let (name, tag) = split(reference);
    let entrypoint = serde_json::to_string(entrypoint)?;
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(name.to_owned()),
        tag: Some(tag.to_owned()),
        changes: vec![format!("ENTRYPOINT {entrypoint}")],
        ..Default::default()
    };
    let body = bollard::body_try_stream(root.map(Ok::<_, std::io::Error>));
    each(api.create_image(Some(options), Some(body), None), IMPORT_STALLED, drop).await
}

/// Name, and tag or digest.
fn split(reference: &str) -> (&str, &str) {
    if let Some((name, digest)) = reference.split_once('@') {
        return (name, digest);
    }
    match reference.rsplit_once(':') {
        // A colon before the last slash belongs to a registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pull_goes_on_as_long_as_it_gets_on() {
        let limit = Duration::from_secs(60);
        let slow = |count| {
            futures_util::stream::iter(0..count).then(|step| async move {
                tokio::time::sleep(Duration::from_secs(50)).await;
                Ok(step)
            })
        };
        let mut seen = 0;
        each(slow(10), limit, |_| seen += 1).await.unwrap();
        assert_eq!(seen, 10);
        let began = tokio::time::Instant::now();
        let error = each(slow(2).chain(futures_util::stream::pending()), limit, drop).await.unwrap_err();
        assert!(error.to_string().contains("no progress for 60 seconds"), "{error}");
        assert_eq!(began.elapsed(), Duration::from_secs(2 * 50 + 60));
    }

    #[test]
    fn references_have_a_tag() {
        for (reference, expected) in [
            ("nginx", ("nginx", "latest")),
            ("nginx:1.27", ("nginx", "1.27")),
            ("r.example:5000/a/b", ("r.example:5000/a/b", "latest")),
            ("r.example:5000/a/b:v1", ("r.example:5000/a/b", "v1")),
            ("a/b@sha256:12", ("a/b", "sha256:12")),
            ("a/b:v1@sha256:12", ("a/b:v1", "sha256:12")),
        ] {
            assert_eq!(split(reference), expected);
        }
    }
}
