//! Go's own net/rpc calls Wharf, with no code of Wharf's. The program is `tests/go/doors`.

use tokio::process::Command;
use wharf_tests::{Process, Wharf, go_program, run_command};

/// Runs one case of the program against a host. It fails by itself.
async fn succeeds(case: &str) {
    let Some(program) = go_program("doors").await.unwrap() else { return };
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let finished = run_command(Command::new(&program).args([case, &wharf.host])).await.unwrap();
    assert_eq!((finished.code, &finished.stdout[..]), (Some(0), "ok\n"), "{}", finished.stderr);
}

#[tokio::test]
async fn the_classic_sketchs_client_finds_and_calls_a_plugin() {
    let Some(program) = go_program("doors").await.unwrap() else { return };
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let arguments = ["sketch", &wharf.registry, &wharf.host];
    let finished = run_command(Command::new(&program).args(arguments)).await.unwrap();
    assert_eq!((finished.code, &finished.stdout[..]), (Some(0), "ok\n"), "{}", finished.stderr);
}

#[tokio::test]
async fn go_dials_over_http() {
    succeeds("http").await;
}

#[tokio::test]
async fn go_reads_errors_in_its_own_words_and_its_connection_goes_on() {
    succeeds("errors").await;
}

#[tokio::test]
async fn go_has_a_thousand_calls_in_flight_and_large_values_between_them() {
    succeeds("flight").await;
}

#[tokio::test]
async fn a_slow_call_of_go_holds_up_no_quick_one_and_a_trap_ends_only_its_call() {
    succeeds("slow").await;
}

#[tokio::test]
async fn go_calls_textkit_with_all_of_its_types() {
    succeeds("textkit").await;
}

#[tokio::test]
async fn every_type_of_wit_goes_to_go_and_back() {
    succeeds("zoo").await;
}

#[tokio::test]
async fn integers_keep_the_sign_that_go_gives_them() {
    succeeds("integers").await;
}

#[tokio::test]
async fn go_calls_over_json() {
    succeeds("json").await;
}

#[tokio::test]
async fn a_drain_answers_what_go_has_in_flight_and_then_ends_the_connection() {
    let Some(program) = go_program("doors").await.unwrap() else { return };
    let wharf = Wharf::up_with_services(&[]).await.unwrap();
    let mut command = Command::new(program);
    command.args(["drain", &wharf.host]);
    let go = Process::run(command).unwrap();
    // The host counts the call once it has begun.
    wharf_tests::eventually("the call runs", async || {
        let (_, text) = wharf_tests::get(&format!("{}/services", wharf.http)).await.ok()?;
        let services: serde_json::Value = serde_json::from_str(&text).ok()?;
        let rogue = services["services"]
            .as_array()?
            .iter()
            .find(|service| service["service"] == "test:rogue/rogue@1.0.0")?;
        (rogue["instances"].as_u64()? > rogue["idle"].as_u64()?).then_some(())
    })
    .await
    .unwrap();
    let (status, log) = wharf.process.terminate().await.unwrap();
    assert!(status.success(), "{log}");
    let (status, log) = go.ended().await.unwrap();
    assert!(status.success(), "{log}");
}
