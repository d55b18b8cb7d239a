//! Small pure helpers that know nothing of Kubernetes or Mesos beyond their value formats. No I/O.

pub mod address;
pub mod backoff;
pub mod cidr;
pub mod cron;
pub mod duration;
pub mod go;
pub mod go_json;
pub mod ini;
pub mod json;
pub mod names;
pub mod portion;
pub mod product;
pub mod quantity;
pub mod url;
pub mod version;
pub mod websocket;
