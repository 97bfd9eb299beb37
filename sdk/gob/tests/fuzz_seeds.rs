//! A short run of the fuzz target (`fuzz/`) over its seeds and what becomes of them by mutation.

#[path = "../fuzz/src/body.rs"]
mod body;

use proptest::prelude::*;

#[test]
fn every_seed_is_read() {
    for seed in body::seeds() {
        assert!(body::stream(&seed) > 0, "{seed:02x?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn mutated_seeds_never_panic_and_what_is_read_reads_the_same_again(
        seed in any::<prop::sample::Index>(),
        mutations in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        tail in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let seeds = body::seeds();
        let mut bytes = seeds[seed.index(seeds.len())].clone();
        for (at, byte) in mutations {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes.extend(tail);
        body::stream(&bytes);
    }
}
