//! Runs the binary that cargo builds for its own tests. Checks what a new user sees.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::process::Command;

fn wharf(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_wharf")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn every_command_explains_itself_with_examples() {
    let (code, help) = wharf(&["--help"]);
    assert_eq!(code, Some(0));
    for command in ["up", "host", "registry", "call", "services", "inspect"] {
        assert!(help.contains(command), "{command} is not in\n{help}");
    }
    assert!(help.contains("Exit codes:"), "{help}");
    for command in ["up", "host", "registry", "call", "services", "inspect"] {
        let (code, help) = wharf(&[command, "--help"]);
        assert_eq!(code, Some(0));
        assert!(help.contains("Examples:"), "{command}:\n{help}");
    }
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    for (arguments, message) in [
        (&["call"][..], "<METHOD>"),
        (&["call", "arith.multiply", "--timeout", "10"], "write a time like 500ms, 10s or 2m"),
        (&["host", "--memory", "0"], "it must be between 1MiB and 4GiB"),
        (&["host", "--token", ""], "it is empty, which would let everybody in"),
        (&["up", "--name", "my host"], "it has white space"),
        (&["services", "--registry", "ftp://x"], "write it like http://127.0.0.1:8500"),
        (&["hots"], "a similar subcommand exists: 'host'"),
    ] {
        let (code, text) = wharf(arguments);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(text.contains(message), "{arguments:?}:\n{text}");
    }
}
