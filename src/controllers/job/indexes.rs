//! Sets of completion indexes, in the form in which a job's status has them: `1,3-5,7`.

use std::collections::BTreeMap;
use std::fmt;

/// Completion indexes as intervals, of which there are few even if there are billions of indexes: from the first index of each to its last.
/// Between two intervals is at least one index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(BTreeMap<u32, u32>);

impl Indexes {
    pub fn insert(&mut self, index: u32) {
        self.insert_all(index, index);
    }

    /// Inserts the indexes from `first` to `last`.
    pub fn insert_all(&mut self, mut first: u32, mut last: u32) {
        while let Some((&begin, &end)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            self.0.remove(&begin);
            (first, last) = (first.min(begin), last.max(end));
        }
        self.0.insert(first, last);
    }

    pub fn contains(&self, index: u32) -> bool {
        self.0.range(..=index).next_back().is_some_and(|(_, end)| index <= *end)
    }

    pub fn count(&self) -> i64 {
        self.0.iter().map(|(first, last)| length(*first, *last)).sum()
    }

    /// How many indexes are in both sets.
    pub fn count_common(&self, other: &Self) -> i64 {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut count = 0;
        while let (Some((first, last)), Some((begin, end))) = (ours.peek(), theirs.peek()) {
            count += length(*(*first).max(*begin), *(*last).min(*end)).max(0);
            if last <= end {
                ours.next()
            } else {
                theirs.next()
            };
        }
        count
    }

    /// Inserts all indexes of another set.
    pub fn extend(&mut self, other: &Self) {
        other.0.iter().for_each(|(first, last)| self.insert_all(*first, *last));
    }

    /// The indexes below `end` that are not in the set, ascending.
    pub fn gaps(&self, end: u32) -> impl Iterator<Item = u32> {
        let begins = std::iter::once(0).chain(self.0.values().map(|last| last.saturating_add(1)));
        let ends = self.0.keys().copied().chain([end]);
        begins.zip(ends).flat_map(move |(from, to)| from..to.min(end))
    }

    /// Parses the indexes in a status; ignores invalid ones and those not below `completions`, because the job may have become smaller, and
    /// any client may have written the status.
    pub fn read(text: &str, completions: i64) -> Self {
        let mut all = Self::default();
        let Some(highest) = u32::try_from(completions).ok().and_then(|it| it.checked_sub(1)) else { return all };
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>())
                && first <= last.min(highest)
            {
                all.insert_all(first, last.min(highest));
            }
        }
        all
    }
}

fn length(first: u32, last: u32) -> i64 {
    i64::from(last) - i64::from(first) + 1
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (first, last) in &self.0 {
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(indexes: &BTreeSet<u32>) -> Indexes {
        let mut set = Indexes::default();
        // In an order that joins and extends intervals.
        let (even, odd): (Vec<u32>, Vec<u32>) = indexes.iter().partition(|it| **it % 2 == 0);
        even.into_iter().chain(odd.into_iter().rev()).for_each(|it| set.insert(it));
        set
    }

    #[test]
    fn three_in_a_row_are_a_range() {
        for (text, indexes) in [("", &[][..]), ("0", &[0]), ("0,1", &[0, 1]), ("0-2", &[0, 1, 2]), ("1,3-5,7,8", &[1, 3, 4, 5, 7, 8])] {
            let read = Indexes::read(text, 10);
            assert_eq!(read, set(&indexes.iter().copied().collect()));
            assert_eq!(read.to_string(), text);
        }
        for (text, completions, read) in [
            ("0-5,9", 3, "0-2"),
            ("0-4294967295", 3, "0-2"),
            ("4294967295,4-2,1-x", 9, ""),
            ("0-99999999", 0, ""),
            ("0-99999999", -1, ""),
            ("5-9,0-5,7", 20, "0-9"),
        ] {
            assert_eq!(Indexes::read(text, completions).to_string(), read);
        }
    }

    #[test]
    fn billions_are_as_cheap_as_one() {
        let mut all = Indexes::read("0-1999999997", 2_000_000_000);
        assert_eq!((all.count(), all.count_common(&all)), (1_999_999_998, 1_999_999_998));
        assert_eq!(all.gaps(2_000_000_000).collect::<Vec<_>>(), [1_999_999_998, 1_999_999_999]);
        all.insert(1_999_999_998);
        assert_eq!(all.to_string(), "0-1999999998");
    }

    proptest! {
        #[test]
        fn they_are_sets(one in proptest::collection::btree_set(0_u32..300, 0..80), two in proptest::collection::btree_set(0_u32..300, 0..80)) {
            let (mut a, b) = (set(&one), set(&two));
            prop_assert_eq!(&Indexes::read(&a.to_string(), 300), &a);
            prop_assert_eq!((a.count(), b.count()), (one.len() as i64, two.len() as i64));
            prop_assert!((0..300).all(|it| a.contains(it) == one.contains(&it)));
            prop_assert_eq!(a.count_common(&b), one.intersection(&two).count() as i64);
            prop_assert_eq!(a.gaps(250).collect::<Vec<_>>(), (0..250).filter(|it| !one.contains(it)).collect::<Vec<_>>());
            a.extend(&b);
            prop_assert_eq!(a, set(&one.union(&two).copied().collect()));
        }
    }
}
