//! Spreads endpoints over slices of a limited size, so that a change of few endpoints changes few slices. Pure.

use std::collections::HashMap;

/// An endpoint is known again by this, such as the uid of its pod.
pub(super) type Identity = String;

/// The new content of one slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed<E> {
    /// Index of the existing slice; `None` for a new one.
    pub slice: Option<usize>,
    pub endpoints: Vec<E>,
}

/// Distributes endpoints over slices: endpoints in a slice stay there; others fill slices that change anyway, then the fullest one with
/// room for all the rest, then new ones. Slices missing in the result have become empty.
pub(super) fn pack<E>(existing: &[Vec<Identity>], endpoints: Vec<(Identity, E)>, size: usize) -> Vec<Packed<E>> {
    let place: HashMap<&str, (usize, usize)> = existing
        .iter()
        .enumerate()
        .flat_map(|(slice, all)| all.iter().enumerate().map(move |(at, identity)| (identity.as_str(), (slice, at))))
        .collect();
    let mut kept: Vec<Vec<(usize, E)>> = existing.iter().map(|_| Vec::new()).collect();
    let mut fresh = Vec::new();
    for (identity, endpoint) in endpoints {
        match place.get(identity.as_str()).filter(|(slice, _)| kept[*slice].len() < size) {
            Some((slice, at)) => kept[*slice].push((*at, endpoint)),
            None => fresh.push(endpoint),
        }
    }
    let mut slices: Vec<Packed<E>> = Vec::new();
    let mut loses = Vec::new();
    for (at, mut kept) in kept.into_iter().enumerate() {
        // In their existing order.
        kept.sort_by_key(|it| it.0);
        loses.push(kept.len() < existing[at].len());
        slices.push(Packed { slice: Some(at), endpoints: kept.into_iter().map(|it| it.1).collect() });
    }
    let mut fresh = fresh.into_iter();
    for (slice, _) in slices.iter_mut().zip(&loses).filter(|it| *it.1) {
        let room = size - slice.endpoints.len();
        slice.endpoints.extend(fresh.by_ref().take(room));
    }
    let mut fresh: Vec<E> = fresh.collect();
    while fresh.len() >= size {
        let rest = fresh.split_off(size);
        slices.push(Packed { slice: None, endpoints: std::mem::replace(&mut fresh, rest) });
    }
    if !fresh.is_empty() {
        let fits =
            slices.iter_mut().filter(|it| it.slice.is_some() && !it.endpoints.is_empty() && it.endpoints.len() + fresh.len() <= size);
        match fits.max_by_key(|it| it.endpoints.len()) {
            Some(slice) => slice.endpoints.extend(fresh),
            // An empty slice is used like a new one.
            None => match slices.iter_mut().find(|it| it.endpoints.is_empty()) {
                Some(slice) => slice.endpoints = fresh,
                None => slices.push(Packed { slice: None, endpoints: fresh }),
            },
        }
    }
    slices.retain(|it| !it.endpoints.is_empty());
    slices
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(existing: &[Vec<u32>], wanted: &[u32], size: usize) -> Vec<Packed<u32>> {
        let existing: Vec<Vec<Identity>> = existing.iter().map(|it| it.iter().map(u32::to_string).collect()).collect();
        pack(&existing, wanted.iter().map(|it| (it.to_string(), *it)).collect(), size)
    }

    fn slice(at: impl Into<Option<usize>>, endpoints: &[u32]) -> Packed<u32> {
        Packed { slice: at.into(), endpoints: endpoints.to_vec() }
    }

    #[test]
    fn few_slices_change() {
        // Others are not touched by one that leaves, or one that fits somewhere.
        assert_eq!(packed(&[vec![1, 2], vec![3, 4]], &[1, 2, 4], 2), [slice(0, &[1, 2]), slice(1, &[4])]);
        assert_eq!(packed(&[vec![1, 2], vec![3]], &[1, 2, 3, 4], 2), [slice(0, &[1, 2]), slice(1, &[3, 4])]);
        // The slice that changes anyway takes the new one, though another has room.
        assert_eq!(packed(&[vec![1], vec![2, 3]], &[1, 3, 4], 3), [slice(0, &[1]), slice(1, &[3, 4])]);
        assert_eq!(packed(&[vec![1, 2]], &[1, 2, 3], 2), [slice(0, &[1, 2]), slice(None, &[3])]);
        assert_eq!(packed(&[], &[1, 2, 3, 4, 5], 2), [slice(None, &[1, 2]), slice(None, &[3, 4]), slice(None, &[5])]);
        assert_eq!(packed(&[vec![1], vec![2]], &[2], 2), [slice(1, &[2])]);
        // Smaller slices than before.
        assert_eq!(packed(&[vec![1, 2, 3]], &[1, 2, 3], 2), [slice(0, &[1, 2]), slice(None, &[3])]);
    }

    proptest! {
        #[test]
        fn every_endpoint_is_in_one_slice_and_stays_there(
            steps in prop::collection::vec(prop::collection::btree_set(0..60_u32, 0..40), 1..8),
            size in 1..9_usize,
        ) {
            let mut slices: Vec<Vec<u32>> = Vec::new();
            for wanted in steps {
                let wanted: Vec<u32> = wanted.into_iter().collect();
                let after = packed(&slices, &wanted, size);
                let mut all: Vec<u32> = after.iter().flat_map(|it| it.endpoints.clone()).collect();
                all.sort_unstable();
                prop_assert_eq!(&all, &wanted);
                prop_assert!(after.iter().all(|it| !it.endpoints.is_empty() && it.endpoints.len() <= size));
                for (at, before) in slices.iter().enumerate() {
                    let now = after.iter().find(|it| it.slice == Some(at));
                    for endpoint in before.iter().filter(|it| wanted.contains(it)) {
                        prop_assert!(now.is_some_and(|it| it.endpoints.contains(endpoint)), "{endpoint} moved");
                    }
                }
                slices = after.into_iter().map(|it| it.endpoints).collect();
            }
        }
    }
}
