//! Every oracle over its seeds, over what fuzzing has found before, and over mutations of both that are the same in each
//! run. This is how `scripts/test` judges decoders without a nightly compiler; `scripts/fuzz` goes further.

#![expect(
    clippy::unwrap_used,
    reason = "a test; clippy knows the functions beside the test functions of such a file as ordinary code"
)]

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use lictor_oracles::ALL;

/// Mutations for each target. `LICTOR_MUTATIONS` asks for another number.
const MUTATIONS: usize = 3000;
/// Largest input that is made.
const LONGEST: usize = 4096;

#[test]
fn seeds_and_regressions_hold() {
    for (name, oracle) in ALL {
        let inputs = inputs(name);
        assert!(inputs.iter().any(|(path, _)| path.starts_with(folder("seeds"))), "{name} has no seeds");
        for (path, data) in inputs {
            assert!(catch_unwind(|| oracle(&data)).is_ok(), "{name} fails on {}", path.display());
        }
    }
}

#[test]
fn mutations_hold() {
    let mutations = std::env::var("LICTOR_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(MUTATIONS);
    // Each target in a thread of its own: they do not share anything.
    std::thread::scope(|scope| {
        for (name, oracle) in ALL {
            scope.spawn(move || {
                let seeds: Vec<Vec<u8>> = inputs(name).into_iter().map(|(_, data)| data).collect();
                let mut random = Random(0x9E37_79B9_7F4A_7C15);
                for number in 0..mutations {
                    let data = mutated(&seeds, &mut random);
                    if catch_unwind(|| oracle(&data)).is_err() {
                        let found = std::env::temp_dir().join(format!("lictor-{name}-{number}"));
                        std::fs::write(&found, &data).unwrap();
                        panic!("{name} fails on mutation {number}, kept in {}", found.display());
                    }
                }
            });
        }
    });
}

#[test]
fn every_folder_belongs_to_a_target() {
    for kind in ["seeds", "regressions"] {
        let Ok(entries) = std::fs::read_dir(folder(kind)) else { continue };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(ALL.iter().any(|(target, _)| *target == name), "fuzz/{kind}/{name} belongs to no target");
        }
    }
    let targets = folder("fuzz_targets");
    assert_eq!(std::fs::read_dir(&targets).unwrap().count(), ALL.len(), "one fuzz target for each oracle");
    for (name, _) in ALL {
        assert!(targets.join(format!("{name}.rs")).is_file(), "{name} has no fuzz target");
    }
}

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(kind)
}

/// Seeds and regressions, in an order that does not depend on the machine.
fn inputs(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut inputs = Vec::new();
    for kind in ["seeds", "regressions"] {
        let Ok(entries) = std::fs::read_dir(folder(kind).join(name)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            inputs.push((path, data));
        }
    }
    inputs.sort();
    inputs
}

/// One to four changes to one of the seeds.
fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() + 1);
        let end = (at + 1 + random.below(16)).min(data.len());
        match random.below(7) {
            0 if at < data.len() => data[at] ^= 1 << random.below(8),
            1 if at < data.len() => data[at] = INTERESTING[random.below(INTERESTING.len())],
            2 => drop(data.drain(at..end)),
            3 => {
                let piece = data[at..end].to_vec();
                let to = random.below(data.len() + 1);
                data.splice(to..to, piece);
            }
            4 => data.truncate(at),
            // A piece of another seed: words that mean something.
            5 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(64)).min(other.len());
                data.splice(at..at, other[from..to].iter().copied());
            }
            _ => data.insert(at, INTERESTING[random.below(INTERESTING.len())]),
        }
    }
    data.truncate(LONGEST);
    data
}

const INTERESTING: &[u8] = b"\0\x01\x7f\x80\xff\r\n\t <>&;\"'=,:-./%0#[]{}Aa";

/// SplitMix64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % bound.max(1) as u64).unwrap_or_default()
    }
}
