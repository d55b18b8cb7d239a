//! Images: fetching them, and making one of a tar.

use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptions;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use super::Credentials;

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
    let mut steps = std::pin::pin!(api.create_image(Some(options), None, credentials));
    while let Some(step) = steps.try_next().await? {
        if let Some(status) = step.status {
            progress(&status);
        }
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
    api.create_image(Some(options), Some(body), None).try_for_each(async |_| Ok(())).await
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
    use super::split;

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
