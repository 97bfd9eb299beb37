//! Watches: a client that applies the events has the list.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use reqwest::Method;
use serde_json::json;
use wharf_registry_api::{
    Endpoint, EndpointId, Index, ListOptions, RegistryClient, Watch, WatchEvent,
};
use wharf_tests::{RegistryProcess, declaration, eventually, within};

type Endpoints = BTreeMap<EndpointId, Endpoint>;

/// What a watcher has received.
#[derive(Default)]
struct Fold {
    endpoints: Endpoints,
    complete: Option<Index>,
    snapshots: usize,
    resyncs: usize,
    ended: bool,
}

impl Fold {
    fn apply(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Snapshot => {
                self.endpoints.clear();
                self.snapshots += 1;
            }
            WatchEvent::Upsert(endpoint) => {
                self.endpoints.insert(endpoint.id(), *endpoint);
            }
            WatchEvent::Delete(id) => {
                assert!(self.endpoints.remove(&id).is_some(), "{id:?} was not there");
            }
            WatchEvent::Bookmark(index) => {
                assert!(self.complete.is_none_or(|before| before.number <= index.number));
                self.complete = Some(index);
            }
            WatchEvent::Resync => self.resyncs += 1,
            WatchEvent::Goodbye => self.ended = true,
        }
    }
}

/// The endpoints of all of these services, as lists show them.
async fn lists(registry: &RegistryClient, services: &[&str]) -> Endpoints {
    let mut endpoints = Endpoints::new();
    for service in services {
        let list = registry.endpoints(service, &ListOptions::default()).await.unwrap().unwrap();
        for endpoint in list.endpoints {
            endpoints.insert(endpoint.id(), Endpoint { unverified: false, ..endpoint });
        }
    }
    endpoints
}

const SERVICES: [&str; 4] = ["a", "b", "c", "d"];

/// One change of one host.
#[derive(Clone, Debug)]
enum Change {
    Declare(usize, Vec<usize>),
    Drain(usize, bool),
    Withdraw(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let host = 0..3_usize;
    let services = proptest::sample::subsequence(vec![0_usize, 1, 2, 3], 0..=4);
    prop_oneof![
        4 => (host.clone(), services).prop_map(|(host, services)| Change::Declare(host, services)),
        2 => (host.clone(), any::<bool>()).prop_map(|(host, drain)| Change::Drain(host, drain)),
        1 => host.prop_map(Change::Withdraw),
    ]
}

/// How a watcher behaves.
#[derive(Clone, Debug)]
struct Habit {
    service: Option<usize>,
    /// Disconnects after this many events, and continues from its last bookmark.
    patience: usize,
    /// Handles each event slowly.
    slow: bool,
}

fn habit() -> impl Strategy<Value = Habit> {
    (proptest::option::of(0..4_usize), 1..30_usize, any::<bool>())
        .prop_map(|(service, patience, slow)| Habit { service, patience, slow })
}

async fn make(registry: &RegistryProcess, change: &Change) {
    match change {
        Change::Declare(host, services) => {
            let services: Vec<&str> = services.iter().map(|n| SERVICES[*n]).collect();
            registry.declare(&format!("h{host}"), 1, &services).await;
        }
        Change::Drain(host, drain) => {
            let state = if *drain { "draining" } else { "serving" };
            let body = json!({"session": 1, "state": state});
            registry.send(Method::PUT, &format!("/v1/hosts/h{host}/state"), Some(body)).await;
        }
        Change::Withdraw(host) => {
            let path = format!("/v1/hosts/h{host}?session=1");
            registry.send(Method::DELETE, &path, None).await;
        }
    }
}

/// Watches until it is complete up to `last`, which it learns at the end. At each bookmark, it must
/// hold what the lists were at that index.
async fn watcher(
    registry: RegistryClient,
    habit: Habit,
    history: Arc<Mutex<BTreeMap<u64, Endpoints>>>,
    last: tokio::sync::watch::Receiver<Option<u64>>,
) {
    let service = habit.service.map(|n| SERVICES[n]);
    let mut fold = Fold::default();
    let mut checked = Vec::new();
    'connections: loop {
        let mut watch = registry.watch(service, fold.complete).await.unwrap();
        // Everything after the last bookmark is sent again, so it must not be there twice.
        if let Some(complete) = fold.complete {
            let (_, endpoints) =
                checked.last().cloned().unwrap_or((complete.number, Endpoints::new()));
            fold.endpoints = endpoints;
        }
        // At least one bookmark for each connection; otherwise it would never make progress.
        let (mut events, mut bookmarks) = (0, 0);
        while events < habit.patience || bookmarks == 0 {
            if let Some(complete) = fold.complete
                && last.borrow().is_some_and(|last| complete.number >= last)
            {
                break 'connections;
            }
            let event = within("an event", watch.next()).await.unwrap().unwrap().unwrap();
            events += 1;
            let bookmark = matches!(event, WatchEvent::Bookmark(_));
            fold.apply(event);
            if let Some(complete) = fold.complete.filter(|_| bookmark) {
                bookmarks += 1;
                checked.push((complete.number, fold.endpoints.clone()));
            }
            if habit.slow {
                tokio::task::yield_now().await;
            }
        }
    }
    let history = history.lock().unwrap();
    for (number, endpoints) in checked {
        let (_, then) = history.range(..=number).next_back().unwrap();
        let expected: Endpoints = then
            .iter()
            .filter(|(id, _)| service.is_none_or(|service| id.service == service))
            .map(|(id, endpoint)| (id.clone(), endpoint.clone()))
            .collect();
        assert_eq!(endpoints, expected, "at {number}");
    }
}

