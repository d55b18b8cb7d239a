//! Sets of completion indexes, in the form in which a job's status has them: `1,3-5,7`.

use std::collections::BTreeSet;
use std::fmt;

/// Completion indexes, ascending. A job has at most 100,000 of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(BTreeSet<u32>);

impl Indexes {
    pub fn insert(&mut self, index: u32) -> bool {
        self.0.insert(index)
    }

    pub fn contains(&self, index: u32) -> bool {
        self.0.contains(&index)
    }

    pub fn count(&self) -> i64 {
        self.0.len() as i64
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }

    /// Parses the indexes in a status; ignores invalid ones and those not below `completions`, because the job may have become smaller, and
    /// any client may have written the status.
    pub fn read(text: &str, completions: i64) -> Self {
        let mut all = BTreeSet::new();
        let below = u32::try_from(completions).unwrap_or_default();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
                all.extend(first..last.saturating_add(1).min(below));
            }
        }
        Self(all)
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while rest.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_in_a_row_are_a_range() {
        for (text, indexes) in [("", &[][..]), ("0", &[0]), ("0,1", &[0, 1]), ("0-2", &[0, 1, 2]), ("1,3-5,7,8", &[1, 3, 4, 5, 7, 8])] {
            let set = Indexes::read(text, 10);
            assert_eq!(set.iter().collect::<Vec<_>>(), indexes);
            assert_eq!(set.to_string(), text);
        }
        for (text, completions, read) in
            [("0-5,9", 3, "0-2"), ("0-4294967295", 3, "0-2"), ("4294967295,4-2,1-x", 9, ""), ("0-99999999", 0, ""), ("0-99999999", -1, "")]
        {
            assert_eq!(Indexes::read(text, completions).to_string(), read);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(indexes in proptest::collection::btree_set(0_u32..300, 0..80)) {
            let set = Indexes(indexes);
            prop_assert_eq!(Indexes::read(&set.to_string(), 300), set);
        }
    }
}
