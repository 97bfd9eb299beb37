//! Reads files that others may have put there: nothing but regular files, and no more of them than is
//! allowed.

use std::fs::File;
use std::io::{Error, Read, Result};
use std::path::Path;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("it cannot be read: {0}")]
    Io(#[from] Error),
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it has {len} bytes, but at most {max} are allowed")]
    TooLarge { len: u64, max: u64 },
}

impl ReadError {
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, ReadError::Io(error) if error.kind() == std::io::ErrorKind::NotFound)
    }

    /// Whether trying again later may help: too many open files, no memory, a failing disk.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, ReadError::Io(error) if error.kind() != std::io::ErrorKind::NotFound)
    }
}

/// About how many bytes a file has; 0 if that cannot be told.
pub(super) async fn len(path: &Path) -> u64 {
    let path = path.to_owned();
    let len = tokio::task::spawn_blocking(move || std::fs::metadata(path).map(|file| file.len()));
    len.await.ok().and_then(Result::ok).unwrap_or(0)
}

/// Reads a file of at most `max` bytes, on a thread that may block.
pub(super) async fn read(path: &Path, max: u64) -> std::result::Result<Vec<u8>, ReadError> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_now(&path, max));
    read.await.map_err(Error::other)?
}

/// The same on this thread.
pub(super) fn read_now(path: &Path, max: u64) -> std::result::Result<Vec<u8>, ReadError> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    // Asked of what was opened. What the path names may have been replaced since.
    if !metadata.is_file() {
        return Err(ReadError::NotRegular);
    }
    let len = metadata.len();
    if len > max {
        return Err(ReadError::TooLarge { len, max });
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, to notice a file that has grown in the meantime.
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(ReadError::TooLarge { len: bytes.len() as u64, max });
    }
    Ok(bytes)
}

/// Opens a file without waiting: a pipe would wait for somebody who writes to it.
#[cfg(unix)]
fn open(path: &Path) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    File::options().read(true).custom_flags(nonblocking).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> Result<File> {
    File::open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sparse_file_beyond_the_bound_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wasm");
        File::create(&path).unwrap().set_len(10 << 30).unwrap();
        let error = read(&path, 100).await.unwrap_err();
        assert_eq!(error.to_string(), "it has 10737418240 bytes, but at most 100 are allowed");
        assert!(!error.is_passing());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_pipe_and_a_folder_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("x.wasm");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        for path in [&*pipe, folder.path()] {
            assert!(matches!(read(path, 100).await.unwrap_err(), ReadError::NotRegular));
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_told_from_one_that_cannot_be_read_now() {
        let folder = tempfile::tempdir().unwrap();
        let missing = read(&folder.path().join("x.wasm"), 100).await.unwrap_err();
        assert!(missing.is_not_found() && !missing.is_passing());
        let full = ReadError::Io(Error::from_raw_os_error(24));
        assert!(full.is_passing());
    }
}
