//! Which endpoint gets a call, and which calls are retried.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wharf_client::{
    Attempt, CallOptions, Client, ClientBuilder, Ended, Failure, Interceptor, Observer, Outgoing,
    Status, TraceParent,
};
use wharf_tests::{Args, Proxy, Wharf, arith_that, eventually, get, hostile, plugin, within};

use crate::hosts::{Host, Registry, host, number_of_endpoints, registry};

mod arith {
    wharf_client::bindgen!("../plugins/arith/wit");
}

/// An attempt: the endpoint, the number of the attempt, and how it failed.
type Made = (String, u32, Option<Status>);

/// Records every attempt, and the number of attempts of each call.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Made>>>, Arc<Mutex<Vec<u32>>>);

impl Observer for Seen {
    fn attempt_ended(&self, attempt: &Attempt<'_>) {
        let status = attempt.failure.map(Failure::status);
        self.0.lock().unwrap().push((attempt.endpoint.to_owned(), attempt.number, status));
    }

    fn call_ended(&self, call: &Ended<'_>) {
        self.1.lock().unwrap().push(call.attempts);
    }
}

impl Seen {
    /// Takes the attempts so far.
    fn attempts(&self) -> Vec<Made> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn builder() -> ClientBuilder {
    Client::builder().without_lists()
}

async fn multiply(client: &Client) -> Result<i64, wharf_client::RpcError> {
    client.call("arith.multiply", &Args { a: 7, b: 8 }).await
}

async fn two_hosts(one: &[u8], two: &[u8], service: &str) -> (Registry, Host, Host) {
    let registry = registry(&[]).await;
    let one = host(&registry.url, "one", one, &[]).await;
    let two = host(&registry.url, "two", two, &[]).await;
    number_of_endpoints(&registry.url, service, 2).await;
    (registry, one, two)
}

/// Two hosts that serve arith. The first is behind a proxy.
async fn proxied() -> (Registry, Host, Host, Proxy) {
    let registry = registry(&[]).await;
    let arith = plugin("arith").unwrap();
    let proxy = Proxy::start().await.unwrap();
    let advertised = proxy.address.to_string();
    let one = host(&registry.url, "one", &arith, &["--advertise", &advertised]).await;
    proxy.set_target(&one.address);
    let two = host(&registry.url, "two", &arith, &[]).await;
    number_of_endpoints(&registry.url, "arith", 2).await;
    (registry, one, two, proxy)
}

/// Calls until both endpoints have been called.
async fn warm_up(client: &Client) {
    eventually("both are connected", async || {
        multiply(client).await.ok()?;
        let endpoints = client.endpoints();
        (endpoints.len() == 2 && endpoints.iter().all(|e| e.connected)).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_change_in_the_registry_is_known_without_a_call() {
    let registry = registry(&[]).await;
    let arith = plugin("arith").unwrap();
    let _one = host(&registry.url, "one", &arith, &[]).await;
    number_of_endpoints(&registry.url, "arith", 1).await;
    let client = wharf_tests::client(&registry.url).unwrap();
    assert_eq!(multiply(&client).await.unwrap(), 56);
    let two = host(&registry.url, "two", &arith, &[]).await;
    number_of_endpoints(&registry.url, "arith", 2).await;
    let listed = Instant::now();
    eventually("the client knows the second host", async || {
        client.endpoints().iter().any(|e| e.address == two.address).then_some(())
    })
    .await
    .unwrap();
    println!("known {:?} after it was listed", listed.elapsed());
    // The host leaves while no calls are made.
    two.process.terminate().await.unwrap();
    eventually("the client knows that it is gone", async || {
        (client.endpoints().len() == 1).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_endpoint_that_answers_sooner_gets_the_calls() {
    let (registry, _one, two, proxy) = proxied().await;
    let seen = Seen::default();
    let client = builder().observer(seen.clone()).registry(&registry.url).unwrap();
    warm_up(&client).await;
    proxy.delay(Duration::from_millis(300));
    // With so many calls at once, both hosts get some. The client learns the delay from these.
    let calls = (0..16).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { multiply(&client).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(within("a call ends", call).await.unwrap().unwrap().unwrap(), 56);
    }
    let slow = |e: &wharf_client::EndpointStatus| e.latency > Duration::from_millis(250);
    assert!(client.endpoints().iter().any(slow), "{:?}", client.endpoints());
    seen.attempts();
    for _ in 0..200 {
        multiply(&client).await.unwrap();
    }
    let attempts = seen.attempts();
    assert!(attempts.iter().all(|(endpoint, ..)| *endpoint == two.address), "{attempts:?}");
}

#[tokio::test]
async fn an_endpoint_that_fails_again_and_again_is_left_out_and_never_all_are() {
    let traps = arith_that("unreachable").unwrap();
    let (registry, one, two) = two_hosts(&traps, &plugin("arith").unwrap(), "arith").await;
    let client = wharf_tests::client(&registry.url).unwrap();
    // Both have the same signature, so calls go to both.
    eventually("the failing one is left out", async || {
        // With so many calls at once, both hosts get some.
        let calls = (0..16).map(|_| {
            let client = client.clone();
            tokio::spawn(async move { multiply(&client).await })
        });
        for call in calls.collect::<Vec<_>>() {
            let _ = call.await.unwrap();
        }
        client.endpoints().iter().any(|e| e.ejected && e.address == one.address).then_some(())
    })
    .await
    .unwrap();
    for _ in 0..50 {
        assert_eq!(multiply(&client).await.unwrap(), 56);
    }
    drop((one, two));

    let (registry, _one, _two) = two_hosts(&traps, &traps, "arith").await;
    let client = wharf_tests::client(&registry.url).unwrap();
    for _ in 0..50 {
        assert_eq!(multiply(&client).await.unwrap_err().status(), Status::Internal);
    }
    assert_eq!(client.endpoints().iter().filter(|e| e.ejected).count(), 1);
}

#[tokio::test]
async fn a_call_that_may_have_been_executed_is_tried_again_only_where_it_is_idempotent() {
    let hostile = hostile().unwrap();
    for idempotent in [false, true] {
        let (registry, one, two) = two_hosts(&hostile, &hostile, "hostile").await;
        let client = wharf_tests::client(&registry.url).unwrap();
        let spinning = tokio::spawn({
            let timeout = Some(Duration::from_secs(3));
            let options = CallOptions { idempotent, timeout, ..CallOptions::default() };
            let client = client.clone();
            async move { client.call_with::<_, ()>("hostile.spin", &(), options).await }
        });
        let busy = eventually("a guest runs", async || {
            for host in [&one, &two] {
                let (_, metrics) = get(&format!("{}/metrics", host.http)).await.unwrap();
                let gauge = |name: &str| {
                    let lines = metrics.lines().filter(|line| line.starts_with(name));
                    let values =
                        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
                    values.sum::<u32>()
                };
                if gauge("wharf_instances{") > gauge("wharf_instances_idle{") {
                    return Some(host);
                }
            }
            None
        })
        .await
        .unwrap();
        busy.process.signal("KILL").unwrap();
        let error = within("the call ends", spinning).await.unwrap().unwrap().unwrap_err();
        assert!(error.may_have_executed, "{error:?}");
        if idempotent {
            // The retry then ran at the other host until its deadline.
            assert_eq!((error.attempts, error.status()), (2, Status::DeadlineExceeded));
        } else {
            assert_eq!(error.attempts, 1, "{error:?}");
            assert!(matches!(error.failure, Failure::ConnectionLost { .. }), "{error:?}");
        }
    }
}

#[tokio::test]
async fn what_a_host_refuses_for_good_costs_nothing_and_is_asked_of_the_others() {
    // The first host that the client meets decides the signature of its calls.
    let other = wharf_tests::arith_reordered().unwrap();
    let registry = registry(&[]).await;
    let _one = host(&registry.url, "one", &plugin("arith").unwrap(), &[]).await;
    number_of_endpoints(&registry.url, "arith", 1).await;
    let client = wharf_tests::client(&registry.url).unwrap();
    assert_eq!(multiply(&client).await.unwrap(), 56);
    let two = host(&registry.url, "two", &other, &[]).await;
    eventually("the client knows the other host", async || {
        client.endpoints().iter().any(|e| e.address == two.address).then_some(())
    })
    .await
    .unwrap();
    // Far more calls than the retry budget could cover, too fast for it to refill.
    for _ in 0..2000 {
        assert_eq!(multiply(&client).await.unwrap(), 56);
    }
}

#[tokio::test]
async fn no_call_waits_for_an_endpoint_that_does_not_let_connect() {
    let registry = registry(&[]).await;
    let arith = plugin("arith").unwrap();
    let _one = host(&registry.url, "one", &arith, &[]).await;
    number_of_endpoints(&registry.url, "arith", 1).await;
    let client = wharf_tests::client(&registry.url).unwrap();
    assert_eq!(multiply(&client).await.unwrap(), 56);
    // This endpoint is listed and accepts connections, but never sends anything.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let advertised = silent.local_addr().unwrap().to_string();
    let _two = host(&registry.url, "two", &arith, &["--advertise", &advertised]).await;
    eventually("the client knows the silent endpoint", async || {
        client.endpoints().iter().any(|e| e.address == advertised).then_some(())
    })
    .await
    .unwrap();
    // A call that waited for it would have no time left.
    let options = CallOptions { timeout: Some(Duration::from_secs(2)), ..CallOptions::default() };
    for _ in 0..500 {
        let call = client.call_with("arith.multiply", &Args { a: 7, b: 8 }, options.clone());
        let product: i64 = call.await.unwrap();
        assert_eq!(product, 56);
    }
}

#[tokio::test]
async fn a_hedge_answers_where_the_first_endpoint_takes_its_time() {
    let (registry, one, two, proxy) = proxied().await;
    let seen = Seen::default();
    let client = builder().observer(seen.clone()).registry(&registry.url).unwrap();
    warm_up(&client).await;
    seen.attempts();
    seen.1.lock().unwrap().clear();
    // The first host no longer replies, and the client does not know that yet.
    proxy.lose(true);
    let hedge_after = Some(Duration::from_millis(50));
    let hedged = CallOptions { idempotent: true, hedge_after, ..CallOptions::default() };
    // With so many calls at once, both hosts get some.
    let calls = (0..16).map(|_| {
        let (client, hedged) = (client.clone(), hedged.clone());
        tokio::spawn(async move {
            client.call_with::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }, hedged).await
        })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(within("a hedged call ends", call).await.unwrap().unwrap().unwrap(), 56);
    }
    assert!(seen.1.lock().unwrap().contains(&2), "one of them began at the lost host");
    let attempts = seen.attempts();
    let hedge = attempts.iter().find(|(_, number, _)| *number == 2).unwrap();
    assert_eq!((&hedge.0, hedge.2), (&two.address, None));
    drop(one);
    // A call that is not marked idempotent is not hedged.
    let plain = CallOptions { hedge_after, ..CallOptions::default() };
    proxy.lose(false);
    let product = client.call_with::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }, plain).await;
    assert_eq!(product.unwrap(), 56);
    assert_eq!(seen.1.lock().unwrap().last(), Some(&1));
}

#[tokio::test]
async fn a_deadline_that_passed_is_not_taken_back_by_an_answer_that_lies_ready() {
    let wharf = Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    let client = wharf.direct();
    assert_eq!(multiply(&client).await.unwrap(), 56);
    let timeout = Duration::from_millis(100);
    let options = CallOptions { timeout: Some(timeout), ..CallOptions::default() };
    let mut call =
        Box::pin(client.call_with::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }, options));
    let sent = std::future::poll_fn(|cx| {
        assert!(call.as_mut().poll(cx).is_pending());
        std::task::Poll::Ready(())
    });
    sent.await;
    // The call's time began with its first poll, so it is over when as much has passed from here.
    let begun = Instant::now();
    // Let the connection send the call and receive the answer. Then block this thread, and all
    // tasks on it, until the deadline has passed. Both the answer and the timeout are then ready.
    tokio::task::yield_now().await;
    while begun.elapsed() <= timeout {
        std::thread::yield_now();
    }
    let error = call.await.unwrap_err();
    assert_eq!(error.status(), Status::DeadlineExceeded, "{error:?}");
}

#[tokio::test]
async fn more_calls_than_a_host_takes_at_once_wait_for_their_turn() {
    let wharf = Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    let client = wharf.direct();
    // A connection has at most 1,024 calls in flight.
    let calls: Vec<_> = (0..4000i64)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                (n, client.call::<_, i64>("arith.multiply", &Args { a: n, b: 2 }).await)
            })
        })
        .collect();
    for call in calls {
        let (n, product) = call.await.unwrap();
        assert_eq!(product.unwrap(), 2 * n);
    }
}

