//! The right to write, asked before every single try that changes something.
//!
//! Whoever holds a lease gives its [`Fence`] to the stores that he writes through. A try that comes too late, because the
//! process stood still or a service was slow, is then never sent: neither a first one nor a repeated one.

use crate::error::Result;

/// Says whether writing is still allowed.
pub trait Fence: Send + Sync {
    /// Called before each put, deletion, copy and move.
    ///
    /// # Errors
    /// `Conflict` when the right to write was lost; the request is then not sent.
    fn check(&self) -> Result<()>;
}
