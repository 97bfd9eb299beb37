//! How many files and sockets this process may have open.

/// Raises the limit to the most that the system allows, and returns it. `None` if there is none, or it
/// cannot be told.
///
/// The usual limit is 1024, for programs that use `select`. A server needs more.
#[cfg(unix)]
#[must_use]
pub fn raise_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// Elsewhere there is no such limit.
#[cfg(not(unix))]
#[must_use]
pub fn raise_limit() -> Option<u64> {
    None
}

/// Whether more than half of the files that may be open are. It looks through all of them, which takes
/// a while.
#[cfg(target_os = "linux")]
#[must_use]
pub fn are_half_open() -> bool {
    use rustix::process::{Resource, getrlimit};

    let Some(limit) = getrlimit(Resource::Nofile).current else { return false };
    let open = std::fs::read_dir("/proc/self/fd").map(|open| open.count() as u64);
    open.is_ok_and(|open| open > limit / 2)
}

/// Elsewhere it cannot be told.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn are_half_open() -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_and_a_few_open_files_are_not_half_of_it() {
        assert!(raise_limit().unwrap() >= 1024);
        assert!(!are_half_open());
    }
}
