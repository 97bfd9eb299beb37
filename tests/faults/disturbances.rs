//! One test for each kind of fault.

use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use wharf_client::Client;
use wharf_tests::{Link, eventually, hostile};

use crate::fleet::{Fleet, Host, Run};

fn builder() -> wharf_client::ClientBuilder {
    Client::builder().without_lists()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_happens_and_nothing_is_left() {
    let fleet = Fleet::start().await;
    let client = fleet.client(builder()).await;
    let run = Run::begin("undisturbed", &client, false).await;
    run.until(run.length).await;
    fleet.finish(client, run, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_killed_and_restarted_in_turn_and_no_idempotent_call_fails() {
    let mut fleet = Fleet::start().await;
    let client = fleet.client(builder()).await;
    let mut run = Run::begin("hosts killed and restarted in turn", &client, true).await;
    for (n, at) in run.times(6).enumerate() {
        run.until(at).await;
        run.fault();
        let host = &mut fleet.hosts[n % 3];
        host.kill().await;
        host.restart().await;
    }
    run.until(run.length).await;
    fleet.finish(client, run, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_stopped_and_no_idempotent_call_fails() {
    let fleet = Fleet::start().await;
    let client = fleet.client(builder()).await;
    let mut run = Run::begin("a host stopped (SIGSTOP), and continued", &client, true).await;
    run.fault();
    fleet.hosts[0].signal("STOP");
    run.until(run.length * 5 / 6).await;
    run.fault();
    fleet.hosts[0].signal("CONT");
    run.until(run.length).await;
    fleet.finish(client, run, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_gets_slow_and_calls_go_elsewhere() {
    let fleet = Fleet::start().await;
    let client = fleet.client(builder()).await;
    let mut run = Run::begin("200 ms more to one host", &client, false).await;
    run.fault();
    fleet.hosts[0].proxy.delay(Duration::from_millis(200));
    run.until(run.length).await;
    fleet.finish(client, run, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_reset_and_no_idempotent_call_fails() {
    let fleet = Fleet::start().await;
    let client = fleet.client(builder()).await;
    let mut run = Run::begin("connections reset, of each host in turn", &client, true).await;
    for (n, at) in run.times(9).enumerate() {
        run.until(at).await;
        run.fault();
        fleet.hosts[n % 3].proxy.reset();
    }
    run.until(run.length).await;
    fleet.finish(client, run, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_half_open_and_no_idempotent_call_fails() {
    let fleet = Fleet::start().await;
    let client = fleet.client(builder()).await;
    let mut run = Run::begin("connections half-open, of each host in turn", &client, true).await;
    for (n, at) in run.times(3).enumerate() {
        run.until(at).await;
        run.fault();
        fleet.hosts[n].proxy.half_open();
    }
    run.until(run.length).await;
    fleet.finish(client, run, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_to_a_host_is_lost_and_no_idempotent_call_fails() {
    let fleet = Fleet::start().await;
    let client = fleet.client(builder()).await;
    let mut run = Run::begin("everything to one host lost, and found again", &client, true).await;
    run.fault();
    fleet.hosts[0].proxy.lose(true);
    run.until(run.length * 5 / 6).await;
    run.fault();
    fleet.hosts[0].proxy.lose(false);
    run.until(run.length).await;
    fleet.finish(client, run, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registry_is_gone_for_the_whole_run_and_nobody_notices() {
    let mut fleet = Fleet::start().await;
    let lists = tempfile::tempdir().unwrap();
    let before = fleet.client(Client::builder().lists_in(lists.path())).await;
    wharf_tests::eventually("the list is kept", async || {
        let folder = std::fs::read_dir(lists.path()).ok()?.next()?.ok()?;
        folder.path().join("arith.json").exists().then_some(())
    })
    .await
    .unwrap();
    fleet.registry.take().unwrap().process.kill().await.unwrap();
    drop(before);
    // A client that starts now uses the list that the other client has kept on disk.
    let client = fleet.client(Client::builder().lists_in(lists.path())).await;
    let run = Run::begin("registry gone for the whole run", &client, false).await;
    run.until(run.length).await;
    fleet.finish(client, run, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_hosts_are_replaced_and_no_call_fails() {
    let mut fleet = Fleet::start().await;
    let client = fleet.client(builder()).await;
    let mut run = Run::begin("rolling replacement of all hosts", &client, false).await;
    for (n, at) in run.times(3).enumerate() {
        run.until(at).await;
        run.fault();
        let new = Host::start(&fleet.address, ["four", "five", "six"][n]).await;
        let mut old = std::mem::replace(&mut fleet.hosts[n], new);
        let (status, log) = old.process.take().unwrap().terminate().await.unwrap();
        assert!(status.success(), "{log}");
    }
    run.until(run.length).await;
    fleet.finish(client, run, false).await;
}

#[test]
fn the_network_is_slow_and_loses_packets_and_no_call_fails() {
    let Some(link) = Link::if_possible() else { return };
    let run = async || {
        let fleet = Fleet::start().await;
        let client = fleet.client(builder()).await;
        let mut run = Run::begin("20 Mbit/s, queues of 50 ms, 1 % lost", &client, false).await;
        run.fault();
        link.shape_loopback("tbf rate 20mbit burst 64kb latency 50ms").unwrap();
        link.lose(10).unwrap();
        run.until(run.length).await;
        assert!(link.lost().unwrap() > 100);
        fleet.finish(client, run, false).await;
    };
    link.inside(run).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_client_gives_up_all_that_it_calls_and_no_call_of_this_one_fails() {
    let fleet = Fleet::start().await;
    for host in &fleet.hosts {
        std::fs::write(host.plugins.path().join("hostile.wasm"), hostile().unwrap()).unwrap();
    }
    let client = fleet.client(builder()).await;
    let other = fleet.client(builder().timeout(Duration::from_secs(60))).await;
    eventually("the other plugin is served by all", async || {
        let endpoints = other.call::<_, u32>("hostile.count", &()).await.is_ok();
        (endpoints && other.endpoints().len() == 6).then_some(())
    })
    .await
    .unwrap();
    let mut run = Run::begin("another client gives up all its calls", &client, false).await;
    run.fault();
    let storm: JoinHandle<()> = tokio::spawn(async move {
        loop {
            let mut calls = JoinSet::new();
            for _ in 0..300 {
                let other = other.clone();
                calls.spawn(async move { other.call::<_, ()>("hostile.spin", &()).await });
            }
            while other.endpoints().iter().map(|e| e.in_flight).sum::<u32>() < 290 {
                tokio::task::yield_now().await;
            }
            calls.shutdown().await;
        }
    });
    run.until(run.length).await;
    assert!(!storm.is_finished());
    storm.abort();
    let _ = storm.await;
    fleet.finish(client, run, false).await;
}
