//! Growing pauses between attempts.

use std::time::Duration;

use rand::RngExt as _;

/// Pauses that double up to a cap, each shortened at random by up to half, so that clients that failed together do not retry together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// The first pause is at most `first`, and none is longer than `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        let first = first.min(cap);
        Self { first, cap, next: first }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.cap);
        pause.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// After a success: the next failure starts again with the first pause.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_start_over() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(350));
        for most in [100, 200, 350, 350] {
            let pause = backoff.pause();
            assert!(pause >= ms(most / 2) && pause <= ms(most), "{pause:?} of {most} ms");
        }
        backoff.reset();
        assert!(backoff.pause() <= ms(100));
    }
}
