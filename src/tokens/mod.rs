//! The tokens of service accounts, apart from the objects that they name: keys that sign and verify, JSON Web Tokens, and the claims of
//! tokens in secrets. No I/O.

mod der;
pub(crate) mod jwt;
mod keys;
pub(crate) mod legacy;

pub use keys::{KeyError, PublicKey, SigningKey};
