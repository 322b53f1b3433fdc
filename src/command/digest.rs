//! A set of names in few bytes (a Bloom filter): it has no false negatives, and few false positives.

use std::collections::BTreeSet;

use crate::remote_control::ProjectName;

/// The bits for each name, and how many of them are set: about one other name in two hundred is a false positive.
const BITS_PER_NAME: usize = 12;
const BITS_SET: u64 = 4;

/// The size, in bytes: in fewer bits the places of a name would often coincide, and the largest is enough for a thousand names.
/// More names have more false positives.
const SMALLEST: usize = 32;
const LARGEST: usize = 1_536;

/// Shows which host has a name, without a list of its names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Digest(Vec<u8>);

impl Digest {
    pub(crate) fn of(names: &BTreeSet<&ProjectName>) -> Self {
        if names.is_empty() {
            return Self::default();
        }
        let size = (names.len() * BITS_PER_NAME).div_ceil(8);
        let size = size.clamp(SMALLEST, LARGEST);
        let mut bits = vec![0_u8; size];
        for name in names {
            for bit in places(name.as_str(), size) {
                if let Some(byte) = bits.get_mut(bit / 8) {
                    *byte |= 1 << (bit % 8);
                }
            }
        }
        Self(bits)
    }

    /// As another bot announces it. One that is too large counts as empty.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let fits = bytes.len() <= LARGEST;
        Self(if fits { bytes.to_vec() } else { Vec::new() })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether a name may be among them. `false`: it is not.
    pub(crate) fn may_hold(&self, name: &str) -> bool {
        let is_set = |bit: usize| {
            let byte = self.0.get(bit / 8);
            byte.is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
        };
        !self.0.is_empty() && places(name, self.0.len()).all(is_set)
    }
}

/// The bits of a name among those of so many bytes: the same in every version, as the bots of several hosts compare them.
fn places(name: &str, bytes: usize) -> impl Iterator<Item = usize> {
    // FNV-1a, and the finish of MurmurHash3, by which its upper half depends on all of the name.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let (first, step) = (hash & 0xffff_ffff, hash >> 32 | 1);
    let bits = (bytes as u64 * 8).max(1);
    (0..BITS_SET).map(move |number| {
        let place = first.wrapping_add(number.wrapping_mul(step)) % bits;
        usize::try_from(place).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_its_digest_and_hardly_another() {
        for count in [0, 1, 2, 10, 200, 1_000] {
            let names: Vec<ProjectName> = (0..count)
                .map(|it| format!("project-{it}").parse().unwrap())
                .collect();
            let digest = Digest::of(&names.iter().collect());
            assert!(digest.as_bytes().len() <= LARGEST);
            assert!(
                names.iter().all(|name| digest.may_hold(name.as_str())),
                "{count}"
            );
            let others = (0..10_000).filter(|it| digest.may_hold(&format!("other-{it}")));
            let others = others.count();
            assert!(
                others < 400,
                "{others} of 10000 others are taken for one of {count}"
            );
            assert_eq!(Digest::from_bytes(digest.as_bytes()), digest);
        }
        assert!(!Digest::from_bytes(&vec![0xff; LARGEST + 1]).may_hold("x"));
    }
}
