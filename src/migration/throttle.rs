//! How fast objects are started: so many at once, so many a second, so many bytes a second, so much memory.
//!
//! How many requests are in flight is the store's own matter: it halves them when the service says slow down, and raises
//! them again one by one. What is here are the limits that a user sets to be kind to others.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::config::RunConfig;
use crate::error::{Error, Result};

/// Units of memory.
const UNIT: u64 = 64 << 10;

/// The limits of a run.
#[derive(Debug)]
pub struct Throttle {
    objects: Option<Pace>,
    bytes: Option<Pace>,
    memory: Semaphore,
    units: u32,
}

/// The right to hold memory until it is dropped.
#[derive(Debug)]
pub struct Admitted<'a>(#[expect(dead_code, reason = "held, not read")] SemaphorePermit<'a>);

impl Throttle {
    /// The limits of a configuration.
    #[must_use]
    pub fn new(run: &RunConfig) -> Self {
        let units = u32::try_from((run.memory / UNIT).max(1)).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4);
        Self {
            objects: run.rate.map(Pace::new),
            bytes: run.bytes_per_second.map(Pace::new),
            memory: Semaphore::new(units as usize),
            units,
        }
    }

    /// Waits until an object may start that moves `bytes` and holds `memory` at once. One that needs more than all memory
    /// runs alone.
    ///
    /// # Errors
    /// `Internal` where the throttle is broken.
    pub async fn admit(&self, bytes: u64, memory: u64) -> Result<Admitted<'_>> {
        let units = u32::try_from(memory.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.units);
        let admitted = self.memory.acquire_many(units).await;
        let admitted = admitted.map_err(|_| Error::internal("the throttle was closed"))?;
        if let Some(pace) = &self.objects {
            pace.wait(1.0).await;
        }
        if let Some(pace) = &self.bytes {
            pace.wait(bytes as f64).await;
        }
        Ok(Admitted(admitted))
    }
}

/// An even pace: each thing is given its moment, and takes up time by its weight.
#[derive(Debug)]
struct Pace {
    per_second: f64,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    fn new(per_second: f64) -> Self {
        Self { per_second, next: Mutex::new(None) }
    }

    async fn wait(&self, weight: f64) {
        let moment = self.reserve(Instant::now(), weight);
        tokio::time::sleep_until(moment).await;
    }

    /// The moment of a thing that asks at `now`; what comes after it waits for its weight.
    fn reserve(&self, now: Instant, weight: f64) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = next.map_or(now, |next| next.max(now));
        let weight = Duration::try_from_secs_f64(weight / self.per_second).unwrap_or(Duration::from_hours(1));
        *next = Some(moment + weight);
        moment
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::block_on;

    #[test]
    fn things_start_at_an_even_pace_and_rest_is_not_saved_up() {
        let pace = Pace::new(10.0);
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(pace.reserve(start, 1.0), start);
        assert_eq!(pace.reserve(start, 2.0), after(100));
        assert_eq!(pace.reserve(start, 1.0), after(300));
        assert_eq!(pace.reserve(after(5000), 1.0), after(5000));
        assert_eq!(pace.reserve(after(5000), 1.0), after(5100));
    }

    #[test]
    fn memory_is_held_until_it_is_given_back_and_the_largest_runs_alone() {
        let throttle = Throttle::new(&RunConfig { memory: 4 * UNIT, ..RunConfig::default() });
        block_on(async {
            let first = throttle.admit(0, 3 * UNIT).await.unwrap();
            assert_eq!(throttle.memory.available_permits(), 1);
            let second = tokio::time::timeout(Duration::from_millis(20), throttle.admit(0, 2 * UNIT)).await;
            assert!(second.is_err(), "no room");
            drop(first);
            let alone = throttle.admit(0, u64::MAX).await.unwrap();
            assert_eq!(throttle.memory.available_permits(), 0);
            drop(alone);
            assert_eq!(throttle.memory.available_permits(), 4);
        });
    }
}
