//! From pieces to the parts of an upload: what the service copies by itself, and what travels.
//!
//! S3's rules: a part has at least 5 MiB, but for the last; at most 5 GiB; at most 10,000 parts. So small pieces are
//! gathered with their neighbours into parts that travel, and a part that would stay too small takes the missing bytes from
//! the copy behind it.

use std::ops::Range;

use crate::store::pieces::Piece;

/// One part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum UploadPart {
    /// Copied by the service.
    Copied(Range<u64>),
    /// Gathered here and sent.
    Sent(Vec<Piece>),
}

/// The sizes that a service takes.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct PartRules {
    /// The least bytes in a part that is not the last.
    pub(in crate::store) least: u64,
    /// The most bytes in a part that the service copies.
    pub(in crate::store) most_copied: u64,
    /// Bytes in a part that travels, at least `2 * least`.
    pub(in crate::store) sent: u64,
}

impl PartRules {
    /// S3's; 16 MiB keep a lost part cheap and 100 rewrites at once within memory.
    pub(in crate::store) const S3: Self = Self { least: 5 << 20, most_copied: 5 << 30, sent: 16 << 20 };
}

/// The parts that `pieces` make, in order.
pub(in crate::store) fn parts(pieces: &[Piece], rules: PartRules) -> Vec<UploadPart> {
    let mut parts = Vec::new();
    let mut gathered = Gathered::default();
    for piece in merge(pieces) {
        let Piece::Copy(range) = piece else {
            gathered.push(piece, rules, &mut parts);
            continue;
        };
        // What the gathered bytes lack to be a part of their own.
        let lacking = if gathered.length == 0 { 0 } else { rules.least.saturating_sub(gathered.length) };
        let left = (range.end - range.start).saturating_sub(lacking);
        // S3 copies no range of an object that is smaller than a part.
        if left < rules.least {
            gathered.push(Piece::Copy(range), rules, &mut parts);
            continue;
        }
        let start = range.start + lacking;
        gathered.push(Piece::Copy(range.start..start), rules, &mut parts);
        gathered.flush(&mut parts);
        // Equal shares, so that none is too small.
        let shares = (range.end - start).div_ceil(rules.most_copied);
        for share in 0..shares {
            let bound = |share: u64| {
                start + u64::try_from(u128::from(left) * u128::from(share) / u128::from(shares)).unwrap_or(left)
            };
            parts.push(UploadPart::Copied(bound(share)..bound(share + 1)));
        }
    }
    gathered.flush(&mut parts);
    parts
}

/// Without empty pieces; copies that follow on one another are one.
fn merge(pieces: &[Piece]) -> Vec<Piece> {
    let mut merged: Vec<Piece> = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        match (merged.last_mut(), piece) {
            (Some(Piece::Copy(last)), Piece::Copy(next)) if last.end == next.start => last.end = next.end,
            _ => merged.push(piece.clone()),
        }
    }
    merged
}

/// The first `length` bytes and the rest.
fn split(piece: Piece, length: u64) -> (Piece, Piece) {
    match piece {
        Piece::Copy(range) => {
            let middle = range.start + length;
            (Piece::Copy(range.start..middle), Piece::Copy(middle..range.end))
        }
        Piece::Bytes(mut bytes) => {
            let rest = bytes.split_off(length as usize);
            (Piece::Bytes(bytes), Piece::Bytes(rest))
        }
    }
}

/// Pieces on their way into a part that travels.
#[derive(Default)]
struct Gathered {
    pieces: Vec<Piece>,
    length: u64,
}

impl Gathered {
    /// Adds a piece; parts that are full leave, and what stays behind is never too small for a part unless it is the end.
    fn push(&mut self, mut piece: Piece, rules: PartRules, parts: &mut Vec<UploadPart>) {
        while self.length + piece.len() >= rules.sent + rules.least {
            let (now, later) = split(piece, rules.sent.saturating_sub(self.length));
            self.add(now);
            self.flush(parts);
            piece = later;
        }
        self.add(piece);
    }

