//! The client, its connections and its feeder against servers that misbehave.

#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod feeder;
mod http;
mod server;
