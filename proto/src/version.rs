//! Versions of the contract, and how far apart two sides may be.
//!
//! A version of the contract is the major and minor number of the release that it belongs to. Both sides announce theirs, in
//! Hello and Welcome, and both come to the same judgement, here. What follows from it is for each side to decide.
//! `docs/decisions/0007-one-minor-version-of-skew.md` has the reasons.

use std::fmt;

/// A version of the contract, such as 0.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contract {
    /// Changes when the contract breaks.
    pub major: u32,
    /// Changes with each release that adds to the contract.
    pub minor: u32,
}

impl Contract {
    /// The one that this crate holds.
    pub const OURS: Self =
        Self { major: number(env!("CARGO_PKG_VERSION_MAJOR")), minor: number(env!("CARGO_PKG_VERSION_MINOR")) };

    /// The last one whose sides did not say which they speak.
    pub const UNTOLD: Self = Self { major: 0, minor: 1 };

    /// What the other side announced.
    ///
    /// # Errors
    /// When it is nothing of the kind.
    pub fn announced(text: &str) -> Result<Self, Mismatch> {
        if text.is_empty() {
            return Ok(Self::UNTOLD);
        }
        let parsed = text.split_once('.').and_then(|(major, minor)| Some((digits(major)?, digits(minor)?)));
        let (major, minor) = parsed.ok_or(Mismatch::Unreadable)?;
        Ok(Self { major, minor })
    }

    /// Whether a side with this version and one with `other` may work together.
    #[must_use]
    pub fn fits(self, other: Self) -> bool {
        self.major == other.major && self.minor.abs_diff(other.minor) <= SKEW
    }

    /// Checks what the other side announced against our own.
    ///
    /// # Errors
    /// When the two are too far apart.
    pub fn check(announced: &str) -> Result<Self, Mismatch> {
        let theirs = Self::announced(announced)?;
        if Self::OURS.fits(theirs) { Ok(theirs) } else { Err(Mismatch::TooFar(theirs)) }
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why two sides do not work together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The other side's version is too far from ours.
    #[error("it speaks version {0} of the contract, we speak {ours}, and one minor version apart is the most", ours = Contract::OURS)]
    TooFar(Contract),
    /// The other side announced something that is no version.
    #[error("it announced a version of the contract that cannot be read; we speak {ours}", ours = Contract::OURS)]
    Unreadable,
}

impl Mismatch {
    /// What to do about it; `we` and `they` are what the two sides are called.
    #[must_use]
    pub fn remedy(self, we: &str, they: &str) -> String {
        let Self::TooFar(theirs) = self else {
            return format!("find out what {they} is, and use the release that {we} is of");
        };
        let (behind, ahead, goal) =
            if theirs < Contract::OURS { (they, we, Contract::OURS) } else { (we, they, theirs) };
        format!("upgrade {behind} to {goal}, one minor version after the other, or bring {ahead} back")
    }
}

/// Most minor versions between two sides that work together.
pub const SKEW: u32 = 1;

const fn number(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        // Cargo has checked it.
        Err(_) => 0,
    }
}

/// Digits alone: `parse` would take a sign, too.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Contract {
        Contract::announced(text).unwrap()
    }

    #[test]
    fn one_minor_version_either_way_fits_and_no_more() {
        for (one, other, fits) in [
            ("0.2", "0.2", true),
            ("0.2", "0.1", true),
            ("0.2", "0.3", true),
            ("0.2", "", true),
            ("0.3", "", false),
            ("0.2", "0.4", false),
            ("1.2", "0.2", false),
            ("1.0", "0.9", false),
        ] {
            assert_eq!(version(one).fits(version(other)), fits, "{one} {other}");
            assert_eq!(version(other).fits(version(one)), fits, "{other} {one}");
        }
    }

    #[test]
    fn what_is_no_version_is_not_taken_for_one() {
        for text in ["0", "2", "0.2.1", "0.", ".2", "+0.2", "0.-1", "0.99999999999", " 0.2", "newest", "0.2\n"] {
            assert_eq!(Contract::check(text), Err(Mismatch::Unreadable), "{text:?}");
        }
    }

    #[test]
    fn our_own_is_that_of_the_release_and_its_predecessor_is_kept() {
        let ours = Contract::OURS;
        assert!(env!("CARGO_PKG_VERSION").starts_with(&format!("{ours}.")), "{ours}");
        let kept = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline");
        let previous = Contract { minor: ours.minor - 1, ..ours };
        assert!(kept.join(format!("{previous}.json")).is_file(), "the contract of {previous} is to be compared with");
    }

    #[test]
    fn a_mismatch_names_both_versions_and_who_is_to_move() {
        let ahead = Contract { minor: Contract::OURS.minor + 2, ..Contract::OURS };
        let mismatch = Contract::check(&ahead.to_string()).unwrap_err();
        let text = mismatch.to_string();
        assert!(text.contains(&ahead.to_string()) && text.contains(&Contract::OURS.to_string()), "{text}");
        let remedy = mismatch.remedy("this agent", "the control plane");
        assert!(remedy.starts_with(&format!("upgrade this agent to {ahead}")), "{remedy}");
        let behind = Mismatch::TooFar(Contract { major: 0, minor: 0 }).remedy("this agent", "the control plane");
        assert!(behind.starts_with("upgrade the control plane to"), "{behind}");
    }
}
