//! TLS: verification of the servers' certificates, and the client's own.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier};

use super::kubeconfig::Access;

/// Where distributions keep the certificates of public authorities.
const SYSTEM: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// # Errors
/// If the certificates or the key are not PEM, or do not belong together.
pub(super) fn client_config(access: &Access) -> anyhow::Result<ClientConfig> {
    let builder = if access.insecure { unverified()? } else { builder()?.with_root_certificates(roots(access)?) };
    let Some((chain, key)) = &access.credentials.certificate else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(chain).context("client certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key).context("client key")?;
    builder.with_client_auth_cert(chain, key).context("client certificate and key")
}

/// A configuration that accepts any certificate.
///
/// # Errors
/// If the library has no protocol version to offer.
pub fn unverified() -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let any = Arc::new(Anything(ring::default_provider()));
    Ok(builder()?.dangerous().with_custom_certificate_verifier(any))
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()
}

fn roots(access: &Access) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match &access.ca {
        Some(pem) => {
            for certificate in certificates(pem).context("certificate authority")? {
                roots.add(certificate).context("certificate authority")?;
            }
        }
        None => {
            let Some(pem) = SYSTEM.iter().find_map(|path| std::fs::read(path).ok()) else {
                bail!("no certificate authority given, and the system has none");
            };
            // Certificates of unsupported kinds are skipped.
            roots.add_parsable_certificates(certificates(&pem)?);
        }
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().context("not PEM")?;
    if found.is_empty() {
        bail!("there is no certificate in it");
    }
    Ok(found)
}

/// Accepts any certificate (`insecure-skip-tls-verify`), but still checks that the server has its key.
#[derive(Debug)]
struct Anything(CryptoProvider);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
