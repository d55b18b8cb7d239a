//! The pool of automatic allocation, and its order: random, skipping the part that is reserved for explicit requests.

use std::collections::HashSet;
use std::ops::Range;

use super::super::Server;
use super::super::error::Answer;
use super::super::freshness::Freshness;
use super::claim::{self, Claim};
use crate::cache::Query;
use crate::object::resource::{IP_ADDRESS, SERVICE_CIDR};
use crate::object::{Object, service_range};
use crate::util::cidr::Cidr;

/// Only this much of a larger range is used.
const LARGEST: u128 = 1 << 20;

/// The claimable values, by index.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pool {
    Addresses(Cidr),
    Ports,
}

impl Pool {
    /// Indexes that may be given out unasked.
    pub(super) fn indexes(self, server: &Server) -> Range<u128> {
        match self {
            // Neither the network's own address nor the broadcast address.
            Self::Addresses(range) => 1..range.size().min(LARGEST).saturating_sub(u128::from(range.is_ipv4())).max(1),
            Self::Ports => 0..server.config.node_ports.len() as u128,
        }
    }

    pub(super) fn nth(self, server: &Server, index: u128) -> Option<Claim> {
        match self {
            Self::Addresses(range) => range.nth(index).map(Claim::Address),
            Self::Ports => server.config.node_ports.clone().nth(usize::try_from(index).ok()?).map(Claim::Port),
        }
    }

    /// Everything that is taken.
    pub(super) async fn taken(self, server: &Server) -> Answer<HashSet<Claim>> {
        match self {
            Self::Addresses(_) => {
                server.freshen(&IP_ADDRESS, Freshness::Newest).await?;
                let addresses = server.cache.list(&IP_ADDRESS, &Query::default()).objects;
                Ok(addresses.iter().filter_map(|it| it.name().parse().ok()).map(Claim::Address).collect())
            }
            Self::Ports => Ok(claim::ports(server).await?.into_iter().map(|(claim, ..)| claim).collect()),
        }
    }
}

/// The range without its first part, which is allocated last, so that explicit requests for values in it likely succeed.
pub(super) fn unasked(indexes: &Range<u128>) -> Range<u128> {
    let all = indexes.end - indexes.start;
    indexes.start + (all / 16).clamp(16, 256).min(all)..indexes.end
}

/// The ranges that addresses may be given out of: that of the command line first.
pub(super) fn ranges(server: &Server) -> Vec<Cidr> {
    let own = server.config.service_range;
    let all = server.cache.list(&SERVICE_CIDR, &Query::default()).objects;
    let ready = all.iter().filter(|it| service_range::is_ready(it)).flat_map(|it: &std::sync::Arc<Object>| service_range::ranges(it));
    let mut ranges: Vec<Cidr> = ready.filter(|it| it.is_ipv4() == own.is_ipv4()).collect();
    ranges.sort_by_key(|it| *it != own);
    ranges
}
