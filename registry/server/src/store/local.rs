//! A store of one process: a thread that decides changes one after the other, and makes them durable
//! many at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::file::File;
use super::{WriteError, Written};
use crate::metrics::Metrics;
use crate::record::{Key, Record, Verdict, Write, decide};
use crate::view::{Change, Encode, View};

/// Changes that wait; one more is refused.
const QUEUE: usize = 4096;

/// Changes that are made durable together: as long as a sync takes, more arrive.
const BATCH: usize = 64;

/// The way to the thread.
#[derive(Clone)]
pub(crate) struct Local {
    jobs: mpsc::Sender<Job>,
    /// Whether the last changes could not be made durable.
    fails: Arc<AtomicBool>,
}

struct Job {
    key: Key,
    write: Write,
    reply: oneshot::Sender<Result<Written, WriteError>>,
}

impl Local {
    /// Starts the thread; it ends when all handles to it are gone. Without a file, nothing outlives
    /// the process.
    ///
    /// # Errors
    /// When the system has no thread left.
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

    /// Makes a change. Cancel-safe: a change whose caller is gone may still be made.
    pub(crate) async fn write(&self, key: Key, write: Write) -> Result<Written, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(Job { key, write, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => WriteError::Busy,
            mpsc::error::TrySendError::Closed(_) => ended(),
        })?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Whether the last changes could not be made durable.
    pub(crate) fn fails(&self) -> bool {
        self.fails.load(Ordering::Relaxed)
    }

    /// Completes when the thread has ended, which it does only by a fault.
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

/// A job that was decided, and the number of its change among those of the batch.
struct Decided {
    reply: oneshot::Sender<Result<Written, WriteError>>,
    created: bool,
    removal: bool,
    change: Option<usize>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut jobs = vec![first];
            while jobs.len() < BATCH
                && let Ok(job) = queue.try_recv()
            {
                jobs.push(job);
            }
            self.batch(jobs);
        }
    }

    fn batch(&mut self, jobs: Vec<Job>) {
        // What the view will hold when the jobs before are done.
        let mut pending = HashMap::<Key, Option<Arc<Record>>>::new();
        let mut changes = Vec::<(Key, Option<Arc<Record>>)>::new();
        let mut decided = Vec::new();
        let mut heard = Vec::new();
        for Job { key, write, reply } in jobs {
            let alive = !matches!(write, Write::Evict | Write::Withdraw { .. });
            match self.decide(&pending, &key, write) {
                Ok((created, Verdict::Unchanged)) => {
                    if alive {
                        heard.push(key);
                    }
                    decided.push(Decided { reply, created, removal: false, change: None });
                }
                Ok((created, verdict)) => {
                    let record = match verdict {
                        Verdict::Replace(record) => Some(record),
                        Verdict::Remove | Verdict::Unchanged => None,
                    };
                    pending.insert(key.clone(), record.clone());
                    let (removal, change) = (record.is_none(), Some(changes.len()));
                    decided.push(Decided { reply, created, removal, change });
                    changes.push((key, record));
                }
                Err(error) => {
                    // Whoever asked may be gone.
                    let _ = reply.send(Err(error));
                }
            }
        }
        let failed = self.make_durable(&changes).err();
        if failed.is_none() {
            heard.iter().for_each(|key| self.view.hear(key));
        }
        let changes = if failed.is_some() { Vec::new() } else { changes };
        let changes = changes.into_iter().map(|(key, record)| Change { key, record, number: None });
        let (number, visible) = self.view.commit(changes, self.encode);
        for Decided { reply, created, removal, change } in decided {
            let visible = change.is_some_and(|change| visible.get(change) == Some(&true));
            let answer = match &failed {
                Some(error) if change.is_some() => Err(error.clone()),
                _ => Ok(Written { created, removed: removal, visible, number }),
            };
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
        if matches!(write, Write::Evict) && !self.view.is_silent(key) {
            // It was heard since somebody wanted it dropped.
            return Ok((false, Verdict::Unchanged));
        }
        let verdict = decide(key, known.as_deref(), write).map_err(WriteError::Refused)?;
        if let Verdict::Replace(record) = &verdict
            && !self.view.has_room(key, record.endpoints.len())
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
        let changes = changes.iter().map(|(key, record)| (key, record.as_deref()));
        let began = Instant::now();
        let committed = file.commit(changes);
        self.metrics.committed(began.elapsed(), committed.is_ok());
        self.fails.store(committed.is_err(), Ordering::Relaxed);
        committed.map_err(|error| {
            tracing::error!(%error, "changes cannot be written, and are refused; lists are still answered");
            WriteError::Unavailable(error.to_string())
        })
    }
}
