//! Directories that only their owner can change: for what is executed, believed or secret.

use std::fs::DirBuilder;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory that others could change, or that cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateError {
    /// It, or a directory above it, cannot be looked at.
    #[error("{} cannot be looked at", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another user owns it, or a directory above it.
    #[error("{} belongs to another user; name a directory of your own", .0.display())]
    Owner(PathBuf),
    /// Others can write to it, or to a directory above it.
    #[error("{path} can be written by others; run 'chmod go-w {path}'", path = .0.display())]
    Writable(PathBuf),
}

/// Makes a directory, and those above it, for its owner only. One that exists stays as it is.
///
/// # Errors
/// When it cannot be made.
pub fn make(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Writes a file that only its owner can read, as a whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write;

    static NEXT: AtomicU64 = AtomicU64::new(0);

    // Several processes may write it at once.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}-{number}.new", std::process::id()));
    let new = path.with_file_name(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&new).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    });
    if written.is_err() {
        // It may not be there at all.
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// Whether only we (and root) can change what is at `path`. The directories above it count too: whoever
/// can rename one of them can put another in its place. Elsewhere than on Unix, every directory passes.
///
/// # Errors
/// Which directory is at fault, and what to do.
#[cfg(unix)]
pub fn check(path: &Path) -> Result<(), PrivateError> {
    check_with(path, false)
}

/// Like [`check`], for files and directories that people edit. Root may own them, and the group may write if it is the user's
/// own, with the same number: many systems give each user such a group, and let it write by default.
///
/// # Errors
/// As for [`check`].
#[cfg(unix)]
pub fn check_edited(path: &Path) -> Result<(), PrivateError> {
    check_with(path, true)
}

#[cfg(unix)]
fn check_with(path: &Path, edited: bool) -> Result<(), PrivateError> {
    use std::os::unix::fs::MetadataExt;

    const WRITABLE_BY_GROUP: u32 = 0o020;
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let unreadable =
        |path: &Path, source| PrivateError::Unreadable { path: path.to_owned(), source };
    // Links are followed first, so that the directories above are the real ones.
    let path = path.canonicalize().map_err(|source| unreadable(path, source))?;
    let ours = rustix::process::geteuid().as_raw();
    for directory in path.ancestors() {
        let metadata =
            std::fs::metadata(directory).map_err(|source| unreadable(directory, source))?;
        let is_itself = directory == path;
        // Root can change everything anyway. What is executed or believed has to be ours all the same.
        let by_root = metadata.uid() == 0 && (edited || !is_itself);
        if metadata.uid() != ours && !by_root {
            return Err(PrivateError::Owner(directory.to_owned()));
        }
        // In a sticky directory above it, like /tmp, only owners can rename.
        let sticky = metadata.mode() & STICKY != 0 && !is_itself;
        let trusted = if edited && metadata.gid() == ours { WRITABLE_BY_GROUP } else { 0 };
        if metadata.mode() & WRITABLE_BY_OTHERS & !trusted != 0 && !sticky {
            return Err(PrivateError::Writable(directory.to_owned()));
        }
    }
    Ok(())
}

/// As on Unix, where there is nothing to check.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn check(_: &Path) -> Result<(), PrivateError> {
    Ok(())
}

/// As on Unix, where there is nothing to check.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn check_edited(_: &Path) -> Result<(), PrivateError> {
    Ok(())
}

/// Whether users other than its owner may read a file: for files with secrets.
#[must_use]
pub fn others_may_read(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        const READABLE_BY_OTHERS: u32 = 0o044;
        std::fs::metadata(path).is_ok_and(|file| file.mode() & READABLE_BY_OTHERS != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let path = folder.path().join("above/private");
        make(&path).unwrap();
        check(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        for (culprit, mode, allowed) in [
            (&*path, 0o720, false),
            (&*path, 0o702, false),
            (&*path, 0o1777, false),
            (&*path, 0o755, true),
            (path.parent().unwrap(), 0o777, false),
            (path.parent().unwrap(), 0o1777, true),
        ] {
            set(culprit, mode);
            let checked = check(&path);
            assert_eq!(checked.is_ok(), allowed, "{} {mode:o}", culprit.display());
            if let Err(error) = checked {
                let hint = format!("run 'chmod go-w {}'", culprit.display());
                assert!(error.to_string().contains(&hint), "{error}");
            }
            set(culprit, 0o700);
        }
    }

    #[test]
    fn what_is_written_can_be_read_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        for content in ["one", "another"] {
            write(&path, content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_people_edit_may_be_written_by_the_group_that_is_theirs_alone() {
        let folder = tempfile::tempdir().unwrap();
        let set = |mode| {
            std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(mode)).unwrap();
        };
        let metadata = std::fs::metadata(folder.path()).unwrap();
        let own = std::os::unix::fs::MetadataExt::gid(&metadata)
            == std::os::unix::fs::MetadataExt::uid(&metadata);
        set(0o775);
        assert_eq!(check_edited(folder.path()).is_ok(), own);
        assert!(check(folder.path()).is_err());
        set(0o777);
        assert!(check_edited(folder.path()).is_err());
        set(0o755);
        check_edited(folder.path()).unwrap();
    }

    #[test]
    fn a_link_is_as_private_as_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let (open, link) = (folder.path().join("open"), folder.path().join("link"));
        make(&open.join("private")).unwrap();
        std::os::unix::fs::symlink(open.join("private"), &link).unwrap();
        check(&link).unwrap();
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(matches!(check(&link), Err(PrivateError::Writable(culprit)) if culprit == open));
    }

    #[test]
    fn a_file_that_others_may_read_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, readable) in [(0o600, false), (0o640, true), (0o604, true), (0o700, false)] {
            std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(others_may_read(file.path()), readable, "{mode:o}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_private() {
        let folder = tempfile::tempdir().unwrap();
        let error = check(&folder.path().join("missing")).unwrap_err();
        assert!(matches!(error, PrivateError::Unreadable { .. }), "{error}");
    }
}