#[tokio::test]
async fn as_many_connections_are_kept_as_are_asked_for() {
    let wharf = Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    let client = builder().connections(3.try_into().unwrap()).direct(&wharf.host);
    eventually("three connections", async || {
        assert_eq!(multiply(&client).await.unwrap(), 56);
        let (_, metrics) = get(&format!("{}/metrics", wharf.http)).await.unwrap();
        metrics.contains("wharf_connections 3").then_some(())
    })
    .await
    .unwrap();
    for _ in 0..10 {
        assert_eq!(multiply(&client).await.unwrap(), 56);
    }
    let (_, metrics) = get(&format!("{}/metrics", wharf.http)).await.unwrap();
    assert!(metrics.contains("wharf_connections 3"), "{metrics}");
}

#[tokio::test]
async fn a_stub_goes_to_the_hosts_that_serve_what_it_was_built_against() {
    // The same name and version, but another signature.
    let other = wharf_tests::arith_reordered().unwrap();
    let (registry, _one, two) = two_hosts(&other, &plugin("arith").unwrap(), "arith").await;
    let seen = Seen::default();
    let client = builder().observer(seen.clone()).registry(&registry.url).unwrap();
    let calls = arith::ArithClient::new(&client);
    for _ in 0..20 {
        assert_eq!(calls.multiply(arith::Args { a: 7, b: 8 }).await.unwrap(), 56);
    }
    let attempts = seen.attempts();
    assert!(attempts.iter().all(|(endpoint, ..)| *endpoint == two.address), "{attempts:?}");
    assert_eq!(attempts.len(), 20);
}

