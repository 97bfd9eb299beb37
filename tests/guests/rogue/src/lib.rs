//! A guest that misbehaves: it exits, sleeps, floods, panics, computes and keeps memory.

// The generated bindings are not ours to lint.
#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::pedantic)]
mod bindings {
    use super::Plugin;

    wit_bindgen::generate!({ path: "wit", world: "plugin" });
    export!(Plugin);
}

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::time::{Duration, Instant};

use bindings::exports::test::rogue::rogue::Guest;

struct Plugin;

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Guest for Plugin {
    #[expect(clippy::disallowed_methods, reason = "that is what it is for")]
    fn exit(code: u8) {
        std::process::exit(code.into());
    }

    #[expect(clippy::disallowed_methods, reason = "that is what it is for")]
    fn sleep(milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }

    fn print(bytes: u64) {
        let lines = [&[b'x'; 99][..], b"\n"].concat().repeat(40);
        let mut out = std::io::stdout().lock();
        for _ in 0..bytes / 4000 {
            // The flood goes on even if nobody reads it.
            let _ = out.write_all(&lines);
        }
    }

    #[expect(clippy::panic, reason = "that is what it is for")]
    fn panic(message: String) {
        panic!("{message}");
    }

    fn compute(milliseconds: u64) -> u64 {
        let until = Instant::now() + Duration::from_millis(milliseconds);
        let mut sum = 0u64;
        while Instant::now() < until {
            for number in 0..10_000u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(number));
            }
        }
        sum
    }

    fn keep(bytes: u64) -> u64 {
        KEPT.with_borrow_mut(|kept| {
            kept.push(vec![1; usize::try_from(bytes).unwrap_or(usize::MAX)]);
            kept.iter().map(|block| block.len() as u64).sum()
        })
    }

    fn count() -> u32 {
        CALLS.set(CALLS.get() + 1);
        CALLS.get()
    }
}
