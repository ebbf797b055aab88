//! Waiting for a verb: GIL released, progress passed on, Ctrl-C noticed.

use std::future::Future;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::errors::{IntoPython, to_python};
use crate::error::{Error, Result};
use crate::progress::{Progress, Run, Sink};
use crate::store::{forked, runtime};

/// How often the calling thread wakes.
const TICK: Duration = Duration::from_millis(100);

/// How long a cancelled verb may take to reach a safe point before it is dropped.
const GRACE: Duration = Duration::from_millis(700);

/// Stops a long verb from another thread.
#[pyclass(frozen, module = "regraft._core")]
#[derive(Default)]
pub(super) struct CancelToken {
    run: Mutex<(bool, Vec<Run>)>,
}

#[pymethods]
impl CancelToken {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn cancel(&self) {
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        run.0 = true;
        run.1.iter().for_each(Run::cancel);
    }
}

impl CancelToken {
    fn attach(&self, run: &Run) {
        let mut state = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            run.cancel();
        }
        state.1.push(run.clone());
    }
}

/// Keeps the latest step for the calling thread; worker threads never need the GIL.
#[derive(Default)]
struct Latest(Mutex<Option<Progress>>);

impl Sink for Latest {
    fn progress(&self, progress: &Progress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.clone());
    }
}

/// Runs a verb to its end. `verb` is given the [`Run`] that it tells its progress to.
///
/// Raises what the verb raises, `KeyboardInterrupt` within a second of Ctrl-C, or what the progress callback raises (the
/// verb is then cancelled too).
pub(super) fn wait<T, F>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    token: Option<&Bound<'_, CancelToken>>,
    verb: impl FnOnce(Run) -> F,
) -> PyResult<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    if forked() {
        return Err(to_python(
            py,
            &Error::invalid(
                "regraft was used in this process's parent before it was forked, so its threads are not here",
            )
            .hint("start workers by `multiprocessing.set_start_method(\"spawn\")` or `\"forkserver\"`"),
        ));
    }
    let latest = Arc::new(Latest::default());
    let run = Run::new(latest.clone());
    if let Some(token) = token {
        token.get().attach(&run);
    }
    let (sender, receiver) = sync_channel(1);
    let receiver = Mutex::new(receiver);
    let receive = || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(TICK);
    let future = verb(run.clone());
    let task = runtime().spawn(async move {
        // The receiver is gone only after this task was given up.
        let _ = sender.send(future.await);
    });
    loop {
        match py.detach(receive) {
            Ok(result) => {
                tell(py, progress, &latest)?;
                return result.into_python(py);
            }
            Err(RecvTimeoutError::Disconnected) => {
                let error =
                    Error::internal("a worker thread panicked").hint("this is a bug in regraft: please report it");
                return Err(to_python(py, &error));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(raised) = py.check_signals().and_then(|()| tell(py, progress, &latest)) {
            run.cancel();
            let deadline = Instant::now() + GRACE;
            py.detach(|| while Instant::now() < deadline && matches!(receive(), Err(RecvTimeoutError::Timeout)) {});
            task.abort();
            return Err(raised);
        }
    }
}

/// Passes the latest step on, as a dictionary.
fn tell(py: Python<'_>, progress: Option<&Bound<'_, PyAny>>, latest: &Latest) -> PyResult<()> {
    let Some(callback) = progress else { return Ok(()) };
    let step = latest.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(step) = step else { return Ok(()) };
    let usage = PyDict::new(py);
    let counts = step.usage;
    for (name, count) in [
        ("get", counts.get),
        ("head", counts.head),
        ("put", counts.put),
        ("delete", counts.delete),
        ("list", counts.list),
        ("copy", counts.copy),
        ("retry", counts.retry),
        ("throttle", counts.throttle),
        ("bytes_read", counts.bytes_read),
        ("bytes_written", counts.bytes_written),
    ] {
        usage.set_item(name, count)?;
    }
    let dictionary = PyDict::new(py);
    dictionary.set_item("stage", &step.stage)?;
    dictionary.set_item("done", step.done)?;
    dictionary.set_item("total", step.total)?;
    dictionary.set_item("item", &step.item)?;
    dictionary.set_item("errors", step.errors)?;
    dictionary.set_item("usage", usage)?;
    callback.call1((dictionary,)).map(|_| ())
}
