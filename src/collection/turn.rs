//! The time during which one worker may write: from taking the lease to letting it go.

use std::time::{Duration, Instant};

use super::Collection;
use super::document::{ArrayChange, AxisChange, Change, QuarantinedSource, Report, SCHEMA_VERSION, Seconds, Written};
use super::ledger::CommitRecord;
use super::session::Session;
use crate::error::{Kind, Result};
use crate::ledger::{Lease, LeaseOptions};
use crate::progress::Usage;
use crate::store::Store;

/// What a worker holds while it is its turn.
pub(super) struct Turn {
    pub(super) lease: Lease,
    /// The store, which refuses to be written when the lease is lost.
    pub(super) store: Store,
    pub(super) session: Session,
}

/// What the commits of a run add up to.
pub(super) struct Totals {
    began: Instant,
    usage_before: Usage,
    pub(super) commits: Vec<u64>,
    pub(super) changes: Vec<Change>,
    pub(super) quarantined: Vec<QuarantinedSource>,
    pub(super) axis: Option<AxisChange>,
    pub(super) arrays: Vec<ArrayChange>,
    pub(super) written: Written,
    pub(super) seconds: Seconds,
    /// Intents that are settled.
    pub(super) settled: u64,
    /// Who kept this run from doing more.
    pub(super) holder: Option<String>,
}

impl Collection {
    fn lease_options(&self, wait: Option<Duration>) -> LeaseOptions {
        LeaseOptions {
            ttl: Duration::try_from_secs_f64(self.config.run.lease).unwrap_or(Duration::from_secs(30)),
            wait,
            single_writer: self.config.run.single_writer,
        }
    }

    /// Waits for the lease and begins; `Err` names who holds it.
    ///
    /// # Errors
    /// As [`Lease::acquire_or_holder`] and [`Session::open`].
    pub(super) async fn begin_or_holder(&self, wait: Option<Duration>) -> Result<std::result::Result<Turn, String>> {
        match Lease::acquire_or_holder(&self.control, &self.lease_options(wait)).await? {
            Ok(lease) => self.begin_under(lease).await.map(Ok),
            Err(holder) => Ok(Err(holder)),
        }
    }

    /// Waits for the lease and begins.
    ///
    /// # Errors
    /// `Conflict` where somebody else holds it for longer than `wait`; otherwise as [`Session::open`].
    pub(super) async fn begin(&self, wait: Option<Duration>) -> Result<Turn> {
        let lease = Lease::acquire(&self.control, &self.lease_options(wait)).await?;
        self.begin_under(lease).await
    }

    async fn begin_under(&self, lease: Lease) -> Result<Turn> {
        match self.open_under(&lease).await {
            Ok((store, session)) => Ok(Turn { lease, store, session }),
            Err(error) => {
                let clean = !lease.inherited();
                lease.release(clean).await;
                Err(error)
            }
        }
    }

    async fn open_under(&self, lease: &Lease) -> Result<(Store, Session)> {
        let store = self.store.with_fence(lease.fence());
        let control = self.control.with_fence(lease.fence());
        let mut session = Session::open(&store, &control, &self.config).await?;
        session.log.write_under(control, lease.epoch());
        if lease.inherited() {
            self.fence_off(&mut session).await?;
        }
        Ok((store, session))
    }

    /// Takes the number that a stale writer would take next.
    async fn fence_off(&self, session: &mut Session) -> Result<()> {
        loop {
            let record = CommitRecord::new("fence", &self.config.name);
            let read = session.log.len();
            match session.log.append(&record).await {
                Ok(number) => {
                    session.ledger.fold(number, &record);
                    return Ok(());
                }
                Err(error) if error.kind() == Kind::Conflict => {
                    // It was faster, for the last time.
                    session.log.refresh().await?;
                    if session.log.len() == read {
                        return Err(error);
                    }
                    for (number, record) in session.log.records::<CommitRecord>(read + 1).await? {
                        session.ledger.fold(number, &record);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets go.
    pub(super) async fn end(&self, turn: Turn, is_whole: bool) {
        turn.lease.release(is_whole).await;
    }

    /// Takes the right to write from a holder that hangs; what it still tries to write is refused.
    ///
    /// # Errors
    /// As [`Lease::seize`].
    pub async fn unlock(&self) -> Result<serde_json::Value> {
        let unlocked = Lease::seize(&self.control, &self.lease_options(None)).await?;
        let epoch = unlocked.lease.epoch();
        let control = self.control.with_fence(unlocked.lease.fence());
        let mut log = crate::ledger::Log::open(control.clone()).await?;
        log.write_under(control, epoch);
        let record = CommitRecord::new("fence", &self.config.name);
        loop {
            match log.append(&record).await {
                Ok(_) => break,
                Err(error) if error.kind() == Kind::Conflict && unlocked.lease.check().is_ok() => log.refresh().await?,
                Err(error) => return Err(error),
            }
        }
        // What the holder was doing may be half done.
        unlocked.lease.release(false).await;
        Ok(serde_json::json!({"was": unlocked.was.map(|was| was.text()), "epoch": epoch}))
    }
}

impl Totals {
    pub(super) fn new(collection: &Collection) -> Self {
        Self {
            began: Instant::now(),
            usage_before: collection.store.counters().usage(),
            commits: Vec::new(),
            changes: Vec::new(),
            quarantined: Vec::new(),
            axis: None,
            arrays: Vec::new(),
            written: Written::default(),
            seconds: Seconds::default(),
            settled: 0,
            holder: None,
        }
    }

    /// The report of what was done; `unchanged` is the axis where nothing was.
    pub(super) fn report(mut self, collection: &Collection, unchanged: AxisChange) -> Report {
        self.seconds.wall = self.began.elapsed().as_secs_f64();
        let outcome = match (self.commits.is_empty(), self.quarantined.is_empty(), &self.holder) {
            (true, _, Some(_)) => "busy",
            (true, _, None) => "nothing",
            (false, true, _) => "done",
            (false, false, _) => "partial",
        };
        Report {
            schema_version: SCHEMA_VERSION,
            kind: "zarr-report".into(),
            collection: collection.config.name.clone(),
            store: collection.store.url().to_owned(),
            commits: self.commits,
            outcome: outcome.into(),
            changes: self.changes,
            quarantined: self.quarantined,
            axis: self.axis.unwrap_or(unchanged),
            arrays: self.arrays,
            usage: collection.store.counters().usage() - self.usage_before,
            written: self.written,
            seconds: self.seconds,
            settled: self.settled,
            holder: self.holder,
        }
    }
}
