//! `/v1/watch`: changes as they happen, as server-sent events.
//!
//! A watcher holds only a place in the registry's journal and what it is about to send. Only
//! bookmarks have ids: between two bookmarks, a watcher may have seen only a part of one change.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use wharf_registry_api::{EVENT_STREAM, Index, WatchEvent};

use super::authorize::Caller;
use super::parameters::{Parameters, index, invalid, query};
use super::{Refused, Source};
use crate::directory::Directory;
use crate::journal::{Cursor, Next};
use crate::listing::{self, HostSnapshot};
use crate::metrics::Watching;
use crate::view::Waiting;

/// How often an idle watcher gets a bookmark. The bookmark proves that both sides are alive, and
/// advances the index at which the watch would resume.
const BOOKMARK: Duration = Duration::from_secs(15);

/// The most events that are read from the journal at once.
const BURST: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WatchParameters {
    service: Option<String>,
    index: Option<String>,
}

pub(super) async fn watch(
    State(source): State<Source>,
    Extension(caller): Extension<Caller>,
    parameters: Parameters<WatchParameters>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let WatchParameters { service, index: after } = query(parameters)?;
    let service = service.map(|name| crate::validate::service(&name)).transpose()?;
    // A browser or client that reconnects sends this header by itself. It is newer than the index
    // in the URL, which is that of its first request.
    let last = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
    let after = match last.filter(|id| !id.is_empty()).or(after.as_deref()) {
        Some(text) => Some(index(text).map_err(|problem| {
            invalid(format!("{} (Last-Event-ID is the id of a bookmark)", problem.detail))
        })?),
        None => None,
    };
    if let Some(after) = after {
        source.directory.caught_up(after).await;
    }
    let revoked = Box::pin(caller.revoked(source.principals));
    let counted = source.metrics.watching();
    let watcher = Watcher::new(source.directory, service, after, counted, revoked);
    let events = futures_util::stream::unfold(watcher, |mut watcher| async move {
        let frame = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), watcher))
    });
    let headers = [
        (header::CONTENT_TYPE.as_str(), EVENT_STREAM),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        // A proxy that buffers an answer before it passes it on would delay the events.
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, Body::from_stream(events)).into_response())
}

/// An event as it goes over the wire.
pub(crate) fn frame(event: WatchEvent) -> Bytes {
    let (name, data) = match event {
        WatchEvent::Snapshot => ("snapshot", json!({})),
        WatchEvent::Upsert(endpoint) => ("upsert", json!(endpoint)),
        WatchEvent::Delete(id) => ("delete", json!(id)),
        WatchEvent::Bookmark(index) => {
            let data = json!({ "index": index });
            return format!("event: bookmark\nid: {index}\ndata: {data}\n\n").into();
        }
        WatchEvent::Resync => ("resync", json!({})),
        WatchEvent::Goodbye => ("goodbye", json!({})),
    };
    // This JSON has no line breaks. A line break would end the data.
    format!("event: {name}\ndata: {data}\n\n").into()
}

struct Watcher {
    directory: Arc<Directory>,
    service: Option<String>,
    cursor: Cursor,
    waiting: Waiting,
    /// The frames to send next.
    frames: VecDeque<Bytes>,
    /// Services whose endpoints the snapshot does not have yet.
    lacking: VecDeque<Arc<str>>,
    /// The service that is being added to the snapshot, and those of its hosts that are still
    /// missing.
    listing: Option<(Arc<str>, std::vec::IntoIter<HostSnapshot>)>,
    /// The number of the last bookmark, if the last event was one.
    told: Option<u64>,
    next_bookmark: Instant,
    ended: bool,
    /// Completes when the watcher may not read any more.
    revoked: Pin<Box<dyn Future<Output = ()> + Send>>,
    _counted: Watching,
}

impl Watcher {
    fn new(
        directory: Arc<Directory>,
        service: Option<String>,
        after: Option<Index>,
        counted: Watching,
        revoked: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> Self {
        // Take the place before anything is read, so that no change is missed.
        let waiting = directory.view.wait(service.as_deref());
        let view = &directory.view;
        let known = after.filter(|index| index.epoch == view.epoch());
        let resumed = known.and_then(|index| view.resume(index.number));
        let mut watcher = Watcher {
            waiting,
            cursor: resumed.unwrap_or_default(),
            frames: VecDeque::from([Bytes::from_static(b"retry: 1000\n\n")]),
            lacking: VecDeque::new(),
            listing: None,
            told: None,
            next_bookmark: Instant::now() + BOOKMARK,
            ended: false,
            revoked,
            _counted: counted,
            service,
            directory,
        };
        if resumed.is_none() {
            if after.is_some() {
                watcher.frames.push_back(frame(WatchEvent::Resync));
            }
            watcher.begin_snapshot();
        }
        watcher
    }

    fn begin_snapshot(&mut self) {
        let (services, cursor) = self.directory.view.snapshot(self.service.as_deref());
        self.lacking = services.into();
        self.listing = None;
        self.cursor = cursor;
        self.frames.push_back(frame(WatchEvent::Snapshot));
    }

    /// The next frame; `None` after the last. Cancel-safe.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            if self.list_some() {
                continue;
            }
            self.read();
            if self.frames.is_empty() {
                self.wait().await;
            }
        }
    }

    /// Encodes a few more endpoints of a snapshot, if any are missing. Encoded all at once, those
    /// of a large fleet would take megabytes for each watcher.
    fn list_some(&mut self) -> bool {
        if self.listing.is_none() {
            let Some(service) = self.lacking.pop_front() else { return false };
            let (_, hosts) = self.directory.hosts(Some(&service));
            self.listing = Some((service, hosts.into_iter()));
        }
        let Some((service, hosts)) = &mut self.listing else { return false };
        let some: Vec<HostSnapshot> = hosts.take(BURST).collect();
        for mut endpoint in listing::endpoints(&some, service, |_, _| true) {
            // Events do not say how sure the registry is at the moment.
            endpoint.unverified = false;
            self.frames.push_back(frame(WatchEvent::Upsert(Box::new(endpoint))));
        }
        if some.is_empty() {
            self.listing = None;
        }
        true
    }

    fn read(&mut self) {
        let view = &self.directory.view;
        let (next, complete) = view.read(&mut self.cursor, self.service.as_deref(), BURST);
        match next {
            Next::Lost => {
                self.told = None;
                self.frames.push_back(frame(WatchEvent::Resync));
                self.begin_snapshot();
            }
            Next::Events { frames, more } => {
                if !frames.is_empty() {
                    self.told = None;
                }
                self.frames.extend(frames);
                let overdue = Instant::now() >= self.next_bookmark;
                if !more && (self.told.is_none() || overdue) {
                    self.next_bookmark = Instant::now() + BOOKMARK;
                    self.told = Some(complete);
                    let index = view.index(complete);
                    self.frames.push_back(frame(WatchEvent::Bookmark(index)));
                }
            }
        }
    }

    async fn wait(&mut self) {
        tokio::select! {
            () = self.waiting.changed() => return,
            () = tokio::time::sleep_until(self.next_bookmark) => return,
            () = self.directory.stopped() => {}
            () = &mut self.revoked => {}
        }
        self.ended = true;
        self.frames.push_back(frame(WatchEvent::Goodbye));
    }
}
