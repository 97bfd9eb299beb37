//! The embedded store: one file, in which every acknowledged record survives the process.
//!
//! redb commits are atomic and synced, so a process that is killed leaves either the state before a
//! batch or the state after it. Checksums protect against a medium that returns wrong data: every
//! page has redb's checksum, which is verified when the file is opened, and every record has its
//! own checksum over key and content.
//!
//! Checksums do not detect a file that is whole but old, and one bit of redb's header says which of
//! the last two commits counts. So commits are numbered, and a small file beside the store holds
//! the number of the last acknowledged commit.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::stored;
use crate::record::{Key, Record, Records};

const COMMITS: TableDefinition<'_, (), u64> = TableDefinition::new("commits-1");

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records-1");

/// The bytes of pages that are kept in memory. Few are enough: records are read once, at the start.
const CACHE: usize = 8 * 1024 * 1024;

const CHECKSUM: usize = 16;

/// How long a store that another process has open is waited for: a process that was killed is gone
/// for its peers before the system has let go of its files, and its successor may be started by then.
const PREDECESSOR_ENDS: Duration = Duration::from_secs(2);

const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// The name of the thread that opens a store. It may panic on a damaged store, which is then
/// reported as an error. A program's panic hook should be silent for this thread.
pub const OPENING_THREAD: &str = "wharf-registry-open";

/// An open store.
pub(crate) struct File {
    path: PathBuf,
    /// None after a write that failed. The next write opens it again.
    database: Option<Database>,
    /// The file that was opened. While it is held, no other file gets its number.
    held: std::fs::File,
    acknowledged: Acknowledged,
    /// The number of the last commit.
    number: u64,
}

/// How often changes are written again because the file was taken away meanwhile.
const REWRITES: usize = 3;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "the registry's store {path} is in use by another process: stop that registry, or name another file with --store"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read or created.
    #[error("the registry's store {path} cannot be opened")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its content is not what was written.
    #[error(
        "the registry's store {path} is damaged ({what}), and nothing of it is served: restore it, or move it away; with an empty store every living host declares itself again within a heartbeat"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How the damage was found.
        what: String,
    },
}

impl File {
    /// Opens a store, or creates an empty one. Verifies and reads all of it.
    pub(crate) fn open(path: &Path) -> Result<(File, Records), OpenError> {
        let owned = path.to_owned();
        // redb has assertions that only a damaged file can break. With a thread of its own, such a
        // panic becomes an ordinary error.
        let opened = std::thread::Builder::new()
            .name(OPENING_THREAD.to_owned())
            .spawn(move || wait_and_read(&owned))
            .map_err(|source| OpenError::Unreadable {
                path: path.to_owned(),
                source: source.into(),
            })?
            .join();
        let Opened { database, records, acknowledged, number } = opened.unwrap_or_else(|_| {
            Err(OpenError::Damaged {
                path: path.to_owned(),
                what: "it contradicts itself".to_owned(),
            })
        })?;
        let held = std::fs::File::open(path).map_err(|source| OpenError::Unreadable {
            path: path.to_owned(),
            source: source.into(),
        })?;
        let path = path.to_owned();
        Ok((File { path, database: Some(database), held, acknowledged, number }, records))
    }

