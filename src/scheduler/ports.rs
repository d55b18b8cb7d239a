//! Port numbers as ordered, disjoint ranges: the remaining ports of an offer.

/// A set of ports. Ranges are inclusive, ascending, and never touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet {
    ranges: Vec<(u16, u16)>,
}

impl PortSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds every port of an inclusive range; numbers that are not ports are ignored.
    pub fn insert(&mut self, begin: u64, end: u64) {
        let (Ok(begin), end) = (u16::try_from(begin), end.min(u64::from(u16::MAX)) as u16) else { return };
        if begin > end {
            return;
        }
        let (mut low, mut high) = (begin, end);
        let first = self.ranges.partition_point(|range| u32::from(range.1) + 1 < u32::from(low));
        let mut last = first;
        while let Some(range) = self.ranges.get(last).filter(|range| u32::from(range.0) <= u32::from(high) + 1) {
            (low, high) = (low.min(range.0), high.max(range.1));
            last += 1;
        }
        self.ranges.splice(first..last, [(low, high)]);
    }

    pub fn contains(&self, port: u16) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < port);
        self.ranges.get(at).is_some_and(|range| range.0 <= port)
    }

    /// Removes a port; returns whether it was in the set.
    pub fn take(&mut self, port: u16) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < port);
        let Some(&(low, high)) = self.ranges.get(at).filter(|range| range.0 <= port) else { return false };
        match (low == port, high == port) {
            (true, true) => {
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at].0 += 1,
            (false, true) => self.ranges[at].1 -= 1,
            (false, false) => {
                self.ranges[at].1 = port - 1;
                self.ranges.insert(at + 1, (port + 1, high));
            }
        }
        true
    }

    /// Removes the lowest port. Skips port 0, which cannot be bound.
    pub fn take_lowest(&mut self) -> Option<u16> {
        let lowest = self.ranges.iter().find(|range| range.1 > 0)?.0.max(1);
        self.take(lowest);
        Some(lowest)
    }

    pub fn len(&self) -> usize {
        self.ranges.iter().map(|range| usize::from(range.1 - range.0) + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_join_and_split() {
        let mut ports = PortSet::new();
        ports.insert(10, 20);
        ports.insert(30, 40);
        ports.insert(21, 29);
        assert_eq!(ports.ranges, [(10, 40)]);
        assert!(ports.take(25) && !ports.take(25));
        assert_eq!(ports.ranges, [(10, 24), (26, 40)]);
        assert_eq!(ports.take_lowest(), Some(10));
        ports.insert(65_530, 70_000);
        assert_eq!(ports.len(), 14 + 15 + 6);
        assert!(ports.contains(u16::MAX));
        let mut zero = PortSet::new();
        zero.insert(0, 1);
        assert_eq!((zero.take_lowest(), zero.take_lowest()), (Some(1), None));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in proptest::collection::vec((0u8..3, 1u64..80, 0u64..12), 0..60)) {
            let (mut ports, mut model) = (PortSet::new(), BTreeSet::new());
            for (step, port, width) in steps {
                match step {
                    0 => {
                        ports.insert(port, port + width);
                        model.extend(port..=port + width);
                    }
                    1 => prop_assert_eq!(ports.take(port as u16), model.remove(&port)),
                    _ => prop_assert_eq!(ports.take_lowest().map(u64::from), model.pop_first()),
                }
                prop_assert_eq!(ports.len(), model.len());
                prop_assert!(ports.ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
        }
    }
}
