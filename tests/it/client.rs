//! The client, its connections and its feeder against servers that misbehave.

mod feeder;
mod http;
mod server;