    /// Makes changes durable, all or none of them. `everything` is what the store holds without them: if
    /// the file is not there any more, or another one has its name, the store is written anew.
    ///
    /// # Errors
    /// When it is not certain that they are durable. The next call starts from what the file then
    /// holds.
    pub(crate) fn commit<'c>(
        &mut self,
        changes: &[(&'c Key, Option<&'c Record>)],
        everything: impl Fn() -> Records,
    ) -> Result<(), redb::Error> {
        for _ in 0..REWRITES {
            self.look(&everything)?;
            let database = match self.database.take() {
                Some(database) => database,
                None => Database::builder().set_cache_size(CACHE).open(&self.path)?,
            };
            self.number = write(&database, changes.iter().copied(), None)?;
            self.acknowledged.write(self.number)?;
            self.database = Some(database);
            if self.is_in_place()? {
                return Ok(());
            }
        }
        Err(redb::Error::Io(std::io::Error::other("its file is taken away again and again")))
    }

    /// Writes the store anew if its file was deleted or replaced. Returns whether it was.
    ///
    /// # Errors
    /// When it cannot be written, or another process uses the file that has its name now.
    pub(crate) fn look(&mut self, everything: impl Fn() -> Records) -> Result<bool, redb::Error> {
        if self.is_in_place()? {
            return Ok(false);
        }
        self.database = None;
        tracing::error!(
            store = %self.path.display(),
            "the store's file was deleted or replaced while the registry uses it: it is written anew"
        );
        make_directory(&self.path)?;
        if self.path.try_exists()? {
            // Not while another registry keeps its records in it.
            let opened = Database::builder().set_cache_size(CACHE).open(&self.path);
            if matches!(opened, Err(redb::DatabaseError::DatabaseAlreadyOpen)) {
                return Err(redb::Error::DatabaseAlreadyOpen);
            }
            drop(opened);
            let mut aside = self.path.as_os_str().to_owned();
            aside.push(format!(".{:08x}.replaced", fastrand::u32(..)));
            let aside = PathBuf::from(aside);
            std::fs::rename(&self.path, &aside)?;
            tracing::warn!(found = %aside.display(), "what had the store's name is kept under this one");
        }
        let records = everything();
        let next = self.number + 1;
        create(&self.path, |database| {
            let changes = records.iter().map(|(key, record)| (key, Some(&**record)));
            write(database, changes, Some(next)).map(drop)
        })?;
        self.number = next;
        self.held = std::fs::File::open(&self.path)?;
        self.acknowledged = Acknowledged::open(&self.path, false)?.0;
        self.acknowledged.write(next)?;
        self.database = Some(Database::builder().set_cache_size(CACHE).open(&self.path)?);
        Ok(true)
    }

    /// Whether the store's name still leads to the file that was opened.
    fn is_in_place(&self) -> std::io::Result<bool> {
        let ours = self.held.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Writes changes, and returns the number of the commit: the next one, or this one.
fn write<'c>(
    database: &Database,
    changes: impl IntoIterator<Item = (&'c Key, Option<&'c Record>)>,
    number: Option<u64>,
) -> Result<u64, redb::Error> {
    let mut transaction = database.begin_write()?;
    // With one phase, a damaged commit would look the same as one that did not finish.
    transaction.set_two_phase_commit(true);
    let number = {
        let mut commits = transaction.open_table(COMMITS)?;
        let next = commits.get(())?.map_or(1, |number| number.value() + 1);
        let number = number.unwrap_or(next);
        commits.insert((), number)?;
        number
    };
    {
        let mut records = transaction.open_table(RECORDS)?;
        for (key, record) in changes {
            let key = key.text();
            match record {
                Some(record) => {
                    let content = stored::encode(record);
                    let mut value = checksum(&key, &content).to_vec();
                    value.extend_from_slice(&content);
                    records.insert(&key[..], &value[..])?;
                }
                None => drop(records.remove(&key[..])?),
            }
        }
    }
    transaction.commit()?;
    Ok(number)
}

/// The number of the last commit that was acknowledged, in a file beside the store.
struct Acknowledged {
    file: std::fs::File,
}

impl Acknowledged {
    fn path(store: &Path) -> PathBuf {
        let mut path = store.as_os_str().to_owned();
        path.push(".last");
        path.into()
    }

    /// Opens the file that belongs to a store, and reads its number. There is no number if the file
    /// was never written, or is damaged itself. It then says nothing about the store.
    fn open(store: &Path, new: bool) -> std::io::Result<(Self, Option<u64>)> {
        let mut options = std::fs::OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(Acknowledged::path(store))?;
        let mut bytes = [0; 16];
        let number = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {
                let [number, sum] =
                    [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i])));
                (Acknowledged::sum(number) == sum).then_some(number)
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        if new && let Some(number) = number {
            tracing::warn!(
                store = %store.display(),
                acknowledged = number,
                "the store is missing, although changes were acknowledged in it: the registry begins with an empty one; was the file moved away on purpose, or is a disk not mounted?"
            );
            file.set_len(0)?;
            return Ok((Acknowledged { file }, None));
        }
        Ok((Acknowledged { file }, number))
    }

    /// This need not be synced, because the commit was synced before it. The number may be behind
    /// the store, but never ahead of it.
    fn write(&self, number: u64) -> std::io::Result<()> {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.extend_from_slice(&Acknowledged::sum(number).to_le_bytes());
        self.file.write_all_at(&bytes, 0)
    }

    fn sum(number: u64) -> u64 {
        let hash = blake3::hash(&number.to_le_bytes());
        u64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i]))
    }
}

struct Opened {
    database: Database,
    records: Records,
    acknowledged: Acknowledged,
    /// Of its last commit.
    number: u64,
}

/// Reads a store, and waits for a predecessor that ends.
#[expect(clippy::disallowed_methods, reason = "a thread of its own, which does nothing but this")]
fn wait_and_read(path: &Path) -> Result<Opened, OpenError> {
    let began = Instant::now();
    let mut said = false;
    loop {
        match verify_and_read(path) {
            Err(OpenError::InUse { .. }) if began.elapsed() < PREDECESSOR_ENDS => {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!(
                        store = %path.display(),
                        "another process has the store open: waiting, in case it is ending"
                    );
                }
                std::thread::sleep(BETWEEN_TRIES);
            }
            opened => return opened,
        }
    }
}

