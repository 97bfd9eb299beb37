//! Guests written by hand: a WIT and a core module in the text format make a component.

use std::path::Path;

use anyhow::Context;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Makes a component of a WIT package with one world and a core module that implements it.
///
/// # Errors
/// When the two do not fit each other.
pub fn component(wit: &str, module: &str) -> anyhow::Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let package = resolve.push_source(Path::new("guest.wit").to_str().unwrap_or_default(), wit)?;
    let world = resolve.select_world(&[package], None)?;
    let mut module = wat::parse_str(module)?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().validate(true).module(&module)?.encode().context("encoding")
}

/// `demo:arith/arith@0.1.0` with a `multiply` that computes something else: `body` is WebAssembly
/// text over the locals 0 and 1.
///
/// # Errors
/// When the body is none.
pub fn arith_that(body: &str) -> anyhow::Result<Vec<u8>> {
    component(
        "package demo:arith@0.1.0;
         interface arith {
             record args { a: s64, b: s64 }
             multiply: func(args: args) -> s64;
         }
         world plugin { export arith; }",
        &format!(
            r#"(module
                (memory (export "memory") 1)
                (func (export "demo:arith/arith@0.1.0#multiply") (param i64 i64) (result i64) {body}))"#
        ),
    )
}

/// A guest that does what no guest should, one method for each.
///
/// # Errors
/// When it cannot be made.
pub fn hostile() -> anyhow::Result<Vec<u8>> {
    component(
        "package test:hostile@1.0.0;
         interface hostile {
             /// Never returns.
             spin: func();
             /// Executes `unreachable`.
             trap: func();
             /// Recurses until the stack ends.
             recurse: func() -> u32;
             /// Grows its memory page by page until it is refused, then traps.
             gorge: func();
             /// Answers as many zero bytes as asked for.
             zeros: func(count: u32) -> list<u8>;
             /// Claims a result beyond its memory.
             lie: func() -> list<u8>;
             /// An enum of two cases, with the discriminant asked for.
             discriminant: func(of: u32) -> answer;
             /// How often it was called in this instance.
             count: func() -> u32;
             enum answer { yes, no }
         }
         world plugin { export hostile; }",
        r#"(module
            (memory (export "memory") 1)
            (global $calls (mut i32) (i32.const 0))
            (func (export "test:hostile/hostile@1.0.0#spin") (loop (br 0)))
            (func (export "test:hostile/hostile@1.0.0#trap") unreachable)
            (func $recurse (export "test:hostile/hostile@1.0.0#recurse") (result i32)
                (i32.add (call $recurse) (i32.const 1)))
            (func (export "test:hostile/hostile@1.0.0#gorge")
                (loop $more
                    (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
                unreachable)
            (func (export "test:hostile/hostile@1.0.0#zeros") (param $count i32) (result i32)
                (local $pages i32)
                (local.set $pages (i32.sub
                    (i32.add (i32.div_u (local.get $count) (i32.const 65536)) (i32.const 2))
                    (memory.size)))
                (if (i32.gt_s (local.get $pages) (i32.const 0))
                    (then (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1))
                        (then unreachable))))
                (i32.store (i32.const 0) (i32.const 16))
                (i32.store (i32.const 4) (local.get $count))
                (i32.const 0))
            (func (export "test:hostile/hostile@1.0.0#lie") (result i32)
                (i32.store (i32.const 0) (i32.const 65000))
                (i32.store (i32.const 4) (i32.const 1000000))
                (i32.const 0))
            (func (export "test:hostile/hostile@1.0.0#discriminant") (param i32) (result i32)
                (local.get 0))
            (func (export "test:hostile/hostile@1.0.0#count") (result i32)
                (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                (global.get $calls)))"#,
    )
}
