//! The store of a single process. A thread decides changes one after the other, and makes many of
//! them durable at a time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::file::File;
use super::{WriteError, Written};
use crate::metrics::Metrics;
use crate::record::{Key, Record, Verdict, Write, decide};
use crate::view::{Change, Encode, View};

/// The most changes that may wait. One more is refused.
const QUEUE: usize = 4096;

/// The most changes that are made durable together. While one batch is synced, more changes arrive.
const BATCH: usize = 64;

/// The handle to the thread.
#[derive(Clone)]
pub(crate) struct Local {
    jobs: mpsc::Sender<Asked>,
    /// Whether the last changes could not be made durable.
    fails: Arc<AtomicBool>,
}

struct Job {
    key: Key,
    write: Write,
    reply: oneshot::Sender<Result<Written, WriteError>>,
}

/// What the thread is asked for.
enum Asked {
    Change(Box<Job>),
    /// Whether the store's file is still there.
    Look,
}

impl Local {
    /// Starts the thread. It ends when all handles to it are gone. Without a file, nothing outlives
    /// the process.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub(crate) fn start(
        view: Arc<View>,
        file: Option<File>,
        encode: Encode,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Local> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let fails = Arc::new(AtomicBool::new(false));
        let writer = Writer { view, file, encode, metrics, fails: fails.clone() };
        std::thread::Builder::new()
            .name("wharf-registry-store".to_owned())
            .spawn(move || writer.run(queue))?;
        Ok(Local { jobs, fails })
    }

    /// Makes a change. Cancel-safe: if the caller is gone, the change may still be made.
    pub(crate) async fn write(&self, key: Key, write: Write) -> Result<Written, WriteError> {
        let (reply, answer) = oneshot::channel();
        let job = Asked::Change(Box::new(Job { key, write, reply }));
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => WriteError::Busy,
            mpsc::error::TrySendError::Closed(_) => ended(),
        })?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Whether the last changes could not be made durable.
    pub(crate) fn fails(&self) -> bool {
        self.fails.load(Ordering::Relaxed)
    }

    /// Has the thread look whether the store's file is still there. Does not wait for it.
    pub(crate) fn look(&self) {
        // When it is too busy for that, its changes make it look.
        let _ = self.jobs.try_send(Asked::Look);
    }

    /// Completes when the thread has ended. While there is a handle, only a bug can end it.
    pub(crate) async fn ended(&self) {
        self.jobs.closed().await;
    }
}

fn ended() -> WriteError {
    WriteError::Unavailable("its thread has ended".to_owned())
}

struct Writer {
    view: Arc<View>,
    file: Option<File>,
    encode: Encode,
    metrics: Arc<Metrics>,
    fails: Arc<AtomicBool>,
}

