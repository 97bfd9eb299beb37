//! How a process that compiles ends: what it tells the one that started it.

/// The exit code for a component that is not valid.
pub(super) const INVALID: i32 = 3;

/// The exit code if memory did not suffice.
pub(super) const NO_MEMORY: i32 = 4;

/// Whether a process ended because it could not allocate memory, by what the standard library, the
/// allocator or the system says.
pub(super) fn is_out_of_memory(words: &str) -> bool {
    ["memory allocation of", "os error 12", "Cannot allocate memory"]
        .iter()
        .any(|text| words.contains(text))
}
