//! What was done to a store, in order, what is asked of it, and who may write.
//!
//! # Problem
//! A store is one of many objects; a commit must be one. Any number of workers may knock, and one may stand still in the
//! middle of its work and wake up an hour later: nothing may be lost, and nothing done twice.
//!
//! # Design
//! Beside the store lies its control prefix, `<store>.regraft/`:
//! - `inbox/<id>.json`: one durable request each, created only if absent, deleted when a commit has settled it ([`Inbox`]).
//! - `lease.json`: who may write ([`Lease`]). It saves two writers the work of refusing each other; it does not save data,
//!   which is what the conditions of all puts are for.
//! - `log/<20 digits>.json`: one record each, numbered from 1 without gaps, created only if absent, with the epoch of the
//!   lease under which it was written. The create is the commit: who is refused plans again ([`Log`]).
//!
//! A writer takes the lease, appends a fence record where its predecessor did not let go by itself (so that the number
//! that a stale writer would take next is taken), announces each change by a record, makes it, and records it as done.
//! What the records mean belongs to the caller: this module knows `number`, `epoch` and `nonce`, nothing else.
//!
//! # Alternatives considered
//! - One growing ledger file, replaced with `If-Match`: the cost of a commit grows with the age of the store (Lance
//!   measured 3.5 commits/s at a thousand rows and 0.5 at a million).
//! - A lock service or a database beside the bucket: one more thing that can be down, and that a laptop does not have.
//!
//! # Caveats
//! Storage without conditional puts is found at the first lease and refused, unless a single writer is declared.
//!
//! # Testing
//! Racers, lost answers and paused holders in `tests/rust/{ledger,lease}.rs`; killed and stopped processes in
//! `tests/rust/processes.rs` and `tests/python`.

mod inbox;
mod lease;
mod log;

pub use self::inbox::{Inbox, Intent, Operation, Pending};
pub use self::lease::{Holder, Lease, LeaseOptions, LeaseState, Left, Unlocked};
pub use self::log::Log;
