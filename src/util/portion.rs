//! Numbers that may be given as a percentage, such as `maxUnavailable: 25%`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The rounding of fractions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

/// The number itself, or the percentage of `total`. `None` for a text that is not a percentage.
pub fn portion(value: &IntOrString, total: i64, round: Round) -> Option<i64> {
    match value {
        IntOrString::Int(number) => Some(i64::from(*number)),
        IntOrString::String(text) => {
            let hundredths = total.checked_mul(text.strip_suffix('%')?.parse::<i64>().ok()?)?;
            Some(match round {
                Round::Up => hundredths.div_euclid(100) + i64::from(hundredths.rem_euclid(100) > 0),
                Round::Down => hundredths.div_euclid(100),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded_as_asked() {
        let text = |it: &str| IntOrString::String(it.to_owned());
        for (value, total, up, down) in [
            (IntOrString::Int(3), 10, Some(3), Some(3)),
            (text("25%"), 10, Some(3), Some(2)),
            (text("50%"), 10, Some(5), Some(5)),
            (text("0%"), 10, Some(0), Some(0)),
            (text("100%"), 7, Some(7), Some(7)),
            (text("1%"), 0, Some(0), Some(0)),
            (text("3"), 10, None, None),
            (text("x%"), 10, None, None),
        ] {
            assert_eq!((portion(&value, total, Round::Up), portion(&value, total, Round::Down)), (up, down), "{value:?} of {total}");
        }
    }
}
