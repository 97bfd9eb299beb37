//! How much the kernel takes of a connection's bytes before it can send them.
//!
//! By default it takes megabytes. What is written after them waits for them: a small answer for a large
//! one. So it takes only as much as keeps the line busy until the next write, and the order of the rest
//! stays ours to choose. The idea is Apple's and Google's:
//! <https://lwn.net/Articles/560082/>

use std::io;

/// The bytes that the kernel takes beyond what is on its way.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT: u32 = 32 * 1024;

/// Limits the bytes of a TCP connection that are written but not on their way. Where the system has no such
/// limit, nothing changes.
///
/// # Errors
/// When the system refuses.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub fn limit_unsent(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    socket2::SockRef::from(socket).set_tcp_notsent_lowat(UNSENT)
}

/// Limits the bytes of a TCP connection that are written but not on their way. Where the system has no such
/// limit, nothing changes.
///
/// # Errors
/// Never here.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub fn limit_unsent<S>(_: &S) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, any(target_os = "android", target_os = "linux")))]
mod tests {
    use super::*;

    #[test]
    fn the_system_takes_the_limit() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        limit_unsent(&socket).unwrap();
        assert_eq!(socket2::SockRef::from(&socket).tcp_notsent_lowat().unwrap(), UNSENT);
    }
}