/// A job that was decided, and the position of its change in the batch.
struct Decided {
    reply: oneshot::Sender<Result<Written, WriteError>>,
    created: bool,
    removal: bool,
    change: Option<usize>,
    refused: Option<WriteError>,
    /// It was decided on the result of an earlier job in the batch.
    depends: bool,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Asked>) {
        while let Some(first) = queue.blocking_recv() {
            let mut jobs = Vec::new();
            let mut looks = false;
            let mut next = Some(first);
            while let Some(asked) = next {
                match asked {
                    Asked::Change(job) => jobs.push(*job),
                    Asked::Look => looks = true,
                }
                next = if jobs.len() < BATCH { queue.try_recv().ok() } else { None };
            }
            if looks {
                self.look();
            }
            if !jobs.is_empty() {
                self.batch(jobs);
            }
        }
    }

    /// Writes the store anew if its file is gone.
    fn look(&mut self) {
        let Some(file) = &mut self.file else { return };
        let everything = || self.view.records();
        let looked = file.look(everything).and_then(|_| {
            // What failed may work again, and nobody asks a registry that is not ready for changes.
            if self.fails.load(Ordering::Relaxed) { file.commit(&[], everything) } else { Ok(()) }
        });
        match looked {
            Ok(()) => self.fails.store(false, Ordering::Relaxed),
            Err(error) => {
                if !self.fails.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the store's file is not what the registry wrote, and cannot be written anew: changes are refused, lists are still served");
                }
            }
        }
    }

    fn batch(&mut self, jobs: Vec<Job>) {
        // What the view will hold when the earlier jobs are done.
        let mut pending = HashMap::<Key, Option<Arc<Record>>>::new();
        let mut changes = Vec::<(Key, Option<Arc<Record>>)>::new();
        let mut decided = Vec::new();
        let mut heard = HashSet::new();
        for Job { key, write, reply } in jobs {
            let alive = write.is_sign_of_life();
            let depends = pending.contains_key(&key);
            if matches!(write, Write::Evict) && (heard.contains(&key) || !self.view.is_silent(&key))
            {
                // It was heard after the sweep had chosen to drop it.
                decided.push(Decided {
                    reply,
                    created: false,
                    removal: false,
                    change: None,
                    refused: None,
                    depends,
                });
                continue;
            }
            let (created, verdict, refused) = match self.decide(&pending, &key, write) {
                Ok((created, verdict)) => (created, verdict, None),
                Err(error) => (false, Verdict::Unchanged, Some(error)),
            };
            if alive && refused.is_none() {
                heard.insert(key.clone());
            }
            let record = match verdict {
                Verdict::Unchanged => None,
                Verdict::Replace(record) => Some(Some(record)),
                Verdict::Remove => Some(None),
            };
            let removal = record == Some(None);
            let change = record.map(|record| {
                pending.insert(key.clone(), record.clone());
                changes.push((key, record));
                changes.len() - 1
            });
            decided.push(Decided { reply, created, removal, change, refused, depends });
        }
        let failed = self.make_durable(&changes).err();
        // A host that asks is alive, even if its change cannot be made durable.
        let known = heard.iter().filter(|key| self.view.record(key).is_some());
        known.for_each(|key| self.view.hear(key));
        let changes = if failed.is_some() { Vec::new() } else { changes };
        let changes = changes.into_iter().map(|(key, record)| Change { key, record, number: None });
        let (number, visible) = self.view.commit(changes, self.encode);
        for Decided { reply, created, removal, change, refused, depends } in decided {
            let visible = change.is_some_and(|change| visible.get(change) == Some(&true));
            let answer = match (&failed, refused) {
                (Some(error), _) if change.is_some() || depends => Err(error.clone()),
                (_, Some(refused)) => Err(refused),
                _ => Ok(Written { created, removed: removal, visible, number }),
            };
            // The caller may be gone.
            let _ = reply.send(answer);
        }
    }

    fn decide(
        &self,
        pending: &HashMap<Key, Option<Arc<Record>>>,
        key: &Key,
        write: Write,
    ) -> Result<(bool, Verdict), WriteError> {
        let known = match pending.get(key) {
            Some(pending) => pending.clone(),
            None => self.view.record(key),
        };
        let verdict = decide(key, known.as_deref(), write).map_err(WriteError::Refused)?;
        if let Verdict::Replace(record) = &verdict
            && !self.view.has_room(key, record)
        {
            return Err(WriteError::Refused(crate::record::Refusal::Full));
        }
        Ok((known.is_none(), verdict))
    }

    fn make_durable(&mut self, changes: &[(Key, Option<Arc<Record>>)]) -> Result<(), WriteError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if changes.is_empty() {
            return Ok(());
        }
        let changes: Vec<_> =
            changes.iter().map(|(key, record)| (key, record.as_deref())).collect();
        let began = Instant::now();
        let committed = file.commit(&changes, || self.view.records());
        self.metrics.committed(began.elapsed(), committed.is_ok());
        self.fails.store(committed.is_err(), Ordering::Relaxed);
        committed.map_err(|error| {
            tracing::error!(%error, "changes cannot be written and are refused; lists are still served");
            WriteError::Unavailable(error.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Patience;
    use std::time::Duration;
    use wharf_registry_api::{Declaration, Metadata};

    fn writer() -> Writer {
        let moment = Duration::from_millis(1);
        Writer {
            view: Arc::new(View::new(Patience::whole(moment), moment, 1, 1)),
            file: None,
            encode: |_| bytes::Bytes::new(),
            metrics: Metrics::new().unwrap(),
            fails: Arc::default(),
        }
    }

    type Answer = oneshot::Receiver<Result<Written, WriteError>>;

    fn job(key: &Key, write: Write) -> (Job, Answer) {
        let (reply, answer) = oneshot::channel();
        (Job { key: key.clone(), write, reply }, answer)
    }

    fn declare(session: u64) -> Write {
        let (address, endpoints, metadata) = ("a:1".to_owned(), Vec::new(), Metadata::new());
        let declaration = Declaration { session, address, endpoints, metadata };
        Write::Declare { declaration, digest: String::new() }
    }

    fn answers(writer: &mut Writer, jobs: &[(Key, Write)]) -> Vec<Result<Written, WriteError>> {
        let (jobs, answers): (Vec<_>, Vec<_>) =
            jobs.iter().map(|(key, write)| job(key, write.clone())).unzip();
        writer.batch(jobs);
        answers.into_iter().map(|mut answer| answer.try_recv().unwrap()).collect()
    }

    #[test]
    fn jobs_of_one_batch_see_each_other() {
        let mut writer = writer();
        let host = Key::host("h");
        let answers = answers(
            &mut writer,
            &[
                (host.clone(), declare(2)),
                (host.clone(), declare(1)),
                (host.clone(), Write::Withdraw { session: 2 }),
                (host.clone(), declare(1)),
            ],
        );
        assert!(answers[0].as_ref().unwrap().created);
        assert_eq!(answers[1], Err(WriteError::Refused(crate::record::Refusal::Superseded(2))));
        assert!(answers[2].as_ref().unwrap().removed);
        assert!(answers[3].as_ref().unwrap().created);
        assert_eq!(writer.view.record(&host).unwrap().session, 1);
    }

    #[test]
    fn a_host_that_is_heard_is_not_evicted_in_the_same_batch() {
        let mut writer = writer();
        let host = Key::host("h");
        answers(&mut writer, &[(host.clone(), declare(1))]);
        while writer.view.sweep().is_empty() {
            std::thread::yield_now();
        }
        let evicted =
            |answers: &[Result<Written, WriteError>]| answers[1].as_ref().unwrap().removed;
        let both = [(host.clone(), declare(1)), (host.clone(), Write::Evict)];
        assert!(!evicted(&answers(&mut writer, &both)));
        assert!(writer.view.record(&host).is_some());
        while writer.view.sweep().is_empty() {
            std::thread::yield_now();
        }
        let alone = [(Key::host("other"), declare(1)), (host.clone(), Write::Evict)];
        assert!(evicted(&answers(&mut writer, &alone)));
        assert!(writer.view.record(&host).is_none());
    }
}