async fn fold_equals_the_list(changes: Vec<Change>, habits: Vec<Habit>) {
    let process = RegistryProcess::start(&["--ttl", "1h"]).await.unwrap();
    let registry = RegistryClient::new(&process.url).unwrap();
    let history = Arc::new(Mutex::new(BTreeMap::from([(0, Endpoints::new())])));
    let (tell, last) = tokio::sync::watch::channel(None);
    let watchers: Vec<_> = habits
        .into_iter()
        .map(|habit| tokio::spawn(watcher(registry.clone(), habit, history.clone(), last.clone())))
        .collect();
    for change in &changes {
        make(&process, change).await;
        let number = registry.services().await.unwrap().index.number;
        let endpoints = lists(&registry, &SERVICES).await;
        history.lock().unwrap().insert(number, endpoints);
    }
    // All watchers see this change, and know that it is the last one.
    process.declare("last", 1, &SERVICES).await;
    let number = registry.services().await.unwrap().index.number;
    let endpoints = lists(&registry, &SERVICES).await;
    history.lock().unwrap().insert(number, endpoints);
    tell.send(Some(number)).unwrap();
    // One more change, for watchers that are waiting for an event right now.
    for watcher in watchers {
        let mut watcher = watcher;
        let mut session = 2;
        loop {
            tokio::select! {
                done = &mut watcher => {
                    done.unwrap();
                    break;
                }
                () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {
                    session += 1;
                    let body = json!({"session": session, "address": format!("127.0.0.1:{session}"), "endpoints": declaration(1, &SERVICES)["endpoints"]});
                    process.send(Method::PUT, "/v1/hosts/nudge", Some(body)).await;
                    let number = registry.services().await.unwrap().index.number;
                    let endpoints = lists(&registry, &SERVICES).await;
                    history.lock().unwrap().insert(number, endpoints);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]
    #[test]
    fn whoever_applies_the_events_holds_the_list_of_each_bookmark(
        changes in proptest::collection::vec(change(), 1..60),
        habits in proptest::collection::vec(habit(), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(fold_equals_the_list(changes, habits));
    }
}

/// Reads until the watch is complete up to this number.
async fn read_until(watch: &mut Watch, fold: &mut Fold, number: u64) {
    while fold.complete.is_none_or(|complete| complete.number < number) {
        let event = within("an event", watch.next()).await.unwrap().unwrap();
        fold.apply(event.unwrap());
    }
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_to_start_over_and_ends_with_the_list() {
    let process = RegistryProcess::start(&["--ttl", "1h"]).await.unwrap();
    let registry = RegistryClient::new(&process.url).unwrap();
    let services: Vec<String> = (0..5_000).map(|n| format!("s{n}")).collect();
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    process.declare("h", 1, &services).await;
    let mut watch = registry.watch(None, None).await.unwrap();
    let mut fold = Fold::default();
    fold.apply(watch.next().await.unwrap().unwrap());
    // It reads nothing while more changes happen than the registry keeps.
    for round in 0..10 {
        let state = if round % 2 == 0 { "draining" } else { "serving" };
        let body = json!({"session": 1, "state": state});
        process.send(Method::PUT, "/v1/hosts/h/state", Some(body)).await;
    }
    let number = registry.services().await.unwrap().index.number;
    read_until(&mut watch, &mut fold, number).await;
    assert!(fold.resyncs >= 1 && fold.snapshots >= 2, "{} resyncs", fold.resyncs);
    assert_eq!(fold.endpoints.len(), 5_000);
    assert_eq!(fold.endpoints, lists(&registry, &services).await);
}

#[tokio::test]
async fn a_watch_is_resumed_where_it_was_and_anew_in_another_life_of_the_registry() {
    let first = RegistryProcess::start(&["--ttl", "1h"]).await.unwrap();
    let registry = RegistryClient::new(&first.url).unwrap();
    first.declare("h", 1, &["a"]).await;
    let mut watch = registry.watch(Some("a"), None).await.unwrap();
    let mut fold = Fold::default();
    let number = registry.services().await.unwrap().index.number;
    read_until(&mut watch, &mut fold, number).await;
    drop(watch);
    first.declare("g", 1, &["a"]).await;
    first.declare("other", 1, &["b"]).await;
    let mut watch = registry.watch(Some("a"), fold.complete).await.unwrap();
    let event = within("an event", watch.next()).await.unwrap().unwrap();
    assert!(matches!(event, Some(WatchEvent::Upsert(ref e)) if e.host == "g"), "{event:?}");

    let (status, _) = {
        let address = first.address().to_owned();
        let (status, _) = first.process.terminate().await.unwrap();
        let mut told = false;
        while let Ok(Some(event)) = watch.next().await {
            told |= event == WatchEvent::Goodbye;
        }
        assert!(told, "watchers are told to go elsewhere");
        (status, address)
    };
    assert_eq!(status.code(), Some(0));
    let second = RegistryProcess::start(&["--ttl", "1h"]).await.unwrap();
    let registry = RegistryClient::new(&second.url).unwrap();
    let mut watch = registry.watch(Some("a"), fold.complete).await.unwrap();
    let events = [watch.next().await.unwrap(), watch.next().await.unwrap()];
    assert_eq!(events, [Some(WatchEvent::Resync), Some(WatchEvent::Snapshot)]);
}

#[tokio::test]
async fn an_index_that_nobody_was_told_is_no_place_to_resume() {
    let process = RegistryProcess::start(&[]).await.unwrap();
    let registry = RegistryClient::new(&process.url).unwrap();
    process.declare("h", 1, &["a"]).await;
    let index = registry.services().await.unwrap().index;
    let future = Index { number: index.number + 1_000, ..index };
    let mut watch = registry.watch(None, Some(future)).await.unwrap();
    let events = [watch.next().await.unwrap(), watch.next().await.unwrap()];
    assert_eq!(events, [Some(WatchEvent::Resync), Some(WatchEvent::Snapshot)]);
}

#[tokio::test]
async fn watches_are_counted_and_given_up_when_their_reader_goes() {
    let process = RegistryProcess::start(&[]).await.unwrap();
    let registry = RegistryClient::new(&process.url).unwrap();
    let watch = registry.watch(None, None).await.unwrap();
    let count = async |count: f64| {
        eventually("watches are counted", async || {
            let open = process.metric("wharf_registry_watchers").await;
            (open == Some(count)).then_some(())
        })
        .await
        .unwrap();
    };
    count(1.0).await;
    drop(watch);
    count(0.0).await;
    let bad = registry.watch(Some(""), None).await.unwrap_err();
    assert_eq!(bad.problem().unwrap().status, 400);
}

#[tokio::test]
async fn a_registry_that_accepts_and_says_nothing_is_passed_over_for_the_next() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let process = RegistryProcess::start(&[]).await.unwrap();
    let address = format!("http://{},{}", silent.local_addr().unwrap(), process.address());
    for ask_a_list in [true, false] {
        let registry = RegistryClient::new(&address).unwrap();
        if ask_a_list {
            assert!(registry.services().await.is_ok());
        } else {
            let mut watch = registry.watch(None, None).await.unwrap();
            assert_eq!(watch.next().await.unwrap(), Some(WatchEvent::Snapshot));
        }
        assert_eq!(registry.address(), process.url, "and it stays there");
    }
}
