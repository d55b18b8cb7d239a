//! Texts such as `1,3-5` that name indexes of a job's pods.

/// The first and the last of an interval of indexes below `completions`.
fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let number = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
        Ok(number) if number >= completions => Err(format!("too large index: {text:?}")),
        Ok(number) => Ok(number),
    };
    let parts: Vec<&str> = text.split('-').collect();
    match parts[..] {
        [one] => number(one).map(|it| (it, it)),
        [first, last] => match (number(first)?, number(last)?) {
            (first, last) if first >= last => Err(format!("non-increasing order, previous: {first}, current: {last}")),
            both => Ok(both),
        },
        _ => {
            let why = "violates the requirement that an index interval can have at most two parts separated by '-'";
            Err(format!("the fragment {text:?} {why}"))
        }
    }
}

/// The number of indexes in a text.
///
/// # Errors
/// If an index is not below `completions`, or they are not in order.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut previous) = (0, None);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = interval(part, completions)?;
        if let Some(previous) = previous.filter(|it| *it >= first) {
            return Err(format!("non-increasing order, previous: {previous}, current: {first}"));
        }
        total += last - first + 1;
        previous = Some(last);
    }
    Ok(total)
}

/// The first index in both texts; invalid parts are ignored.
pub(super) fn common(one: &str, other: &str, completions: i64) -> Option<i64> {
    let intervals = |text: &str| -> Vec<(i64, i64)> { text.split(',').filter_map(|it| interval(it, completions).ok()).collect() };
    let (one, other) = (intervals(one), intervals(other));
    let (mut at, mut beside) = (0, 0);
    while let (Some(a), Some(b)) = (one.get(at), other.get(beside)) {
        if a.0 <= b.1 && b.0 <= a.1 {
            return Some(a.0.max(b.0));
        }
        if a.0 <= b.0 { at += 1 } else { beside += 1 }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (text, expected) in [
            ("", Ok(0)),
            ("0", Ok(1)),
            ("0,2-4", Ok(4)),
            ("5", Err("too large index: \"5\"")),
            ("0-5", Err("too large index: \"5\"")),
            ("x", Err("cannot convert string to integer for index: \"x\"")),
            ("-1", Err("cannot convert string to integer for index: \"\"")),
            ("2,1", Err("non-increasing order, previous: 2, current: 1")),
            ("2-2", Err("non-increasing order, previous: 2, current: 2")),
            (
                "0-1-2",
                Err("the fragment \"0-1-2\" violates the requirement that an index interval can have at most two parts separated by '-'"),
            ),
        ] {
            assert_eq!(count(text, 5), expected.map_err(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn what_two_have_in_common() {
        for (one, other, expected) in
            [("", "", None), ("0,2", "1,3", None), ("0-3", "2", Some(2)), ("4", "0-1,3-4", Some(4)), ("x,3", "9,3", Some(3))]
        {
            assert_eq!(common(one, other, 5), expected, "{one} {other}");
        }
    }
}
