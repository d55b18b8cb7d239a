//! The addresses of the API servers and the credentials for them: from a kubeconfig file, from `--master host:port`, or both.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Uri;
use serde::Deserialize;

use crate::codec::yaml;

/// How to reach a set of API server replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `http://…` or `https://…`, optionally with a path. The first that answers is used.
    pub servers: Vec<Uri>,
    /// Certificate authorities (PEM) that the servers' certificates are checked against; the system's if `None`.
    pub ca: Option<Vec<u8>>,
    /// The expected name in the servers' certificates, if not the host of the URL.
    pub server_name: Option<String>,
    /// Accept any certificate.
    pub insecure: bool,
    pub credentials: Credentials,
    /// The default namespace of `kubectl`.
    pub namespace: Option<String>,
}

/// The client's credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub token: Option<Token>,
    /// User and password.
    pub basic: Option<(String, String)>,
    /// Certificate chain and key, PEM.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    Text(String),
    /// A file whose content may change; read again periodically.
    File(PathBuf),
}

/// Shows no secrets.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [("token", self.token.is_some()), ("basic", self.basic.is_some()), ("certificate", self.certificate.is_some())];
        f.debug_list().entries(kinds.iter().filter(|(_, has)| *has).map(|(kind, _)| kind)).finish()
    }
}

/// Shows no secrets.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Access {
    /// From the flags `--master` (or `--api-servers`) and `--kubeconfig`; addresses in the former take precedence.
    ///
    /// # Errors
    /// If neither names a server, or a value is invalid.
    pub fn load(masters: &[String], kubeconfig: Option<&Path>) -> anyhow::Result<Self> {
        let mut access = match kubeconfig {
            Some(path) => Self::from_file(path)?,
            None => Self::default(),
        };
        if !masters.is_empty() {
            access.servers = masters.iter().map(|master| server(master)).collect::<anyhow::Result<_>>()?;
        }
        if access.servers.is_empty() {
            bail!("no API server given: neither its address nor a kubeconfig");
        }
        Ok(access)
    }

    /// Reads the current context of a kubeconfig file.
    ///
    /// # Errors
    /// If the file cannot be read, is not a kubeconfig, or needs an unsupported feature.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read kubeconfig {}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, folder).with_context(|| format!("in kubeconfig {}", path.display()))
    }

    /// As [`Access::from_file`], from text; relative file names in it start from `folder`.
    ///
    /// # Errors
    /// As [`Access::from_file`].
    pub fn parse(text: &str, folder: &Path) -> anyhow::Result<Self> {
        let document = yaml::read(text.as_bytes()).map_err(anyhow::Error::msg)?;
        let file: File = serde_json::from_value(document.value)?;
        let Some(context) = find(&file.contexts, &file.current_context) else {
            bail!("there is no context {:?}, which current-context names", file.current_context);
        };
        let context = context.context.clone().unwrap_or_default();
        let Some(cluster) = find(&file.clusters, &context.cluster).and_then(|it| it.cluster.clone()) else {
            bail!("there is no cluster {:?}, which context {:?} names", context.cluster, file.current_context);
        };
        let user = match find(&file.users, &context.user) {
            Some(named) => named.user.clone().unwrap_or_default(),
            None if context.user.is_empty() => User::default(),
            None => bail!("there is no user {:?}, which context {:?} names", context.user, file.current_context),
        };
        if user.exec.is_some() || user.auth_provider.is_some() {
            bail!("user {:?} has a credential plugin, which is not supported: use a token or a certificate", context.user);
        }
        let certificate = material(&user.client_certificate_data, &user.client_certificate, folder).context("client-certificate")?;
        let key = material(&user.client_key_data, &user.client_key, folder).context("client-key")?;
        let credentials = Credentials {
            token: match (user.token, user.token_file) {
                (Some(token), _) if !token.is_empty() => Some(Token::Text(token)),
                (_, Some(file)) => Some(Token::File(folder.join(file))),
                _ => None,
            },
            basic: user.username.filter(|it| !it.is_empty()).map(|name| (name, user.password.unwrap_or_default())),
            certificate: match (certificate, key) {
                (Some(certificate), Some(key)) => Some((certificate, key)),
                (None, None) => None,
                _ => bail!("user {:?} has only one of client-certificate and client-key", context.user),
            },
        };
        Ok(Self {
            servers: vec![server(&cluster.server)?],
            ca: material(&cluster.certificate_authority_data, &cluster.certificate_authority, folder).context("certificate-authority")?,
            server_name: cluster.tls_server_name,
            insecure: cluster.insecure_skip_tls_verify,
            credentials,
            namespace: context.namespace.filter(|it| !it.is_empty()),
        })
    }
}

