//! A rate limit for a client's calls.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A bucket of permits that fills at a constant rate. If it is empty, a caller gets a future permit and the time to wait for it.
#[derive(Debug)]
pub(super) struct Limiter {
    interval: Duration,
    burst: u32,
    /// When the bucket would be full without further calls.
    full_at: Mutex<Option<Instant>>,
}

impl Limiter {
    pub(super) fn new(per_second: f64, burst: u32) -> Self {
        Self { interval: Duration::from_secs_f64(per_second.max(1e-6).recip()), burst: burst.max(1), full_at: Mutex::default() }
    }

    /// Takes a permit, valid after the returned time.
    fn take(&self, now: Instant) -> Duration {
        let mut full_at = self.full_at.lock();
        let next = full_at.map_or(now, |at| at.max(now)) + self.interval;
        *full_at = Some(next);
        (next - now).saturating_sub(self.interval * self.burst)
    }

    /// Waits for a permit.
    pub(super) async fn wait(&self) {
        let pause = self.take(Instant::now());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let limiter = Limiter::new(10.0, 3);
        let start = Instant::now();
        let ms = Duration::from_millis;
        let taken: Vec<_> = (0..5).map(|_| limiter.take(start)).collect();
        assert_eq!(taken, [ms(0), ms(0), ms(0), ms(100), ms(200)]);
        assert_eq!(limiter.take(start + ms(1_000)), ms(0));
    }
}