    fn add(&mut self, piece: Piece) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push(piece);
        }
    }

    fn flush(&mut self, parts: &mut Vec<UploadPart>) {
        if !self.pieces.is_empty() {
            parts.push(UploadPart::Sent(std::mem::take(&mut self.pieces)));
            self.length = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const SMALL: PartRules = PartRules { least: 5, most_copied: 50, sent: 16 };

    fn length(part: &UploadPart) -> u64 {
        match part {
            UploadPart::Copied(range) => range.end - range.start,
            UploadPart::Sent(pieces) => pieces.iter().map(Piece::len).sum(),
        }
    }

    #[test]
    fn a_prefix_and_a_tail_are_one_copy_and_one_small_part() {
        let tail = Bytes::from_static(b"ab");
        let made = parts(&[Piece::Copy(0..20), Piece::Copy(20..40), Piece::Bytes(tail.clone())], SMALL);
        assert_eq!(made, [UploadPart::Copied(0..40), UploadPart::Sent(vec![Piece::Bytes(tail)])]);
    }

    #[test]
    fn a_small_part_in_the_middle_takes_bytes_from_the_copy_behind_it() {
        let new = Bytes::from_static(b"ab");
        let made = parts(&[Piece::Copy(0..20), Piece::Bytes(new.clone()), Piece::Copy(30..60)], SMALL);
        let middle = UploadPart::Sent(vec![Piece::Bytes(new), Piece::Copy(30..33)]);
        assert_eq!(made, [UploadPart::Copied(0..20), middle, UploadPart::Copied(33..60)]);
    }

    #[test]
    fn a_part_that_is_more_than_full_leaves_before_the_next_piece() {
        let bytes = |length| Piece::Bytes(vec![1; length].into());
        let made = parts(&[bytes(18), Piece::Copy(0..4)], SMALL);
        assert_eq!(made, [UploadPart::Sent(vec![bytes(18)]), UploadPart::Sent(vec![Piece::Copy(0..4)])]);
    }

    #[test]
    fn large_copies_are_cut_into_equal_shares() {
        let made = parts(&[Piece::Copy(0..51)], SMALL);
        assert_eq!(made, [UploadPart::Copied(0..25), UploadPart::Copied(25..51)]);
    }

    proptest! {
        #[test]
        fn parts_keep_the_content_and_the_rules(
            pieces in prop::collection::vec(
                prop_oneof![
                    (0_u64..200, 0_u64..120).prop_map(|(start, length)| Piece::Copy(start..start + length)),
                    prop::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| Piece::Bytes(bytes.into())),
                ],
                0..12,
            )
        ) {
            let source: Vec<u8> = (0..400_u32).map(|index| (index * 7 % 251) as u8).collect();
            let content = |pieces: &[Piece]| -> Vec<u8> {
                pieces.iter().flat_map(|piece| match piece {
                    Piece::Copy(range) => source[range.start as usize..range.end as usize].to_vec(),
                    Piece::Bytes(bytes) => bytes.to_vec(),
                }).collect()
            };
            let made = parts(&pieces, SMALL);
            let joined: Vec<u8> = made.iter().flat_map(|part| match part {
                UploadPart::Copied(range) => content(&[Piece::Copy(range.clone())]),
                UploadPart::Sent(pieces) => content(pieces),
            }).collect();
            prop_assert_eq!(joined, content(&pieces));
            for (index, part) in made.iter().enumerate() {
                prop_assert!(length(part) > 0);
                prop_assert!(index + 1 == made.len() || length(part) >= SMALL.least, "{:?}", made);
                match part {
                    UploadPart::Copied(range) => prop_assert!(range.end - range.start <= SMALL.most_copied),
                    UploadPart::Sent(_) => prop_assert!(length(part) < SMALL.sent + SMALL.least),
                }
            }
        }
    }
}
