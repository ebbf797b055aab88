//! Failures on purpose, for tests: lost answers, resets, throttling, delays, and a crash between any two requests.

use async_trait::async_trait;

/// What a request does, as faults see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the methods of `Store`")]
pub enum Operation {
    Get,
    Head,
    List,
    Put,
    Delete,
    Copy,
}

/// A failure to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The service says slow down (503).
    Throttled,
    /// The connection breaks. Before a request it was not done; after it, it was done and the answer is lost.
    Lost,
    /// The process dies: no retry. The tester lets every later call crash as well.
    Crash,
}

/// Called around every single try, with the full key from the root of the connection.
#[async_trait]
pub trait Faults: Send + Sync {
    /// Before the request is sent; `Err` keeps it from being sent.
    ///
    /// # Errors
    /// The failure to inject.
    async fn before(&self, _operation: Operation, _key: &str) -> Result<(), Fault> {
        Ok(())
    }

    /// After the request was done, whatever its answer; `Err` takes the answer's place.
    ///
    /// # Errors
    /// The failure to inject.
    async fn after(&self, _operation: Operation, _key: &str) -> Result<(), Fault> {
        Ok(())
    }
}