/// `host:port` or a URL.
fn server(text: &str) -> anyhow::Result<Uri> {
    let text = text.trim();
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = url.parse().with_context(|| format!("{text:?} is not the address of an API server"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        _ => bail!("{text:?} is not the address of an API server: expected host:port, http://… or https://…"),
    }
}

/// Bytes that are inline in the file, or in another file that it names.
fn material(data: &Option<String>, file: &Option<PathBuf>, folder: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    if let Some(data) = data.as_ref().filter(|it| !it.is_empty()) {
        return Ok(Some(BASE64.decode(data.trim()).context("the data is not base64")?));
    }
    let Some(file) = file.as_ref().filter(|it| !it.as_os_str().is_empty()) else { return Ok(None) };
    let path = folder.join(file);
    Ok(Some(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?))
}

fn find<'a>(list: &'a Option<Vec<Named>>, name: &str) -> Option<&'a Named> {
    list.iter().flatten().find(|it| it.name == name)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Option<Vec<Named>>,
    #[serde(default)]
    clusters: Option<Vec<Named>>,
    #[serde(default)]
    users: Option<Vec<Named>>,
}

/// An entry of any of the three lists; only the part of its list is set.
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
    context: Option<Context>,
    cluster: Option<Cluster>,
    user: Option<User>,
}

#[derive(Clone, Default, Deserialize)]
struct Context {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    user: String,
    namespace: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, uri) in [
            ("10.0.0.1:8888", "http://10.0.0.1:8888/"),
            ("https://api:6443", "https://api:6443/"),
            ("http://proxy/cluster/a/", "http://proxy/cluster/a/"),
            ("[::1]:8080", "http://[::1]:8080/"),
        ] {
            assert_eq!(server(text).unwrap().to_string(), uri);
        }
        for text in ["", "ftp://a", "http://", "a b"] {
            assert!(server(text).is_err(), "{text:?}");
        }
        let error = Access::load(&[], None).unwrap_err();
        assert_eq!(error.to_string(), "no API server given: neither its address nor a kubeconfig");
        assert_eq!(Access::load(&["a:1".to_owned(), "b:2".to_owned()], None).unwrap().servers.len(), 2);
    }

    #[test]
    fn files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), "CA").unwrap();
        let text = r"
apiVersion: v1
kind: Config
current-context: dev
preferences: {}
contexts:
- {name: other, context: {cluster: x, user: z}}
- {name: dev, context: {cluster: c, user: u, namespace: team}}
clusters:
- name: c
  cluster: {server: 'https://1.2.3.4:6443', certificate-authority: ca.crt, tls-server-name: kubernetes}
users:
- name: u
  user: {token: secret, client-certificate-data: Q0VSVA==, client-key-data: S0VZ}
";
        let access = Access::parse(text, folder.path()).unwrap();
        assert_eq!(access.servers[0].to_string(), "https://1.2.3.4:6443/");
        assert_eq!((access.ca.as_deref(), access.server_name.as_deref()), (Some(&b"CA"[..]), Some("kubernetes")));
        assert_eq!(access.credentials.certificate, Some((b"CERT".to_vec(), b"KEY".to_vec())));
        assert_eq!(access.credentials.token, Some(Token::Text("secret".to_owned())));
        assert_eq!(access.namespace.as_deref(), Some("team"));
        assert!(!format!("{access:?}").contains("secret"));
        for (change, why) in [
            (("current-context: dev", "current-context: none"), "there is no context \"none\", which current-context names"),
            (("cluster: c", "cluster: d"), "there is no cluster \"d\", which context \"dev\" names"),
            (("user: u,", "user: v,"), "there is no user \"v\", which context \"dev\" names"),
            (
                ("token: secret", "exec: {command: x}"),
                "user \"u\" has a credential plugin, which is not supported: use a token or a certificate",
            ),
            ((", client-key-data: S0VZ", ""), "user \"u\" has only one of client-certificate and client-key"),
            (("ca.crt", "none.crt"), "certificate-authority"),
        ] {
            let error = Access::parse(&text.replace(change.0, change.1), folder.path()).unwrap_err();
            assert_eq!(error.to_string(), why);
        }
    }
}
