//! Backups: all records of one moment, as lines of JSON. The first line says what follows, the last one is
//! a checksum of all before it, so that a part is never taken for the whole.

use std::io::BufRead;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wharf_registry_api::{BackupRecord, Code, Problem};

use crate::directory::Directory;
use crate::record::{Key, Record, Records, Registration};
use crate::store::stored;

/// The form of these lines.
const FORM: u32 = 1;

/// The longest line that is read, in bytes: a record of as many endpoints as a host may have is shorter.
const LONGEST_LINE: u64 = 64 * 1024 * 1024;

/// The most records that are written at the same time when they are restored.
const AT_A_TIME: usize = 64;

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The form of the lines.
    pub wharf_backup: u32,
    /// The version of the registry that wrote it.
    pub version: String,
    /// When it was taken (RFC 3339).
    pub taken: String,
    /// How many records follow.
    pub records: usize,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    /// Of all bytes before this line.
    blake3: String,
}

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Its file.
    #[error("it cannot be read")]
    Unreadable(#[from] std::io::Error),
    /// Something else, or a part of one.
    #[error("this is not a whole backup of a registry: {0}")]
    Broken(String),
}

/// The lines of a backup.
pub(crate) fn lines(records: Records) -> impl Iterator<Item = Vec<u8>> {
    let head = Head {
        wharf_backup: FORM,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        taken: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
        records: records.len(),
    };
    let mut hash = blake3::Hasher::new();
    let mut parts = std::iter::once(Part::Head(head))
        .chain(records.into_iter().map(|(key, record)| Part::Record(key, record)))
        .chain(std::iter::once(Part::End));
    std::iter::from_fn(move || {
        let line = match parts.next()? {
            Part::Head(head) => serde_json::to_vec(&head),
            Part::Record(key, record) => record_line(&key, &record),
            Part::End => serde_json::to_vec(&End { blake3: hash.finalize().to_hex().to_string() }),
        };
        // These have only strings, numbers and what was JSON before, so writing cannot fail.
        let mut line = line.unwrap_or_default();
        line.push(b'\n');
        hash.update(&line);
        Some(line)
    })
}

enum Part {
    Head(Head),
    Record(Key, Arc<Record>),
    End,
}

fn record_line(key: &Key, record: &Record) -> serde_json::Result<Vec<u8>> {
    let content = String::from_utf8(stored::encode(record)).unwrap_or_default();
    let record = RawValue::from_string(content)?;
    serde_json::to_vec(&BackupRecord { key: key.text(), record })
}

/// Reads a backup, and makes sure that it is whole.
///
/// # Errors
/// When it is not, or cannot be read.
pub fn read(mut from: impl BufRead) -> Result<(Head, Vec<BackupRecord>), BackupError> {
    let broken = |why: &str| BackupError::Broken(why.to_owned());
    let mut hash = blake3::Hasher::new();
    let mut line = Vec::new();
    let mut next = |hash: &mut blake3::Hasher| -> Result<(Vec<u8>, blake3::Hash), BackupError> {
        line.clear();
        let before = hash.finalize();
        std::io::Read::take(&mut from, LONGEST_LINE).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(broken("it ends in the middle"));
        }
        hash.update(&line);
        Ok((line.clone(), before))
    };
    let (first, _) = next(&mut hash)?;
    let head: Head =
        serde_json::from_slice(&first).map_err(|_| broken("its first line is something else"))?;
    if head.wharf_backup != FORM {
        return Err(broken(&format!("its form {} is of another version", head.wharf_backup)));
    }
    let mut records = Vec::new();
    for number in 0..head.records {
        let (text, _) = next(&mut hash)?;
        let record = serde_json::from_slice(&text)
            .map_err(|error| broken(&format!("line {}: {error}", number + 2)))?;
        records.push(record);
    }
    let (last, sum) = next(&mut hash)?;
    let end: End = serde_json::from_slice(&last).map_err(|_| broken("its last line is missing"))?;
    if end.blake3 != sum.to_hex().as_str() {
        return Err(broken("its checksum is wrong"));
    }
    Ok((head, records))
}

/// Reads what a backup has, as strictly as what hosts send.
fn parsed(record: &BackupRecord) -> Result<(Key, Record), Problem> {
    let invalid =
        |why: String| Problem::new(Code::Invalid, format!("the record '{}' {why}", record.key));
    let key = Key::parse(&record.key).ok_or_else(|| invalid("has no valid key".to_owned()))?;
    let content = stored::decode(&key, record.record.get().as_bytes())
        .map_err(|error| invalid(format!("cannot be read: {error}")))?;
    crate::validate::name("name", key.name())?;
    let declaration = wharf_registry_api::Declaration {
        session: content.session,
        address: content.address.clone(),
        endpoints: content.endpoints.clone(),
        metadata: content.metadata.clone(),
    };
    match &key {
        Key::Host(_) => crate::validate::declaration(&declaration)?,
        Key::Classic { address, .. } => {
            crate::validate::address(address)?;
            for spec in &content.endpoints {
                crate::validate::registration(&Registration {
                    version: spec.version.clone(),
                    tags: spec.tags.clone(),
                    metadata: spec.metadata.clone(),
                    ..Registration::default()
                })?;
            }
            if let Some(upkeep) = &content.upkeep {
                crate::validate::upkeep(upkeep, address)?;
            }
            if content.endpoints.len() != 1 || *content.address != **address {
                return Err(invalid("does not belong to its key".to_owned()));
            }
        }
    }
    Ok((key, content))
}

impl Directory {
    /// Writes records of a backup, each unless there is one already. Returns how many there were not.
    pub(crate) async fn restore_all(&self, records: &[BackupRecord]) -> Result<usize, Problem> {
        let parsed: Vec<_> = records.iter().map(parsed).collect::<Result<_, _>>()?;
        for (key, record) in &parsed {
            self.room_for_probes(key, record.upkeep.as_deref())?;
        }
        let mut restored = 0;
        let mut parsed = parsed.into_iter();
        loop {
            let some: Vec<_> = parsed.by_ref().take(AT_A_TIME).collect();
            if some.is_empty() {
                return Ok(restored);
            }
            let writes = some.into_iter().map(|(key, record)| self.restore(key, record));
            for created in futures_util::future::join_all(writes).await {
                restored += usize::from(created?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn backup() -> Vec<u8> {
        let records = (0..5)
            .map(|n| (Key::host(&format!("h{n}")), Arc::new(record(n, &["a", "b"]))))
            .collect();
        lines(records).flatten().collect()
    }

    #[test]
    fn a_backup_comes_back_whole() {
        let (head, records) = read(&backup()[..]).unwrap();
        assert_eq!((head.records, records.len()), (5, 5));
        let (key, content) = parsed(&records[3]).ok().unwrap();
        assert_eq!((key, content), (Key::host("h3"), record(3, &["a", "b"])));
    }

    #[test]
    fn a_part_or_a_changed_one_is_never_taken_for_a_backup() {
        let whole = backup();
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} bytes of {}", whole.len());
        }
        for position in 0..whole.len() {
            let mut changed = whole.clone();
            changed[position] ^= 1;
            // A line can be broken into two, or the text stays valid with another meaning.
            assert!(read(&changed[..]).is_err(), "a bit at {position}");
        }
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        let without_one: Vec<u8> = lines
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != 2)
            .flat_map(|(_, l)| l.to_vec())
            .collect();
        assert!(read(&without_one[..]).is_err());
    }
}
