//! The time during which one worker may write: from taking the lease to letting it go.

use std::time::{Duration, Instant};

use super::Collection;
use super::document::{ArrayChange, AxisChange, Change, QuarantinedSource, Report, SCHEMA_VERSION, Seconds, Written};
use super::ledger::CommitRecord;
use super::planning::Work;
use super::session::Session;
use super::staging::Doors;
use crate::error::{Kind, Result};
use crate::ledger::{Lease, LeaseOptions};
use crate::progress::Usage;

/// What a worker holds while it is its turn.
pub(super) struct Turn {
    pub(super) lease: Lease,
    pub(super) doors: Doors,
    pub(super) session: Session,
    /// How many sources are still to be done one by one, each announced before it is opened: where a worker died, its
    /// successor finds out which source it was.
    pub(super) careful: usize,
}

impl Turn {
    /// Cuts work into batches, one commit each; sources that somebody died on, or may have died on, by themselves.
    pub(super) fn batches<'a>(&self, collection: &Collection, work: &'a [Work]) -> Vec<&'a [Work]> {
        let journal = &self.session.ledger.journal;
        collection.batches(work, |position, item| position < self.careful || journal.crashes.contains_key(&item.key))
    }

    /// Before a source is opened that may kill whoever opens it.
    pub(super) async fn announce_attempt(&mut self, collection: &Collection, batch: &[Work]) -> Result<()> {
        let [item] = batch else { return Ok(()) };
        let journal = &self.session.ledger.journal;
        if item.version.is_none() || (self.careful == 0 && !journal.crashes.contains_key(&item.key)) {
            return Ok(());
        }
        self.careful = self.careful.saturating_sub(1);
        let record = collection.attempt(&item.key, item.version.as_ref());
        let number = self.session.log.append(&record).await?;
        self.session.ledger.fold(number, &record);
        Ok(())
    }
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
    pub(super) fn lease_options(&self, wait: Option<Duration>) -> LeaseOptions {
        LeaseOptions {
            ttl: Duration::try_from_secs_f64(self.config.run.lease).unwrap_or(Duration::from_secs(30)),
            wait,
            single_writer: self.config.run.single_writer,
            left: self.keeping.left(),
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
            Ok((doors, session)) => {
                let careful = if lease.died() { self.config.run.batch.files } else { 0 };
                Ok(Turn { lease, doors, session, careful })
            }
            Err(error) => {
                let clean = !lease.inherited();
                lease.release(clean).await;
                Err(error)
            }
        }
    }

    async fn open_under(&self, lease: &Lease) -> Result<(Doors, Session)> {
        let doors = Doors {
            store: self.store.with_fence(lease.fence()),
            control: self.control.with_fence(lease.fence()),
            unfenced: self.control.clone(),
        };
        let mut session = self.session_to_write(lease, &doors).await?;
        if lease.inherited() {
            self.fence_off(&mut session, lease.died()).await?;
        }
        Ok((doors, session))
    }

    /// Reads the session anew, to be written under a lease.
    pub(super) async fn open_session(&self, lease: &Lease, doors: &Doors) -> Result<Session> {
        let mut session = Session::open(&doors.store, &doors.control, &self.config).await?;
        session.write_under(&doors.store, &doors.control, lease.epoch());
        Ok(session)
    }

    /// Takes the number that a stale writer would take next.
    async fn fence_off(&self, session: &mut Session, died: bool) -> Result<()> {
        let record = CommitRecord { died, ..CommitRecord::new("fence", &self.config.name) };
        loop {
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
                    let records = session.log.records::<CommitRecord>(read + 1).await?;
                    session.checkpoint.fold(&mut session.ledger, &records).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets go. Where something `failed`, the next worker looks for what it left; where not, the next turn goes on with what
    /// this one knows.
    pub(super) async fn end(&self, turn: Turn, failed: bool) {
        let is_whole = !failed && !turn.session.ledger.journal.is_open();
        let left = turn.lease.release(is_whole).await;
        if is_whole {
            self.keep_turn(turn.session, left);
        }
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
        let died = unlocked.lease.died();
        let record = CommitRecord { died, ..CommitRecord::new("fence", &self.config.name) };
        loop {
            match log.append(&record).await {
                Ok(_) => break,
                Err(error) if error.kind() == Kind::Conflict && unlocked.lease.check().is_ok() => log.refresh().await?,
                Err(error) => return Err(error),
            }
        }
        // What the holder was doing may be half done.
        unlocked.lease.release(false).await;
        let is_backfill = Session::open(&self.store, &self.control, &self.config).await?.ledger.backfill.is_some();
        let backfill = if is_backfill { self.abandon_backfill().await? } else { None };
        Ok(serde_json::json!({"backfill": backfill, "was": unlocked.was.map(|was| was.text()), "epoch": epoch}))
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

    /// Notes what a record sets aside.
    pub(super) fn set_aside(&mut self, record: &CommitRecord) {
        self.quarantined.extend(record.sources.iter().filter_map(|source| {
            let quarantine = source.quarantine.as_ref()?;
            Some(QuarantinedSource {
                key: source.key.clone(),
                category: quarantine.category.clone(),
                message: quarantine.message.clone(),
                hint: quarantine.hint.clone(),
                attempts: quarantine.attempts,
            })
        }));
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
