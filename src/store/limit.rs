//! How many requests are in flight: additive increase, halved when the service says slow down.
//!
//! S3 answers 503 per key prefix while it splits partitions; sending less for a while is the only cure. The limit grows
//! by one for each limit's worth of good answers, as TCP does, and is halved at most once per round of answers, so that
//! one burst of 503s counts once.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// A shared limit of concurrent requests.
#[derive(Debug)]
pub(super) struct Limit {
    state: Mutex<State>,
    freed: Notify,
    most: f64,
}

#[derive(Debug)]
struct State {
    allowed: f64,
    in_flight: u32,
    /// Good answers still to come before the limit may be halved again.
    settling: u32,
}

/// The right to have one request in flight.
pub(super) struct Permit<'a>(&'a Limit);

impl Limit {
    /// Starts at `start` requests and never allows more than `most`.
    pub(super) fn new(start: u32, most: u32) -> Self {
        let state = State { allowed: f64::from(start), in_flight: 0, settling: 0 };
        Self { state: Mutex::new(state), freed: Notify::new(), most: f64::from(most) }
    }

    /// Waits for a place.
    pub(super) async fn acquire(&self) -> Permit<'_> {
        loop {
            // Made before the look at the count, so that a release in between is not missed.
            let freed = self.freed.notified();
            {
                let mut state = self.state();
                if f64::from(state.in_flight) < state.allowed.floor() {
                    state.in_flight += 1;
                    return Permit(self);
                }
            }
            freed.await;
        }
    }

    /// A request was answered.
    pub(super) fn succeeded(&self) {
        let mut state = self.state();
        state.settling = state.settling.saturating_sub(1);
        let before = state.allowed.floor();
        state.allowed = (state.allowed + 1.0 / state.allowed).min(self.most);
        if state.allowed.floor() > before {
            self.freed.notify_one();
        }
    }

    /// A request was answered with "slow down".
    pub(super) fn throttled(&self) {
        let mut state = self.state();
        if state.settling == 0 {
            state.settling = state.in_flight;
            state.allowed = (state.allowed / 2.0).max(1.0);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.state().in_flight -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_throttles_halves_once_and_good_answers_raise_again() {
        let limit = Limit::new(16, 20);
        crate::store::block_on(async {
            let mut permits = Vec::new();
            for _ in 0..16 {
                permits.push(limit.acquire().await);
            }
            for _ in 0..16 {
                limit.throttled();
            }
            assert!((limit.state().allowed - 8.0).abs() < 1e-9);
            drop(permits);
            for _ in 0..16 {
                limit.succeeded();
            }
            assert_eq!(limit.state().settling, 0);
            for _ in 0..1000 {
                limit.succeeded();
            }
            assert!((limit.state().allowed - 20.0).abs() < 1e-9);
        });
    }

    #[test]
    fn no_more_than_the_limit_run_at_once() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering};
        let limit = Arc::new(Limit::new(3, 3));
        let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        crate::store::block_on(async {
            let mut tasks = Vec::new();
            for _ in 0..50 {
                let (limit, running, most) = (limit.clone(), running.clone(), most.clone());
                tasks.push(tokio::spawn(async move {
                    let permit = limit.acquire().await;
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
    }
}
