//! Computation away from the threads that drive I/O.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// Runs `job` on the CPU pool; a panic in it is an error of this object, not the end of the process.
///
/// # Errors
/// What `job` returns; `Internal` where it panicked.
pub(super) async fn on_pool<T: Send + 'static>(job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    rayon::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            Err(Error::internal(format!("a computation panicked: {text}"))
                .hint("this is a bug in regraft: please report it"))
        });
        // Nobody waits any more where the run was cancelled.
        let _ = sender.send(result);
    });
    receiver.await.unwrap_or_else(|_| Err(Error::internal("a computation was lost")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::block_on;

    #[test]
    fn a_panic_is_an_error() {
        let error = block_on(on_pool(|| -> Result<()> { panic!("no good: {}", 1) })).unwrap_err();
        assert!(error.message().contains("no good: 1"), "{error}");
        assert_eq!(block_on(on_pool(|| Ok(3))).unwrap(), 3);
    }
}