fn verify_and_read(path: &Path) -> Result<Opened, OpenError> {
    let damaged = |what: String| OpenError::Damaged { path: path.to_owned(), what };
    let failed = |error: redb::Error| match error {
        redb::Error::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
        redb::Error::Io(source) if !damage(&source) => {
            OpenError::Unreadable { path: path.to_owned(), source: source.into() }
        }
        error => damaged(error.to_string()),
    };
    let unreadable = |source: std::io::Error| OpenError::Unreadable {
        path: path.to_owned(),
        source: source.into(),
    };
    make_directory(path).map_err(unreadable)?;
    let new = !path.try_exists().map_err(unreadable)?;
    if new {
        create(path, |_| Ok(())).map_err(failed)?;
    }
    let mut database = Database::builder()
        .set_cache_size(CACHE)
        .open(path)
        .map_err(|error| failed(error.into()))?;
    // False means that redb found damage, and repaired it by leaving the damaged part out.
    if !database.check_integrity().map_err(|error| failed(error.into()))? {
        return Err(damaged("its checksums are wrong".to_owned()));
    }
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let mut records = Vec::new();
    match transaction.open_table(RECORDS) {
        Ok(table) => {
            for entry in table.iter().map_err(|error| failed(error.into()))? {
                let (key, value) = entry.map_err(|error| failed(error.into()))?;
                records.push(read(key.value(), value.value()).map_err(damaged)?);
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(failed(error.into())),
    }
    let committed = match transaction.open_table(COMMITS) {
        Ok(table) => table.get(()).map_err(|error| failed(error.into()))?.map(|n| n.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(failed(error.into())),
    };
    drop(transaction);
    let (acknowledged, last) = Acknowledged::open(path, new).map_err(unreadable)?;
    let committed = committed.unwrap_or(0);
    if let Some(last) = last.filter(|last| *last > committed) {
        return Err(damaged(format!(
            "its last write is {committed}, but write {last} was acknowledged; if it was restored from a backup on purpose, remove {}",
            Acknowledged::path(path).display()
        )));
    }
    Ok(Opened { database, records, acknowledged, number: committed })
}

/// Creates a store and fills it, as a whole or not at all: one that was interrupted would be taken for
/// damaged. Another process may be first.
fn create(
    path: &Path,
    fill: impl FnOnce(&Database) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}-{:08x}.new", std::process::id(), fastrand::u32(..)));
    let unfinished = PathBuf::from(name);
    let created = Database::builder().set_cache_size(CACHE).create(&unfinished);
    let created = created.map_err(redb::Error::from).and_then(|database| {
        fill(&database)?;
        drop(database);
        std::fs::File::open(&unfinished)?.sync_all()?;
        match std::fs::hard_link(&unfinished, path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked.map_err(redb::Error::from),
        }
    });
    let removed = std::fs::remove_file(&unfinished);
    created?;
    removed?;
    // The name itself has to survive a crash too.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

/// Whether a read error means that the file's content is not what was written.
fn damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
}

fn read(key: &str, value: &[u8]) -> Result<(Key, Arc<Record>), String> {
    let Some((sum, content)) = value.split_at_checked(CHECKSUM) else {
        return Err(format!("the record '{key}' is cut off"));
    };
    if sum != checksum(key, content) {
        return Err(format!("the record '{key}' has a wrong checksum"));
    }
    let parsed = Key::parse(key).ok_or_else(|| format!("the key '{key}' is invalid"))?;
    let record = stored::decode(&parsed, content)
        .map_err(|error| format!("the record '{key}' is from another version of Wharf: {error}"))?;
    Ok((parsed, Arc::new(record)))
}

fn checksum(key: &str, content: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key.as_bytes());
    hasher.update(content);
    let mut sum = [0; CHECKSUM];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => std::fs::create_dir_all(parent),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{classic, record};

    fn commit(file: &mut File, changes: &[(&Key, Option<&Record>)]) {
        file.commit(changes, Records::new).unwrap();
    }

    #[test]
    fn a_store_whose_file_is_deleted_or_replaced_is_written_anew_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/store.redb");
        let (mut file, _) = File::open(&path).unwrap();
        let (first, second, third) = (Key::host("1"), Key::host("2"), Key::host("3"));
        let written = Arc::new(record(5, &["a"]));
        commit(&mut file, &[(&first, Some(&written))]);
        let known = || vec![(first.clone(), written.clone())];
        assert!(!file.look(known).unwrap());
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        file.commit(&[(&second, Some(&*written))], known).unwrap();
        std::fs::write(folder.path().join("other"), "something else").unwrap();
        std::fs::rename(folder.path().join("other"), &path).unwrap();
        let known = || vec![(first.clone(), written.clone()), (second.clone(), written.clone())];
        assert!(file.look(known).unwrap());
        file.commit(&[(&third, Some(&*written))], known).unwrap();
        drop(file);
        let (mut file, records) = File::open(&path).unwrap();
        assert_eq!(
            sorted(records),
            [first.clone(), second.clone(), third].map(|k| (k, written.clone()))
        );
        let aside = std::fs::read_dir(path.parent().unwrap()).unwrap();
        let aside =
            aside.map(|entry| entry.unwrap().path()).find(|p| p.extension().unwrap() == "replaced");
        assert_eq!(std::fs::read_to_string(aside.unwrap()).unwrap(), "something else");
        // What another registry uses is left to it.
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(Acknowledged::path(&path)).unwrap();
        let (_other, _) = File::open(&path).unwrap();
        assert!(matches!(file.look(known), Err(redb::Error::DatabaseAlreadyOpen)));
    }

    #[test]
    fn what_was_committed_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/store.redb");
        let (mut file, records) = File::open(&path).unwrap();
        assert!(records.is_empty());
        let (kept, gone) = (Key::host("kept"), Key::classic("Arith", "a:1"));
        let written = record(5, &["a", "b"]);
        commit(&mut file, &[(&kept, Some(&written)), (&gone, Some(&classic("a:1")))]);
        commit(&mut file, &[(&gone, None)]);
        assert!(matches!(File::open(&path), Err(OpenError::InUse { .. })));
        drop(file);
        let (_, records) = File::open(&path).unwrap();
        assert_eq!(records, [(kept, Arc::new(written))]);
    }

    /// Flips bits all over a file. After each flip, the store has to serve `intact`, or nothing.
    fn flip_bits(bytes: &[u8], intact: &Records, copy: &Path) {
        let mut found = 0;
        // Every bit of the header, which says where everything else is, and one bit of many other
        // bytes.
        let header = (0..8 * 320).map(|bit| (bit / 8, bit % 8));
        let elsewhere = (320..bytes.len()).step_by(bytes.len() / 150).map(|byte| (byte, byte % 8));
        let acknowledged = Acknowledged::path(&copy.with_file_name("store.redb"));
        for (position, bit) in header.chain(elsewhere) {
            std::fs::copy(&acknowledged, Acknowledged::path(copy)).unwrap();
            let mut flipped = bytes.to_vec();
            flipped[position] ^= 1 << bit;
            std::fs::write(copy, &flipped).unwrap();
            match File::open(copy) {
                Ok((_, records)) => {
                    assert!(
                        sorted(records) == *intact,
                        "a bit at {position} changed what is served"
                    );
                }
                Err(OpenError::Damaged { .. }) => found += 1,
                Err(other) => panic!("the bit at {position}: {other}"),
            }
        }
        assert!(found > 20, "only {found} were found");
    }

    fn sorted(mut records: Records) -> Records {
        records.sort_by(|a, b| a.0.cmp(&b.0));
        records
    }

    #[test]
    fn a_flipped_bit_is_found_or_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let (mut file, _) = File::open(&path).unwrap();
        let hosts: Vec<Key> = (0..40).map(|n| Key::host(&format!("h{n}"))).collect();
        let record = record(5, &["a", "b", "c"]);
        for hosts in hosts.chunks(7) {
            let changes: Vec<_> = hosts.iter().map(|host| (host, Some(&record))).collect();
            commit(&mut file, &changes);
        }
        let as_a_killed_process_leaves_it = std::fs::read(&path).unwrap();
        drop(file);
        let (file, intact) = File::open(&path).unwrap();
        drop(file);
        let intact = sorted(intact);
        assert_eq!(intact.len(), 40);
        let copy = folder.path().join("flipped.redb");
        flip_bits(&std::fs::read(&path).unwrap(), &intact, &copy);
        flip_bits(&as_a_killed_process_leaves_it, &intact, &copy);
    }

    #[test]
    fn a_torn_file_is_found_and_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let (mut file, _) = File::open(&path).unwrap();
        commit(&mut file, &[(&Key::host("h"), Some(&record(5, &["a"])))]);
        drop(file);
        let whole = std::fs::read(&path).unwrap();
        for length in [1, 100, 4096, whole.len() / 2] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = File::open(&path).err().expect("a torn file").to_string();
            assert!(error.contains("is damaged") && error.contains("move it away"), "{error}");
        }
        // Once the file is moved away, as the message says, the store opens and is empty.
        std::fs::rename(&path, folder.path().join("damaged")).unwrap();
        assert!(File::open(&path).unwrap().1.is_empty());
        std::fs::write(&path, "something else").unwrap();
        assert!(matches!(File::open(&path), Err(OpenError::Damaged { .. })));
    }
}