struct Signed;

impl Interceptor for Signed {
    fn outgoing(
        &self,
        call: &mut Outgoing<'_>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if call.method() == "arith.divide" {
            return Err("not today".into());
        }
        call.insert(TraceParent::KEY, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")?;
        call.insert("authorization", "Bearer x")?;
        Ok(())
    }
}

#[tokio::test]
async fn an_interceptor_adds_to_calls_and_refuses_them() {
    let traps = arith_that("unreachable").unwrap();
    let wharf = Wharf::up(&[("arith.wasm", &traps)], &[]).await.unwrap();
    let client = builder().interceptor(Signed).direct(&wharf.host);
    let error = multiply(&client).await.unwrap_err();
    assert_eq!(error.status(), Status::Internal);
    let arguments = Args { a: 7, b: 0 };
    let error = client.call::<_, ()>("arith.divide", &arguments).await.unwrap_err();
    assert!(!error.may_have_executed);
    let text = "arith.divide: an interceptor refused the call: not today";
    assert_eq!(error.to_string(), text);
    // The observer sees the same method name, however the method is called.
    let stub = arith::ArithClient::new(&client);
    let error = stub.divide(arith::Args { a: 7, b: 0 }).await.unwrap_err();
    assert!(matches!(error.rpc().unwrap().failure, Failure::Intercepted(_)), "{error}");
    let too_much = vec![("k".to_owned(), "v".repeat(5000))];
    let options = CallOptions { metadata: too_much, ..CallOptions::default() };
    let error = client.call_with::<_, i64>("arith.multiply", &arguments, options).await;
    let error = error.unwrap_err();
    assert!(matches!(error.failure, Failure::Metadata(_)), "{error:?}");
    assert!(error.to_string().contains("at most 4096 are allowed"), "{error}");
    let (_, log) = wharf.process.terminate().await.unwrap();
    assert!(log.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{log}");
}
