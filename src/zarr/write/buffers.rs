//! Buffers that are used again: a fresh buffer of megabytes costs a page fault for every 4 KiB of it.

use std::sync::{Mutex, PoisonError};

/// Buffers that wait for their next use, at most `limit` bytes of them.
#[derive(Debug)]
pub(super) struct Buffers {
    waiting: Mutex<Waiting>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    pub(super) fn new(limit: u64) -> Self {
        Self { waiting: Mutex::default(), limit: limit as usize }
    }

    /// A buffer with any content, for `length` bytes: the smallest that waits and is large enough, else an empty one.
    pub(super) fn take(&self, length: usize) -> Vec<u8> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is far too large is left for whoever needs it: otherwise a chunk would sit in it unaccounted for.
        let fitting = waiting.buffers.iter().enumerate().map(|(index, buffer)| (buffer.capacity(), index));
        let best = fitting.filter(|(capacity, _)| (length..=length * 2).contains(capacity)).min();
        let Some((capacity, index)) = best else { return Vec::new() };
        waiting.bytes -= capacity;
        waiting.buffers.remove(index)
    }

    /// Takes a buffer back.
    pub(super) fn give(&self, buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !(4096..=self.limit).contains(&capacity) {
            return;
        }
        waiting.bytes += capacity;
        waiting.buffers.push(buffer);
        // The one that waited longest is of a size that nobody asks for any more.
        while waiting.bytes > self.limit || waiting.buffers.len() > 64 {
            waiting.bytes -= waiting.buffers.remove(0).capacity();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_up_to_the_limit() {
        let buffers = Buffers::new(20_000);
        buffers.give(vec![1; 8_000]);
        buffers.give(vec![2; 8_000]);
        buffers.give(vec![3; 10_000]);
        assert_eq!(buffers.take(9_000).capacity(), 10_000);
        assert_eq!(buffers.take(9_000).capacity(), 0);
        assert_eq!(buffers.take(3_000).capacity(), 0);
        assert_eq!(buffers.take(8_000).capacity(), 8_000);
    }
}
