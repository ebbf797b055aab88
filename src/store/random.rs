//! Random bits from the operating system: nonces, temporary names, jitter. There is no thread-local generator, so that
//! forks never repeat each other.

use std::fmt::Write;

use ring::rand::{SecureRandom, SystemRandom};

/// 32 hexadecimal digits that nobody else has.
///
/// # Panics
/// When the operating system has no random numbers.
#[must_use]
pub fn random_id() -> String {
    let mut bytes = [0; 16];
    fill(&mut bytes);
    bytes.iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A number in `0..=most`, uniform to within 2⁻³² of each value's chance.
pub(super) fn up_to(most: u32) -> u32 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    ((u128::from(u64::from_le_bytes(bytes)) * (u128::from(most) + 1)) >> 64) as u32
}

fn fill(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the operating system gives random numbers");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_hexadecimal_and_differ() {
        let (first, second) = (random_id(), random_id());
        assert_eq!(first.len(), 32);
        assert!(first.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(first, second);
        assert!((0..1000).all(|_| up_to(3) <= 3));
    }
}
